import sys
from types import SimpleNamespace

import numpy as np
import pytest

from clipmg_hf.pose.estimators import PoseEstimatorError, load_estimator


HEIGHT, WIDTH = 60, 80
# RTMPose's raw scores; 1.3 and 6 have to be clipped.
SCORES = np.tile([0.05, 0.4, 1.3, 6.0], 34)[:133]


class FakeDetector:
    """rtmlib's `YOLOX`: frames are shrunk to half their size; `found` holds what the network says of each frame."""

    def __init__(self, found, size):
        self.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["batch", 3, *size])])
        self.score_thr, self.model_input_size = 0.7, (640, 640)
        self.found, self.seen = iter(found), []

    def preprocess(self, image):
        self.seen.append(image)
        return image[::2, ::2], 0.5

    def inference(self, image):
        return [np.asarray(next(self.found), dtype=np.float32)[None], "labels"]

    def postprocess(self, outputs, ratio):
        kept = outputs[0, outputs[0, :, 4] * outputs[0, :, 5] >= self.score_thr]
        return kept[:, :4] / ratio if len(kept) else np.array([])


class FakePose:
    """rtmlib's `RTMPose`: all points of a box lie in its middle."""

    def __init__(self, num_keypoints, size):
        self.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["batch", 3, *size])])
        self.model_input_size = (288, 384)
        self.num_keypoints, self.seen = num_keypoints, []

    def __call__(self, image, bboxes=()):
        assert len(bboxes), "rtmlib takes the whole frame for a person then"
        assert image.flags.c_contiguous
        self.seen.append(image)
        middles = (bboxes[:, None, :2] + bboxes[:, None, 2:]) / 2
        points = np.tile(middles.astype(np.float64), (1, self.num_keypoints, 1))
        return points, np.tile(SCORES[: self.num_keypoints], (len(bboxes), 1))


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in with rtmlib's interface, and ONNX Runtime's providers, in place of the extra."""

    def install(found=(), num_keypoints=133, providers=("CPUExecutionProvider",), error=None, sizes=None):
        made = []
        detector_size, pose_size = sizes or ((416, 640), (256, 192))

        class Wholebody:
            MODE = {"balanced": {"det": "https://example.org/det.zip", "pose": "https://example.org/pose.zip"}}

            def __init__(self, **options):
                if error is not None:
                    raise error
                print("load with onnxruntime backend")
                made.append(options)
                self.det_model = FakeDetector(found, detector_size)
                self.pose_model = FakePose(num_keypoints, pose_size)

        monkeypatch.setitem(sys.modules, "rtmlib", SimpleNamespace(Wholebody=Wholebody))
        runtime = SimpleNamespace(get_available_providers=lambda: list(providers))
        monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
        return made

    return install


def frames_of_colours(num_frames):
    frames = np.zeros((num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames[...] = 10, 20, 30
    return frames


@pytest.mark.parametrize("name", ["rtmpose", "rtmw"])
def test_boxes_become_people_in_pixels_of_the_frame(install, name):
    # Left, top, right, bottom in the halved frame, and score: two people; nobody sure enough; one beyond the border.
    install([
        [[5, 5, 15, 25, 0.9], [20, 10, 40, 20, 0.5]],
        [[5, 5, 15, 25, 0.49]],
        [[30, 20, 60, 40, 0.8], [45, 5, 60, 20, 0.8]],
    ])  # fmt: skip
    estimator = load_estimator(name, min_confidence=0.5, min_keypoint_confidence=0.1)
    assert estimator.layout.name == "coco-wholebody-133"
    people = estimator.estimate(frames_of_colours(3))
    assert [frame.shape for frame in people] == [(2, 133, 3), (0, 133, 3), (1, 133, 3)]
    assert all(frame.dtype == np.float32 for frame in people)
    confidence = np.tile([0, 0.4, 1, 1], 34)[:133].astype(np.float32)
    middles = [(20, 30), (60, 30)]
    for person, middle in zip(people[0], middles, strict=True):
        np.testing.assert_allclose(person[:, 2], confidence)
        np.testing.assert_allclose(person[:, :2], np.where(confidence[:, None] > 0, middle, 0))
    # The box was cut at the frame's right and lower border before the points were found in it.
    np.testing.assert_allclose(people[2][0, 1], (70, 50, 0.4))


def test_a_network_that_leaves_overlaps_to_rtmlib(install):
    # Box, objectness and score of the class "person".
    install([[[5, 5, 15, 25, 0.9, 0.9], [20, 10, 40, 20, 0.7, 0.8]], [[5, 5, 15, 25, 0.5, 0.5]]])
    people = load_estimator("rtmpose", min_confidence=0.6).estimate(frames_of_colours(2))
    assert [len(frame) for frame in people] == [1, 0]


def test_the_detector_sees_bgr_and_the_pose_model_rgb(install):
    install([[[5, 5, 15, 25, 0.9]]])
    estimator = load_estimator("rtmpose")
    estimator.estimate(frames_of_colours(1))
    assert estimator.detector.seen[0][0, 0].tolist() == [30, 20, 10]
    assert estimator.model.seen[0][0, 0].tolist() == [10, 20, 30]


def test_sizes_come_from_the_files_and_nothing_is_printed(install, tmp_path, capsys):
    made = install()
    for name in ("pose.onnx", "det.onnx"):
        (tmp_path / name).touch()
    estimator = load_estimator("rtmpose", weights=tmp_path / "pose.onnx", person_detector=tmp_path / "det.onnx")
    assert made[0]["pose"] == str(tmp_path / "pose.onnx") and made[0]["det"] == str(tmp_path / "det.onnx")
    # rtmlib: height first for the detector, width first for the pose model.
    assert estimator.detector.model_input_size == (416, 640) and estimator.model.model_input_size == (192, 256)
    assert capsys.readouterr().out == ""


def test_a_size_that_the_file_leaves_open_is_rtmlibs(install):
    install(sizes=(("height", "width"), (256, 192)))
    assert load_estimator("rtmpose").detector.model_input_size == (640, 640)


def test_weights_of_the_body_alone(install):
    install([[[5, 5, 15, 25, 0.9]]], num_keypoints=17)
    with pytest.raises(PoseEstimatorError, match="weights give 17 points, expected 133 of a whole body"):
        load_estimator("rtmpose").estimate(frames_of_colours(1))


@pytest.mark.parametrize("argument", ["weights", "person_detector"])
def test_a_file_that_is_not_there_says_what_to_fetch(install, tmp_path, argument):
    install()
    with pytest.raises(
        PoseEstimatorError, match=rf"{argument}: .*nothing\.onnx does not exist; fetch and unpack https"
    ):
        load_estimator("rtmpose", **{argument: tmp_path / "nothing.onnx"})


def test_a_failed_download_says_what_to_fetch(install):
    install(error=OSError("Name or service not known"))
    message = r"cannot be loaded \(Name or service not known\); fetch and unpack https://example\.org/pose\.zip"
    with pytest.raises(PoseEstimatorError, match=message):
        load_estimator("rtmpose")


def test_devices(install):
    made = install(providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    load_estimator("rtmpose")
    load_estimator("rtmpose", device="cuda:1")
    load_estimator("rtmpose", device="cpu")
    assert [options["device"] for options in made] == ["cuda", "cuda:1", "cpu"]
    made = install()
    load_estimator("rtmpose")
    assert made[0]["device"] == "cpu"
    for device in ("cuda", "meta"):
        with pytest.raises(ValueError, match=rf"device '{device}' cannot be used by ONNX Runtime, which has CPUExec"):
            load_estimator("rtmpose", device=device)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PoseEstimatorError, match=r'onnxruntime cannot be .*pip install "clipmg_hf\[rtmpose\]"'):
        load_estimator("rtmpose")

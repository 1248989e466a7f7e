import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from clipmg_hf.pose.estimators import PoseEstimatorError, load_estimator
from clipmg_hf.pose.mediapipe_pose import _FACE_VERTICES
from clipmg_hf.processing import get_layout, valid_keypoints


HEIGHT, WIDTH = 40, 80
# Runs of MediaPipe's face mesh from one side of the person to the other, as its connections have them.
OVAL = [10, 109, 67, 103, 54, 21, 162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148]
OVAL += [152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356, 389, 251, 284, 332, 297, 338]
UPPER_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LOWER_LIP = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
INNER_UPPER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
INNER_LOWER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
NOSE = [98, 97, 2, 326, 327]
UPPER_LIDS = [33, 246, 161, 160, 159, 158, 157, 173, 133, 362, 398, 384, 385, 386, 387, 388, 466, 263]
LOWER_LIDS = [33, 7, 163, 144, 145, 153, 154, 155, 133, 362, 382, 381, 380, 374, 373, 390, 249, 263]
BROWS = [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]
BRIDGE = [168, 6, 197, 195, 5, 4, 1]


def landmark(x, y, visibility=None):
    return SimpleNamespace(x=x, y=y, z=0.0, visibility=visibility, presence=None, name=None)


def body(x=0.25, y=0.5, visibility=0.9, **others):
    """33 landmarks in one place but for those given by index as `i3=(x, y, visibility)`."""
    landmarks = [landmark(x, y, visibility) for _ in range(33)]
    for name, values in others.items():
        landmarks[int(name[1:])] = landmark(*values)
    return landmarks


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in with the interface of MediaPipe's Tasks API in place of the extra."""

    def install(results=(), error=None):
        made, seen = [], []
        remaining = iter(results)

        class Options(SimpleNamespace):
            pass

        class Landmarker:
            @classmethod
            def create_from_options(cls, options):
                if error is not None:
                    raise error
                made.append((cls.__name__, options))
                return cls()

            def detect(self, image):
                seen.append(image)
                return next(remaining)

        vision = SimpleNamespace(
            RunningMode=SimpleNamespace(IMAGE="image"),
            PoseLandmarkerOptions=Options,
            HolisticLandmarkerOptions=Options,
            PoseLandmarker=type("PoseLandmarker", (Landmarker,), {}),
            HolisticLandmarker=type("HolisticLandmarker", (Landmarker,), {}),
        )
        tasks = SimpleNamespace(BaseOptions=Options, vision=vision)
        mediapipe = SimpleNamespace(Image=Options, ImageFormat=SimpleNamespace(SRGB="srgb"))
        monkeypatch.setitem(sys.modules, "mediapipe", mediapipe)
        monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", tasks)
        return made, seen

    return install


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "landmarker.task"
    path.touch()
    return path


def random_frames(num_frames):
    return np.random.default_rng(0).integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_landmarks_become_pixels_of_the_frame(install, task):
    # The first pixel's centre is half a pixel from the border.
    first = body(i0=(0.5 / WIDTH, 0.5 / HEIGHT, 0.8), i11=(1.1, 0.5, 0.7), i12=(0.5, 0.5, 0.05), i16=(1.0, 0.0, 1.0))
    made, seen = install([SimpleNamespace(pose_landmarks=[first, body(0.75, 0.25, 0.6)]),
                          SimpleNamespace(pose_landmarks=[])])  # fmt: skip
    estimator = load_estimator("mediapipe", weights=task, min_confidence=0.3, min_keypoint_confidence=0.1)
    frames = random_frames(2)[:, ::-1]
    people = estimator.estimate(frames)
    layout = get_layout("mediapipe-33")
    assert estimator.layout is layout and [frame.shape for frame in people] == [(2, 33, 3), (0, 33, 3)]
    expected = np.tile(np.float32([19.5, 19.5, 0.9]), (33, 1))
    expected[layout.index("nose")] = 0, 0, 0.8
    expected[layout.index("left_shoulder")] = 0  # outside the frame
    expected[layout.index("right_shoulder")] = 0  # not visible enough
    expected[layout.index("right_wrist")] = 79.5, -0.5, 1
    np.testing.assert_allclose(people[0][0], expected)
    np.testing.assert_allclose(people[0][1], np.tile([59.5, 9.5, 0.6], (33, 1)))
    assert people[0].dtype == np.float32
    name, options = made[0]
    assert name == "PoseLandmarker" and options.num_poses == 4 and options.running_mode == "image"
    assert options.min_pose_detection_confidence == 0.3
    assert options.base_options.model_asset_path == str(task)
    assert seen[0].image_format == "srgb" and seen[0].data.flags.c_contiguous
    np.testing.assert_array_equal(seen[1].data, frames[1])


def test_body_hands_and_face_of_one_person(install, task):
    left_hand = [landmark(0.01 * index, 0.1) for index in range(21)]
    face = [landmark(index / 478, 0.9) for index in range(478)]
    result = SimpleNamespace(
        pose_landmarks=body(i13=(0.5, 0.25, 0.7)), left_hand_landmarks=left_hand, right_hand_landmarks=[],
        face_landmarks=face,
    )  # fmt: skip
    bare = SimpleNamespace(
        pose_landmarks=body(i9=(0.5, 0.25, 0.7)), left_hand_landmarks=[], right_hand_landmarks=[], face_landmarks=[]
    )
    nobody = SimpleNamespace(
        pose_landmarks=[], left_hand_landmarks=left_hand, right_hand_landmarks=[], face_landmarks=[]
    )
    made, _ = install([result, bare, nobody])
    estimator = load_estimator("mediapipe-holistic", weights=task)
    people = estimator.estimate(random_frames(3))
    assert made[0][0] == "HolisticLandmarker"
    layout = get_layout("coco-wholebody-133")
    assert estimator.layout is layout and [frame.shape for frame in people] == [(n, 133, 3) for n in (1, 1, 0)]

    person = {name: people[0][0, index] for index, name in enumerate(layout.keypoints)}
    np.testing.assert_allclose(person["left_elbow"], (39.5, 9.5, 0.7))
    np.testing.assert_allclose(person["left_hand_4"], (0.04 * WIDTH - 0.5, 3.5, 1), rtol=1e-5)
    np.testing.assert_allclose(person["right_hand_0"], person["right_wrist"])
    assert not person["right_hand_4"].any() and not person["left_big_toe"].any() and person["left_heel"].any()
    for number, vertex in enumerate(_FACE_VERTICES):
        np.testing.assert_allclose(person[f"face_{number}"], (vertex / 478 * WIDTH - 0.5, 35.5, 1), rtol=1e-4)

    # Without the face the corners of eyes and mouth are those of the body.
    names = [name for name, there in zip(layout.keypoints, valid_keypoints(people[1][0]), strict=True) if there]
    faces = [name for name in names if name.startswith("face")]
    assert faces == ["face_36", "face_39", "face_42", "face_45", "face_48", "face_54"]
    np.testing.assert_allclose(people[1][0, layout.index("face_54")], (39.5, 9.5, 0.7))


def test_the_68_points_of_the_face_follow_the_lines_of_the_mesh():
    assert len(set(_FACE_VERTICES)) == 68
    layout = get_layout("coco-wholebody-133")
    numbers = {index: int(name[5:]) for index, name in enumerate(layout.keypoints) if name.startswith("face")}
    mirror = {numbers[index]: numbers[int(layout.flip_permutation[index])] for index in numbers}
    runs = {
        "jaw": (range(17), OVAL), "brows": (range(17, 27), BROWS), "nostrils": (range(31, 36), NOSE),
        "upper lids": ([36, 37, 38, 39, 42, 43, 44, 45], UPPER_LIDS),
        "lower lids": ([36, 41, 40, 39, 42, 47, 46, 45], LOWER_LIDS),
        "upper lip": (range(48, 55), UPPER_LIP), "lower lip": ([48, 59, 58, 57, 56, 55, 54], LOWER_LIP),
        "inner upper lip": (range(60, 65), INNER_UPPER_LIP),
        "inner lower lip": ([60, 67, 66, 65, 64], INNER_LOWER_LIP),
    }  # fmt: skip
    for points, line in runs.values():
        places = [line.index(_FACE_VERTICES[point]) for point in points]
        assert all(first < second for first, second in pairwise(places))
        for point, place in zip(points, places, strict=True):
            # The oval starts in the middle of the forehead, the others at one side.
            opposite = -place % len(line) if line is OVAL else len(line) - 1 - place
            assert _FACE_VERTICES[mirror[point]] == line[opposite]
    assert [vertex in BRIDGE for vertex in _FACE_VERTICES[27:31]] == [True] * 4


@pytest.mark.parametrize(
    ("name", "file"), [("mediapipe", "pose_landmarker_full"), ("mediapipe-holistic", "holistic_landmarker")]
)
def test_weights_that_are_not_there_say_what_to_fetch(install, tmp_path, task, name, file):
    install()
    with pytest.raises(
        PoseEstimatorError, match=rf"without weights; fetch https://.*/{file}\.task and give the file as"
    ):
        load_estimator(name)
    with pytest.raises(PoseEstimatorError, match=rf"nothing\.task does not exist; fetch https://.*/{file}\.task"):
        load_estimator(name, weights=tmp_path / "nothing.task")
    install(error=RuntimeError("Unable to open zip archive."))
    message = r"landmarker\.task cannot be loaded by MediaPipe \(Unable to open zip archive\.\); fetch"
    with pytest.raises(PoseEstimatorError, match=message):
        load_estimator(name, weights=task)


def test_without_the_extra(monkeypatch, task):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(PoseEstimatorError, match=r'mediapipe cannot be .*pip install "clipmg_hf\[mediapipe\]"'):
        load_estimator("mediapipe", weights=task)

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from transformers import (
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    VitPoseConfig,
    VitPoseForPoseEstimation,
)
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
from transformers.models.rt_detr.modeling_rt_detr import RTDetrObjectDetectionOutput
from transformers.models.vitpose.image_processing_pil_vitpose import VitPoseImageProcessorPil
from transformers.models.vitpose.modeling_vitpose import VitPoseEstimatorOutput

from clipmg_hf.pose.estimators import PoseEstimatorError, load_estimator


HEIGHT, WIDTH = 180, 240


def save(folder, model, processor, hub_name):
    """As on the Hub: the file names the class without its backend."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_processor_type": hub_name}))
    return folder


def make_vitpose(**options):
    backbone = {"model_type": "vitpose_backbone", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "num_experts": 2, "part_features": 4, "out_indices": [1]}  # fmt: skip
    return VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, **{"num_labels": 17, **options}))


def make_detector(labels):
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_layers=1,
        encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=6, decoder_in_channels=[16] * 3,
        decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2, decoder_n_points=2, num_denoising=0,
        id2label=dict(enumerate(labels)), label2id={label: index for index, label in enumerate(labels)},
    )  # fmt: skip
    return RTDetrForObjectDetection(config)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny random checkpoints of ViTPose++ and RT-DETR."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vitpose")
    detector_processor = RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    return {
        "weights": save(folder / "vitpose", make_vitpose(), VitPoseImageProcessorPil(), "VitPoseImageProcessor"),
        "person_detector": save(
            folder / "detector", make_detector(["chair", "Person"]), detector_processor, "RTDetrImageProcessor"
        ),
    }


@pytest.fixture
def estimator(folders):
    return load_estimator("vitpose", device="cpu", min_confidence=0.5, **folders)


def random_frames(num_frames):
    return np.random.default_rng(0).integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)


def plant_boxes(monkeypatch, estimator, boxes, scores, labels=None):
    """Make the detector's head say these boxes, left, top, right, bottom in pixels, for each frame of a call."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    sides = boxes[..., 2:] - boxes[..., :2]
    relative = torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, sides], dim=-1)
    relative /= torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    logits = torch.full((*boxes.shape[:2], 2), -20.0)
    index = torch.ones(boxes.shape[:2], dtype=torch.int64) if labels is None else torch.tensor(labels)
    logits.scatter_(2, index[..., None], torch.logit(torch.tensor(scores))[..., None])
    seen = iter(zip(logits, relative, strict=True))

    def forward(pixel_values, **_):
        parts = [next(seen) for _ in pixel_values]
        return RTDetrObjectDetectionOutput(
            logits=torch.stack([part[0] for part in parts]), pred_boxes=torch.stack([part[1] for part in parts])
        )

    monkeypatch.setattr(estimator.detector, "forward", forward)


def plant_heatmaps(monkeypatch, estimator):
    """Make every heatmap the brightness of the crop, on the grid that ViTPose is trained on."""

    def forward(pixel_values, dataset_index):
        assert dataset_index.tolist() == [0] * len(pixel_values)
        # The corners of the heatmap are those of the crop.
        brightness = interpolate(pixel_values.mean(dim=1, keepdim=True), (64, 48), mode="bilinear", align_corners=True)
        brightness -= brightness.amin(dim=(2, 3), keepdim=True)
        return VitPoseEstimatorOutput(heatmaps=(brightness / 5).expand(-1, 17, -1, -1))

    monkeypatch.setattr(estimator.model, "forward", forward)


def draw_dots(dots):
    """(n, H, W, 3) uint8: a soft white dot at pixel (x, y) of each frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = [np.exp(-((x - dot_x) ** 2 + (y - dot_y) ** 2) / 2 / 3**2) for dot_x, dot_y in dots]
    return np.repeat(np.round(255 * np.stack(frames)).astype(np.uint8)[..., None], 3, axis=-1)


def test_a_dot_in_the_frame_comes_back_as_its_pixel(monkeypatch, estimator):
    # A box in the middle, off centre, wide, tall at the left border, at the lower right corner, beyond two borders.
    cases = [
        ((120, 90), (80, 40, 160, 140)),
        ((201, 33), (150, 10, 230, 90)),
        ((60, 100), (10, 70, 210, 120)),
        ((10, 96), (0, 20, 50, 170)),
        ((230, 169), (190, 100, 240, 180)),
        ((11, 10), (-30, -20, 60, 80)),
    ]
    plant_boxes(monkeypatch, estimator, [[box] for _, box in cases], [[0.9]] * len(cases))
    plant_heatmaps(monkeypatch, estimator)
    estimator.batch_size = 4
    people = estimator.estimate(draw_dots([dot for dot, _ in cases]))
    assert [frame.shape for frame in people] == [(1, 17, 3)] * len(cases)
    for (dot, _), frame in zip(cases, people, strict=True):
        np.testing.assert_allclose(frame[0, :, :2], np.broadcast_to(dot, (17, 2)), atol=0.5)


def test_people_are_returned_by_score_and_others_left_out(monkeypatch, estimator):
    boxes = [[10, 20, 60, 150], [100, 20, 160, 150], [170, 20, 230, 150]]
    plant_boxes(monkeypatch, estimator, [boxes] * 3, [[0.6, 0.8, 0.9], [0.4, 0.3, 0.9], [0.51, 0.49, 0.9]],
                labels=[[1, 1, 0], [1, 1, 0], [1, 1, 0]])  # fmt: skip
    plant_heatmaps(monkeypatch, estimator)
    frames = np.maximum(draw_dots([(30, 80)] * 3), draw_dots([(130, 100)] * 3))
    people = estimator.estimate(frames)
    assert [len(frame) for frame in people] == [2, 0, 1]
    assert people[1].shape == (0, 17, 3)
    np.testing.assert_allclose(people[0][:, 0, :2], [(130, 100), (30, 80)], atol=1)
    np.testing.assert_allclose(people[2][:, 0, :2], [(30, 80)], atol=1)


def test_random_weights_give_people_of_the_promised_form_whatever_the_batches(folders):
    estimator = load_estimator("vitpose", device="cpu", min_confidence=0, min_keypoint_confidence=0, **folders)
    assert estimator.name == "vitpose" and estimator.layout.name == "coco-17"
    assert estimator.processor.backend == estimator.detector_processor.backend == "pil"
    frames = random_frames(3)
    people = estimator.estimate(frames)
    assert sum(len(frame) for frame in people) > 0
    for frame in people:
        assert frame.dtype == np.float32 and frame.shape[1:] == (17, 3)
        assert (frame >= (-0.5, -0.5, 0)).all() and (frame <= (WIDTH - 0.5, HEIGHT - 0.5, 1)).all()
        assert frame.any(axis=(1, 2)).all() and not frame[frame[..., 2] == 0].any()
    estimator.batch_size = 1
    for frame, alone in zip(people, estimator.estimate(frames), strict=True):
        np.testing.assert_allclose(alone, frame, atol=1e-2)
    assert estimator.estimate(frames[:0]) == []


def test_half_precision(folders):
    estimator = load_estimator(
        "vitpose", device="cpu", dtype=torch.bfloat16, min_confidence=0, min_keypoint_confidence=0, **folders
    )
    assert estimator.model.dtype == estimator.detector.dtype == torch.bfloat16
    people = estimator.estimate(random_frames(2))
    assert len(people) == 2 and all(np.isfinite(frame).all() for frame in people)


def test_weights_that_are_not_there_say_what_to_fetch(tmp_path, folders):
    with pytest.raises(PoseEstimatorError, match=r"hf download usyd-community/vitpose-plus-base .* as weights\."):
        load_estimator("vitpose", **{**folders, "weights": tmp_path / "nothing"})
    with pytest.raises(PoseEstimatorError, match=r"hf download PekingU/rtdetr_r50vd_coco_o365 .* person_detector\."):
        load_estimator("vitpose", **{**folders, "person_detector": tmp_path})


def test_weights_of_another_model(tmp_path, folders):
    with pytest.raises(PoseEstimatorError, match=r"a model of type 'rt_detr' with 2 outputs; expected 'vitpose' with"):
        load_estimator("vitpose", **{**folders, "weights": folders["person_detector"]})
    make_vitpose(num_labels=20).save_pretrained(tmp_path / "animals")
    with pytest.raises(PoseEstimatorError, match=r"of type 'vitpose' with 20 outputs; expected 'vitpose' with 17"):
        load_estimator("vitpose", **{**folders, "weights": tmp_path / "animals"})
    make_detector(["chair", "table"]).save_pretrained(tmp_path / "furniture")
    with pytest.raises(PoseEstimatorError, match=r"holds a model of type 'rt_detr' without a class 'person'"):
        load_estimator("vitpose", **{**folders, "person_detector": tmp_path / "furniture"})


def test_incomplete_weights(tmp_path, folders):
    model = make_vitpose()
    state = {name: value for name, value in model.state_dict().items() if name != "head.conv.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(PoseEstimatorError, match=r"lacks 1 weights \(first head\.conv\.weight\), expected all"):
        load_estimator("vitpose", **{**folders, "weights": tmp_path})

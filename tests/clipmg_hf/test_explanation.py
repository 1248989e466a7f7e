"""Explanations: attention lands on its pixels, influences are what masking and moving joints really changes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import TINY

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification
from clipmg_hf.explanation import (
    attention_on_source,
    body_parts,
    explain_clip,
    gate_curves,
    gate_histogram,
    joint_influence,
    resolve_label,
    stream_influence,
)
from clipmg_hf.inference import predict_clip
from clipmg_hf.processing import SquareCrop, get_layout
from clipmg_hf.processing.keypoint_layouts_clipmg import LAYOUTS
from clipmg_hf.timeline.records import WindowScores


LAYOUT = get_layout("imigue-22")
NEVER_SEEN = LAYOUT.index("left_ear")
CROPS = (
    SquareCrop(20, 10, 40),
    SquareCrop(20, 10, 40, flipped=True),
    SquareCrop(-10, -20, 90),
    SquareCrop(30, 5, 80, flipped=True),
    SquareCrop(3, 7, 37),
)


@pytest.fixture(scope="module")
def prediction(loaded, video, points):
    return predict_clip(*loaded, video, points, explain=True)


def tiny_model(**values) -> CLIPMGForMicroGestureClassification:
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(CLIPMGConfig(**{**TINY, **values})).eval()
    torch.nn.init.normal_(model.classifier.weight)
    # A random gate and query would hardly listen to the pose.
    for name, parameter in model.named_parameters():
        if name.endswith(("bn.weight", "bn.bias")):
            torch.nn.init.normal_(parameter, 1 if name.endswith("weight") else 0, 0.3)
    return model


def some_inputs(config: CLIPMGConfig) -> dict[str, torch.Tensor]:
    """One clip; a joint is never seen, another not in the first frame, and the second frame is masked."""
    generator = torch.Generator().manual_seed(1)
    keypoints = torch.rand(1, config.num_pose_frames, config.num_keypoints, 3, generator=generator) * 0.8 + 0.1
    keypoints[:, :, NEVER_SEEN, 2] = 0
    keypoints[:, 0, LAYOUT.index("nose"), 2] = 0
    mask = torch.ones(1, config.num_pose_frames, dtype=torch.bool)
    mask[0, 1] = False
    frames = torch.randn(1, config.num_frames, 3, 32, 32, generator=generator)
    return {"pixel_values": frames, "keypoints": keypoints, "keypoint_mask": mask}


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def inputs(model):
    return some_inputs(model.config)


@torch.no_grad()
def log_probability(model, inputs, label_id, **changes) -> float:
    return float(model(**{**inputs, **changes}).logits.log_softmax(-1)[0, label_id])


# --- attention


def planted(prediction, crop: SquareCrop, patch: tuple[int, int], frame: int = 3, head: int = 1):
    """An explanation in which one head looks at one patch of one frame."""
    explanation = prediction.explanation
    attention = np.zeros_like(explanation.semantic_attention)
    attention[head, frame, patch[0], patch[1]] = 1
    return replace(explanation, semantic_attention=attention, clip=replace(explanation.clip, crop=crop))


@pytest.mark.parametrize("crop", CROPS)
def test_a_patch_lands_where_the_crop_says(prediction, crop):
    explanation = planted(prediction, crop, (2, 1))
    pixels = attention_on_source(explanation, head=1)
    assert pixels.shape == (8, 64, 96) and pixels.dtype == np.float32
    grid = explanation.semantic_attention.shape[2:]
    x, y = explanation.clip.to_source(np.array([1.5 / grid[1], 2.5 / grid[0]]))
    ys, xs = np.nonzero(pixels[3] > 0.5 * pixels[3].max())
    assert (xs.mean(), ys.mean()) == pytest.approx((x, y), abs=0.51)
    assert not np.delete(pixels, 3, axis=0).any()


def test_attention_is_kept_and_stays_in_the_crop(prediction):
    for crop in (SquareCrop(20, 10, 40), SquareCrop(7, 3, 51), SquareCrop(30, 30, 3, flipped=True)):
        explanation = replace(prediction.explanation, clip=replace(prediction.explanation.clip, crop=crop))
        pixels = attention_on_source(explanation)
        frames = explanation.semantic_attention.mean(axis=0).sum(axis=(1, 2))
        np.testing.assert_allclose(pixels.sum(axis=(1, 2)), frames, rtol=1e-5)
        assert pixels.sum() == pytest.approx(1, abs=1e-5)
        inside = np.zeros(pixels.shape[1:], bool)
        inside[crop.top : crop.top + crop.size, crop.left : crop.left + crop.size] = True
        assert (pixels[:, inside] >= 0).all() and (pixels[:, ~inside] == 0).all()


def test_the_mean_of_the_heads_is_the_default(prediction):
    heads = [attention_on_source(prediction.explanation, head) for head in range(4)]
    np.testing.assert_allclose(attention_on_source(prediction.explanation), np.mean(heads, axis=0), atol=1e-7)


def test_attention_beyond_the_frame_is_lost(prediction):
    # The last of four columns of patches lies behind the right border but for its blurred edge, the first before it.
    lost, kept = (planted(prediction, SquareCrop(40, 0, 80), (1, column)) for column in (3, 0))
    assert 0 < attention_on_source(lost, head=1).sum() < 0.06
    assert attention_on_source(kept, head=1).sum() == pytest.approx(1, abs=1e-5)
    assert not attention_on_source(planted(prediction, SquareCrop(500, 500, 40), (0, 0))).any()


def test_attention_refuses_what_is_not_there(prediction):
    with pytest.raises(ValueError, match="head is 4; the model has the heads 0 to 3"):
        attention_on_source(prediction.explanation, head=4)
    with pytest.raises(ValueError, match="no semantic attention"):
        attention_on_source(replace(prediction.explanation, semantic_attention=None))


# --- joints


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_every_point_belongs_to_one_part_and_mirrors(layout):
    parts = body_parts(layout)
    assert sorted(index for indices in parts.values() for index in indices) == list(range(layout.num_keypoints))
    if "left arm and hand" in parts:
        mirrored = {int(layout.flip_permutation[index]) for index in parts["left arm and hand"]}
        assert mirrored == set(parts["right arm and hand"])
    assert layout.index("left_shoulder") in parts["torso"] and layout.index("left_wrist") in parts["left arm and hand"]


@pytest.mark.parametrize("values", [{}, {"fusion": "pose"}, {"query": "pose_pool"}], ids=str)
def test_occlusion_is_masking_one_joint_after_the_other(values):
    model = tiny_model(**values)
    inputs = some_inputs(model.config)
    influence = joint_influence(model, inputs, label_id=5, batch_size=7)
    complete = log_probability(model, inputs, 5)
    assert influence.log_probability == pytest.approx(complete, abs=1e-5)
    for index in range(22):
        keypoints = inputs["keypoints"].clone()
        keypoints[:, :, index, 2] = 0
        expected = complete - log_probability(model, inputs, 5, keypoints=keypoints)
        assert influence.values[index] == pytest.approx(expected, abs=1e-5), LAYOUT.keypoints[index]
    keypoints = inputs["keypoints"].clone()
    keypoints[:, :, list(body_parts(LAYOUT)["head"]), 2] = 0
    expected = complete - log_probability(model, inputs, 5, keypoints=keypoints)
    assert influence.parts["head"] == pytest.approx(expected, abs=1e-5)
    assert np.abs(influence.values).max() > 1e-4 and influence.frame_values is None


@pytest.mark.parametrize("values", [{}, {"query": "pose_pool"}], ids=str)
def test_gradient_agrees_with_finite_differences(values):
    model = tiny_model(**values)
    inputs = some_inputs(model.config)
    influence = joint_influence(model, inputs, label_id=5, method="gradient")
    assert influence.frame_values.shape == (4, 22)
    # With smaller steps float32's rounding shows in the slopes, by another amount for each number of threads.
    step, compared = 5e-4, 0
    for frame, index in ((0, 3), (2, 7), (3, LAYOUT.index("right_wrist")), (2, 15), (3, 1)):
        slopes = []
        for axis in (0, 1):
            ends = []
            for sign in (1, -1):
                keypoints = inputs["keypoints"].clone()
                keypoints[0, frame, index, axis] += sign * step
                ends.append(log_probability(model, inputs, 5, keypoints=keypoints))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        value = influence.frame_values[frame, index]
        assert value == pytest.approx(np.hypot(*slopes), rel=0.05, abs=2e-3)
        compared += value > 0.02
    assert compared >= 3
    np.testing.assert_allclose(influence.values, influence.frame_values.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_joints_that_are_not_seen_have_no_influence_at_all(model, inputs, method):
    influence = joint_influence(model, inputs, method=method)
    assert influence.values[NEVER_SEEN] == 0 and np.delete(influence.values, NEVER_SEEN).all()
    assert not influence.seen[1].any() and not influence.seen[:, NEVER_SEEN].any()
    if method == "gradient":
        assert (influence.frame_values[~influence.seen] == 0).all()
    nobody = inputs | {"keypoint_mask": torch.zeros(1, 4, dtype=torch.bool)}
    influence = joint_influence(model, nobody, method=method)
    assert not influence.values.any() and influence.parts == {}


def test_influence_leaves_the_model_as_it_is(model, inputs):
    model.train()
    try:
        with torch.inference_mode():
            joint_influence(model, {name: values.clone() for name, values in inputs.items()}, method="gradient")
        assert model.training and all(parameter.grad is None for parameter in model.parameters())
    finally:
        model.eval()


def test_influence_defaults_to_the_best_label(model, inputs):
    with torch.no_grad():
        best = int(model(**inputs).logits.argmax())
    assert joint_influence(model, inputs).label_id == stream_influence(model, inputs).label_id == best


def test_influence_refuses_what_it_cannot_explain(model, inputs):
    blind = tiny_model(fusion="visual")
    with pytest.raises(ValueError, match="reads no keypoints \\(fusion='visual'\\)"):
        joint_influence(blind, inputs)
    with pytest.raises(ValueError, match="inputs hold no keypoints"):
        joint_influence(model, {"pixel_values": inputs["pixel_values"]})
    with pytest.raises(ValueError, match="label_id is 32; the model has the labels 0 to 31"):
        joint_influence(model, inputs, label_id=32)
    with pytest.raises(ValueError, match="method is 'shapley'"):
        joint_influence(model, inputs, method="shapley")
    with pytest.raises(ValueError, match="keypoints hold 2 clips; expected one"):
        joint_influence(model, inputs | {"keypoints": inputs["keypoints"].repeat(2, 1, 1, 1)})


# --- streams


def test_streams_are_masked(model, inputs):
    streams = stream_influence(model, inputs, label_id=5)
    no_frames = torch.zeros(1, 2, dtype=torch.bool)
    for scores, changes in (
        (streams.complete, {}),
        (streams.without_rgb, {"frame_mask": no_frames}),
        (streams.without_pose, {"has_pose": torch.tensor([False])}),
    ):
        assert scores.sum() == pytest.approx(1, abs=1e-5)
        assert np.log(scores[5]) == pytest.approx(log_probability(model, inputs, 5, **changes), abs=1e-5)
    assert np.abs(streams.without_rgb - streams.without_pose).max() > 1e-3


@pytest.mark.parametrize("fusion", ["pose", "visual"])
def test_a_model_of_one_stream_has_none_to_take_away(fusion):
    model = tiny_model(fusion=fusion)
    streams = stream_influence(model, some_inputs(model.config))
    assert streams.without_rgb is None and streams.without_pose is None


def test_a_clip_without_pose_has_none_to_take_away(model, inputs):
    streams = stream_influence(model, inputs | {"keypoint_mask": torch.zeros(1, 4, dtype=torch.bool)})
    assert streams.without_rgb is None and streams.without_pose is None


# --- whole clips, labels and gates


def test_explain_clip_asks_for_the_predicted_label(loaded, prediction):
    influence = explain_clip(loaded[0], prediction)
    assert influence.label == prediction.label
    assert influence.streams.complete[influence.label_id] == pytest.approx(prediction.score, abs=1e-5)
    assert influence.occlusion.label_id == influence.gradient.label_id == influence.label_id
    other = explain_clip(loaded[0], prediction, label="folding ARMS")
    assert other.label == "Folding arms" and other.label_id == 16
    with pytest.raises(ValueError, match="holds no explanation"):
        explain_clip(loaded[0], replace(prediction, explanation=None))


def test_explain_clip_without_keypoints(loaded, video):
    influence = explain_clip(loaded[0], predict_clip(*loaded, video, explain=True))
    assert influence.occlusion is None and influence.gradient is None and influence.streams.without_rgb is None


def test_unknown_labels_name_similar_ones(model):
    assert resolve_label(model, 3) == 3
    with pytest.raises(ValueError, match=r"no label 'touching hats' among its 32; .*'Touching hat'"):
        resolve_label(model, "touching hats")
    with pytest.raises(ValueError, match="label is 99; the model has the labels 0 to 31"):
        resolve_label(model, 99)


def test_gate_curves_are_sorted_by_person_and_time():
    def window(start, person, gate):
        return WindowScores(start, start + 20, start / 10, start / 10 + 2, person, np.ones(1, np.float32), gate, 0.5)

    first, second = gate_curves([window(10, 3, 0.2), window(0, 3, None), window(5, 1, 0.9)])
    assert (first.person, second.person) == (1, 3)
    np.testing.assert_allclose(second.seconds, [1, 2])
    np.testing.assert_allclose(second.gate, [np.nan, 0.2])
    assert gate_curves([]) == ()


def test_gate_histogram_counts_every_dimension():
    limits, counts = gate_histogram(np.array([0, 0.04, 0.5, 1], np.float32), num_bins=4)
    np.testing.assert_allclose(limits, [0, 0.25, 0.5, 0.75, 1])
    assert counts.tolist() == [2, 0, 1, 1]

"""The pipeline equals processor and model, alone and in batches, from the package and from the folder's own code."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from clipmg_hf.modeling import PIPELINE_TASK, CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGPipeline
from clipmg_hf.processing import CLIPMGProcessor


NUM_FRAMES, WIDTH, HEIGHT = 12, 64, 48
RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, size=(NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
KEYPOINTS = np.concatenate(
    [RNG.uniform(5, 45, size=(NUM_FRAMES, 22, 2)), RNG.uniform(0.2, 1, size=(NUM_FRAMES, 22, 1))], axis=-1
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPMGConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 16}, num_frames=2, pose_frames_per_frame=2,
        heatmap_size=16, pose_base_width=4, pose_stage_blocks=(1, 1, 1), hidden_size=32, num_attention_heads=4,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    CLIPMGForMicroGestureClassification(config).save_pretrained(path)
    CLIPMGProcessor.from_model_config(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def classifier(folder):
    return pipeline(PIPELINE_TASK, model=str(folder))


def expected_scores(folder, top_k=5, **inputs):
    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**AutoProcessor.from_pretrained(folder)(**inputs)).logits
    scores, labels = logits.softmax(-1)[0].topk(top_k)
    return [
        {"score": pytest.approx(score, abs=1e-6), "label": model.config.id2label[label]}
        for score, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]


def test_the_package_serves_the_task_without_trust(classifier):
    assert type(classifier) is CLIPMGPipeline and classifier.task == PIPELINE_TASK


@pytest.mark.parametrize("inputs", [{}, {"keypoints": KEYPOINTS}, {"keypoints": KEYPOINTS[3:9], "interval": (3, 9)}])
def test_one_clip_equals_processor_and_model(folder, classifier, inputs):
    expected = expected_scores(
        folder, videos=FRAMES, keypoints=inputs.get("keypoints"), intervals=inputs.get("interval")
    )
    assert classifier(FRAMES, **inputs) == expected
    assert classifier({"video": FRAMES, **inputs}, top_k=2) == expected[:2]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_batch_mixes_what_its_clips_have(folder, classifier, batch_size):
    clips = [{"video": FRAMES, "keypoints": KEYPOINTS}, {"keypoints": KEYPOINTS}, {"video": FRAMES}]
    expected = [expected_scores(folder, videos=clip.get("video"), keypoints=clip.get("keypoints")) for clip in clips]
    assert classifier(clips, batch_size=batch_size) == expected
    assert list(classifier((clip for clip in clips), batch_size=batch_size)) == expected
    paired = classifier([FRAMES, FRAMES], keypoints=[KEYPOINTS, None], batch_size=batch_size)
    assert paired == [expected[0], expected[2]]


def test_half_precision_leaves_keypoints_alone(folder):
    classifier = pipeline(PIPELINE_TASK, model=str(folder), dtype=torch.bfloat16)
    inputs = classifier.preprocess(FRAMES, keypoints=KEYPOINTS)
    assert inputs["pixel_values"].dtype == torch.bfloat16 and inputs["keypoints"].dtype == torch.float32
    assert len(classifier(FRAMES, keypoints=KEYPOINTS)) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keypoint": 1}, "Unknown argument keypoint; expected keypoints, interval"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
    ],
)
def test_misspelt_and_senseless_arguments(classifier, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        classifier(FRAMES, **arguments)


@pytest.mark.parametrize(("values", "found"), [("folder", "a str"), ([KEYPOINTS], "a list of 1")])
def test_a_batch_needs_keypoints_for_each_clip(classifier, values, found):
    with pytest.raises(ValueError, match=f"keypoints is {found}; expected a list with one for each of 2 videos"):
        classifier([FRAMES, FRAMES], keypoints=values)


def test_a_model_without_processor_is_refused(folder):
    model = AutoModelForVideoClassification.from_pretrained(folder)
    with pytest.raises(ValueError, match="needs a processor"):
        CLIPMGPipeline(model=model)

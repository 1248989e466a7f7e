"""Loading checkpoints and predicting clips: results against the model called by hand, and every refusal."""

import dataclasses
import json
import logging
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from clipmg_hf import IMIGUE_LABELS
from clipmg_hf.inference import CheckpointError, load_model, predict_clip
from clipmg_hf.inference.checkpoint import model_source, resolve_folder
from clipmg_hf.processing import KeypointFileError, VideoDecodingError, get_layout, read_openpose, write_openpose


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def edit_json(path, **values):
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps(content))


# --- load_model


def test_load_model_returns_an_evaluating_model_and_its_processor(checkpoint):
    model, processor = load_model(checkpoint, device="cpu")
    assert not model.training and model.device.type == "cpu" and model.dtype == torch.float32
    assert processor.keypoint_layout == model.config.keypoint_layout
    saved = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_load_model_with_another_dtype(checkpoint, video, points):
    model, processor = load_model(str(checkpoint), device="cpu", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    prediction = predict_clip(model, processor, video, points)
    reference = predict_clip(*load_model(checkpoint, device="cpu"), video, points)
    scores = dict(prediction.scores)
    assert all(abs(scores[label] - score) < 0.05 for label, score in reference.scores)


def test_load_model_is_silent_and_leaves_logging_as_it_was(checkpoint, capfd):
    verbosity, has_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.INFO)
    transformers_logging.enable_progress_bar()
    try:
        load_model(checkpoint, device="cpu")
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity(verbosity)
        if not has_bars:
            transformers_logging.disable_progress_bar()
    assert capfd.readouterr() == ("", "")


def test_load_model_from_the_hub_downloads_no_code(checkpoint, monkeypatch):
    asked = {}

    def download(name, **kwargs):
        asked.update(name=name, **kwargs)
        return str(checkpoint)

    monkeypatch.setattr("clipmg_hf.inference.checkpoint.snapshot_download", download)
    load_model("someone/clip-mg", device="cpu", revision="v1")
    expected = {"name": "someone/clip-mg", "revision": "v1", "ignore_patterns": ["*/*"]}
    assert asked == {**expected, "allow_patterns": ["*.json", "*.safetensors"]}
    assert resolve_folder("someone/clip-mg", "onnx", "v1") == checkpoint
    assert asked == {**expected, "allow_patterns": ["*.json", "*.onnx", "weights.bin"]}


def test_a_model_knows_where_it_is_from(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    assert model_source(load_model(checkpoint.name, device="cpu")[0]) == checkpoint.name
    cached = tmp_path / "models--someone--clip-mg" / "snapshots" / "0123abc"
    shutil.copytree(checkpoint, cached)
    assert model_source(load_model(cached, device="cpu")[0]) == "someone/clip-mg@0123abc"


def test_a_folder_has_no_revision(checkpoint):
    with pytest.raises(CheckpointError, match=r"is a folder and has no revision 'v1'; expected a name on the Hub"):
        load_model(checkpoint, revision="v1")


def test_hub_that_cannot_be_reached(monkeypatch):
    def fail(name, **kwargs):
        raise FileNotFoundError("no network\nand more lines")

    monkeypatch.setattr("clipmg_hf.inference.checkpoint.snapshot_download", fail)
    with pytest.raises(
        CheckpointError, match=r"someone/clip-mg: no such folder, and not .* Hub \(no network\); expected"
    ):
        load_model("someone/clip-mg")


def test_folder_that_is_missing_or_a_file(tmp_path, video):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist; expected a folder saved by save_pretrained"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"clip\.mp4 is not a folder; expected"):
        load_model(video)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"copy holds no config\.json; expected a folder saved by save_pretrained"),
        (
            "model.safetensors",
            r"copy holds no weights; expected model\.safetensors or model\.safetensors\.index\.json",
        ),
        ("processor_config.json", r"copy holds no processor_config\.json; expected the processor beside the model"),
    ],
)
def test_incomplete_folder(copy, name, message):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        load_model(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{broken", r"config\.json is not valid JSON"),
        ("[]", r"config\.json describes a model of type None; expected 'clipmg'"),
        ('{"model_type": "vit"}', r"config\.json describes a model of type 'vit'; expected 'clipmg'"),
        ('{"model_type": "clipmg", "num_frames": -1}', r"config\.json is not a valid .*num_frames must be positive"),
        ('{"model_type": "clipmg", "num_frame": 8}', r"config\.json is not a valid .*no field 'num_frame'"),
    ],
)
def test_invalid_config(copy, content, message):
    (copy / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=f"(?s)copy.{message}"):
        load_model(copy)


def test_invalid_processor_config(copy):
    (copy / "processor_config.json").write_text("{broken")
    with pytest.raises(CheckpointError, match=r"processor_config\.json is not a valid processor configuration"):
        load_model(copy)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (
            None,
            {"keypoint_layout": "imigue-36"},
            r"keypoint_layout 'imigue-36' and 'imigue-22', num_keypoints 36 and 22",
        ),
        ("video_processor", {"num_frames": 4}, r"num_frames 4 and 8"),
        ("video_processor", {"pose_frames_per_frame": 2}, r"pose_frames_per_frame 2 and 4"),
        ("video_processor", {"size": {"height": 64, "width": 64}}, r"image_size 64 and 32"),
    ],
)
def test_processor_of_another_model(copy, part, values, message):
    path = copy / "processor_config.json"
    content = json.loads(path.read_text())
    (content if part is None else content[part]).update(values)
    path.write_text(json.dumps(content))
    expected = rf"copy: processor_config\.json and config\.json disagree: {message}; expected the processor that"
    with pytest.raises(CheckpointError, match=expected):
        load_model(copy)


def test_weights_of_other_labels(copy):
    names = [f"gesture {index}" for index in range(5)]
    edit_json(
        copy / "config.json",
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    message = (
        r"copy: the weights do not fit config\.json: classifier\.bias is \(32,\), expected \(5,\) for the 5 labels"
    )
    with pytest.raises(CheckpointError, match=message):
        load_model(copy)


def test_missing_and_unexpected_weights(copy):
    weights = load_file(copy / "model.safetensors")
    weights["clipmg.stranger"] = weights.pop("classifier.weight")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"classifier\.weight is missing; clipmg\.stranger belongs to no layer\.$"
    ):
        load_model(copy)


def test_many_wrong_weights_are_counted(copy):
    edit_json(copy / "config.json", pose_stage_blocks=[1, 2, 1])
    with pytest.raises(CheckpointError, match=r"layer2\.1\..* is missing \(and \d+ more\)"):
        load_model(copy)


def test_truncated_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"copy: the weights cannot be read"):
        load_model(copy)


@pytest.mark.parametrize("device", ["nonsense", "cuda:77", "meta"])
def test_device_that_cannot_be_used(checkpoint, device):
    with pytest.raises(ValueError, match=rf"device '{device}' cannot be used on this machine; expected cpu"):
        load_model(checkpoint, device=device)


# --- predict_clip


def test_scores_are_those_of_the_model(loaded, video, points):
    model, processor = loaded
    inputs = processor(video, points)
    with torch.no_grad():
        expected = model(**inputs).logits.softmax(-1)[0]
    prediction = predict_clip(model, processor, video, points)
    assert [label for label, _ in prediction.scores] == [IMIGUE_LABELS[i] for i in expected.argsort(descending=True)]
    np.testing.assert_allclose([score for _, score in prediction.scores], expected.sort(descending=True).values)
    assert (prediction.label, prediction.score) == prediction.scores[0]
    assert sum(score for _, score in prediction.scores) == pytest.approx(1)
    assert prediction.explanation is None


def test_what_the_prediction_rests_on(loaded, video, points):
    prediction = predict_clip(*loaded, video, points, start=2, end=10)
    assert (prediction.video, prediction.start, prediction.end) == (str(video), 2, 10)
    assert (prediction.start_seconds, prediction.end_seconds) == pytest.approx((0.2, 1.0))
    assert prediction.rgb_used and prediction.pose_used
    # 32 pose frames are sampled from the 8 of the clip.
    assert (prediction.num_pose_frames, prediction.num_person_frames, prediction.person_fraction) == (8, 8, 1.0)
    assert 0 < prediction.gate_mean < 1
    assert (prediction.num_keypoints, prediction.missing_keypoints) == (22, ())


def test_without_keypoints(loaded, video):
    prediction = predict_clip(*loaded, video)
    assert prediction.rgb_used and not prediction.pose_used
    assert (prediction.num_pose_frames, prediction.num_person_frames, prediction.person_fraction) == (0, 0, 0.0)
    assert prediction.gate_mean == 1.0
    assert prediction.end_seconds == pytest.approx(1.2)


def test_frames_without_a_person_are_counted(loaded, video, points):
    some = points.copy()
    some[3:] = 0
    prediction = predict_clip(*loaded, video, some)
    assert (prediction.num_pose_frames, prediction.num_person_frames, prediction.pose_used) == (12, 3, True)
    prediction = predict_clip(*loaded, video, 0 * points)
    assert (prediction.num_person_frames, prediction.pose_used, prediction.gate_mean) == (0, False, 1.0)


def test_seconds_and_rows_of_the_clip_alone(loaded, video, points):
    in_frames = predict_clip(*loaded, video, points, start=3, end=9)
    in_seconds = predict_clip(*loaded, video, points[3:9], start=0.3, end=0.9, unit="seconds")
    assert in_frames.to_dict() == in_seconds.to_dict()


def test_files_sequences_arrays_and_tensors_are_the_same(loaded, video, points, tmp_path):
    write_openpose(tmp_path / "json", points, "clip")
    expected = predict_clip(*loaded, video, points).to_dict()
    folder = tmp_path / "json"
    for keypoints in (folder, str(folder), list(folder.iterdir()), read_openpose(folder), torch.tensor(points)):
        assert predict_clip(*loaded, video, keypoints).to_dict() == expected


def test_keypoints_that_the_layout_lacks_are_masked_and_named(loaded, video, points):
    prediction = predict_clip(*loaded, video, points[:, :25], source_layout="openpose-body25")
    assert prediction.missing_keypoints == tuple(name for name in get_layout("imigue-22").keypoints if "hand" in name)
    with pytest.raises(ValueError, match=r"'imigue-22' has 10 keypoints that 'openpose-body25' lacks"):
        predict_clip(*loaded, video, points[:, :25], source_layout="openpose-body25", missing_keypoints="error")


def test_arrays_of_as_many_points_as_the_model_has_are_in_its_layout(loaded, save_checkpoint, video, points, tmp_path):
    """25 points may be OpenPose's or Kinect's."""
    points = points[:, :25]
    kinect = load_model(save_checkpoint(tmp_path / "kinect", keypoint_layout="kinect-25", num_keypoints=25), "cpu")
    own = predict_clip(*kinect, video, points, explain=True)
    assert own.missing_keypoints == () and own.explanation.layout.name == "kinect-25"
    assert own.to_dict() == predict_clip(*kinect, video, points, source_layout="kinect-25").to_dict()
    of_openpose = predict_clip(*kinect, video, points, source_layout="openpose-body25")
    assert "head" in of_openpose.missing_keypoints and of_openpose.scores != own.scores
    with pytest.raises(ValueError, match=r"keypoints: 25 points may be those of openpose-body25 or kinect-25; exp"):
        predict_clip(*loaded, video, points)


def test_files_that_are_numbered_from_one(loaded, video, points, tmp_path):
    write_openpose(tmp_path / "zero", points, "clip")
    (tmp_path / "one").mkdir()
    for number, path in enumerate(sorted((tmp_path / "zero").iterdir()), 1):
        path.rename(tmp_path / "one" / f"clip_{number:012d}_keypoints.json")
    found = predict_clip(*loaded, video, tmp_path / "one", start=3, end=9, explain=True)
    assert found.to_dict() == predict_clip(*loaded, video, points, start=3, end=9).to_dict()
    np.testing.assert_array_equal(found.explanation.keypoints, points[3:9])


def test_derived_keypoints_are_not_missing(loaded, video, points):
    prediction = predict_clip(*loaded, video, points[:, :17])
    assert "neck" not in prediction.missing_keypoints and len(prediction.missing_keypoints) == 10


def test_frames_in_memory(loaded):
    frames = np.random.default_rng(0).integers(0, 255, (9, 40, 60, 3), dtype=np.uint8)
    prediction = predict_clip(*loaded, frames, start=1, explain=True)
    assert (prediction.video, prediction.start, prediction.end) == ("videos", 1, 9)
    assert prediction.start_seconds is None and prediction.end_seconds is None
    json.dumps(prediction.to_dict(), allow_nan=False)


def test_to_dict_is_json(loaded, video, points):
    prediction = predict_clip(*loaded, video, points[:, :25], source_layout="openpose-body25", explain=True)
    content = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert len(content["scores"]) == 32 and content["scores"][0] == {
        "label": prediction.label,
        "score": prediction.score,
    }
    fields = {field.name for field in dataclasses.fields(prediction)} - {"explanation"}
    assert set(content) == fields
    assert content["missing_keypoints"] == list(prediction.missing_keypoints)
    assert len(prediction.to_dict(top=3)["scores"]) == 3


def test_explanation(loaded, video, points):
    explanation = predict_clip(*loaded, video, points, start=2, end=10, explain=True).explanation
    assert explanation.semantic_attention.shape == (4, 8, 4, 4)
    np.testing.assert_allclose(explanation.semantic_attention.sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert explanation.gate.shape == (32,)
    assert explanation.clip.frame_indices.min() >= 2 and explanation.clip.frame_indices.max() < 10
    assert explanation.inputs["pixel_values"].shape == (1, 8, 3, 32, 32)
    np.testing.assert_array_equal(explanation.keypoints, points[2:10])
    assert explanation.layout.name == "openpose-137"
    assert explanation.video.read([0]).shape == (1, 64, 96, 3)


def test_training_mode_neither_matters_nor_changes(loaded, video, points):
    model, processor = loaded
    expected = predict_clip(model, processor, video, points).to_dict()
    model.train()
    try:
        assert predict_clip(model, processor, video, points).to_dict() == expected
        assert model.training
    finally:
        model.eval()


@pytest.mark.parametrize("fusion", ["concat", "sum", "visual"])
def test_models_without_a_gate(save_checkpoint, video, points, tmp_path, fusion):
    prediction = predict_clip(
        *load_model(save_checkpoint(tmp_path / fusion, fusion=fusion)), video, points, explain=True
    )
    assert prediction.gate_mean is None and prediction.explanation.gate is None
    assert prediction.pose_used == (fusion != "visual") and prediction.num_person_frames == 12


def test_pose_only_model_needs_a_person(save_checkpoint, video, points, tmp_path):
    model, processor = load_model(save_checkpoint(tmp_path / "pose", fusion="pose"))
    prediction = predict_clip(model, processor, video, points, explain=True)
    assert prediction.pose_used and not prediction.rgb_used and prediction.explanation.semantic_attention is None
    with pytest.raises(
        ValueError, match=r"clip\.mp4: this model reads keypoints alone .*frames 0\.\.12 have none; exp"
    ):
        predict_clip(model, processor, video)
    with pytest.raises(ValueError, match=r"frames 0\.\.12 have no valid one in keypoints; expected at least one"):
        predict_clip(model, processor, video, 0 * points)


def test_wrong_videos_and_intervals(loaded, video, tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoDecodingError, match=r"nowhere\.mp4: no such file; expected"):
        predict_clip(*loaded, tmp_path / "nowhere.mp4")
    with pytest.raises(VideoDecodingError, match=r"empty\.mp4: the file is empty"):
        predict_clip(*loaded, tmp_path / "empty.mp4")
    with pytest.raises(
        VideoDecodingError, match=r"clip\.mp4: the interval \[5, 50\) frames .* holds \[0, 12\) frames"
    ):
        predict_clip(*loaded, video, start=5, end=50)


def test_wrong_keypoints_name_their_source(loaded, video, points, tmp_path):
    write_openpose(tmp_path / "short", points[:5], "clip")
    with pytest.raises(ValueError, match=r"short: 5 rows; expected 12, one for each frame of .*clip\.mp4"):
        predict_clip(*loaded, video, tmp_path / "short")
    with pytest.raises(KeypointFileError, match=r"nowhere: no such file, expected"):
        predict_clip(*loaded, video, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"keypoints: No keypoint layout has 11 points\. Known: 137"):
        predict_clip(*loaded, video, points[:, :11])
    broken = points.copy()
    broken[4, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"keypoints: y of 'right_shoulder' is nan in row 4; expected"):
        predict_clip(*loaded, video, broken)


# --- real videos


@pytest.mark.parametrize(
    ("folder", "num_frames", "num_missing"), [("slp_full137", 9, 0), ("openposer_psychologie", 157, 10)]
)
def test_real_video_with_keypoints(loaded, realdata, folder, num_frames, num_missing):
    folder = realdata / "openpose" / folder
    prediction = predict_clip(*loaded, folder / "video.mp4", folder / "json")
    assert (prediction.start, prediction.end) == (0, num_frames)
    assert prediction.pose_used and prediction.person_fraction == 1.0
    assert len(prediction.missing_keypoints) == num_missing
    without = predict_clip(*loaded, folder / "video.mp4")
    assert not without.pose_used and without.scores != prediction.scores


@pytest.mark.parametrize("name", ["seated_webcam_480x320.mp4", "webcam_vfr_640x480.mov", "chaplin_bw_640x360.mp4"])
def test_real_video_without_keypoints(loaded, realdata, name):
    prediction = predict_clip(*loaded, realdata / "people" / name, start=1, end=2.5, unit="seconds")
    assert prediction.start_seconds == pytest.approx(1, abs=0.14) and prediction.end_seconds == pytest.approx(
        2.5, abs=0.14
    )
    assert not prediction.pose_used and len(prediction.scores) == 32

"""Exported graphs against the torch model, and the ONNX backend against the torch backend."""

import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import torch
from tiny_models import TINY
from typer.testing import CliRunner

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor, cli, export
from clipmg_hf.inference import CheckpointError, OnnxModel, WindowGrid, load_model, predict_clip, predict_timeline
from clipmg_hf.processing import SquareCrop, get_layout, write_openpose
from clipmg_hf.processing.geometry_clipmg import crop_and_resize
from clipmg_hf.timeline import read_timeline


pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from clipmg_hf.export_graphs import crop_and_resize_clips, make_graphs  # noqa: E402


GRAPHS = ("model.onnx", "model_with_preprocessing.onnx", "pose_frames.onnx", "vision_tower.onnx", "window_head.onnx")
NAN = float("nan")
SMALL_VISION = {**TINY["vision_config"], "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, save_checkpoint):
    """A smaller one than elsewhere: exporting takes its time by layers."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), vision_config=SMALL_VISION)


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_model(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def formats():
    try:
        import openvino  # noqa: F401
    except ImportError:
        return ["onnx", "pt2"]
    return ["onnx", "pt2", "openvino"]


@pytest.fixture(scope="module")
def report(checkpoint, formats, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "onnx"
    return folder, export.export_model(*load_model(checkpoint, device="cpu"), folder, formats)


@pytest.fixture(scope="module")
def exported(report):
    return report[0]


@pytest.fixture(scope="module")
def onnx_model(exported):
    return load_model(exported, device="cpu", backend="onnx")


def make_batch(config, count=5):
    """Clips with both streams, without frames, without pose, and with a part of each; NaN stands where one lacks."""
    generator = torch.Generator().manual_seed(count)
    size = config.vision_config.image_size
    frame_mask = torch.rand(count, config.num_frames, generator=generator) > 0.4
    keypoint_mask = torch.rand(count, config.num_pose_frames, generator=generator) > 0.4
    for mask, missing in ((frame_mask, 1), (keypoint_mask, 2)):
        mask[0] = True
        mask[missing : missing + 1] = False
    frames = torch.randn(count, config.num_frames, 3, size, size, generator=generator)
    points = torch.rand(count, config.num_pose_frames, config.num_keypoints, 3, generator=generator)
    return {
        "pixel_values": torch.where(frame_mask[..., None, None, None], frames, NAN),
        "keypoints": torch.where(keypoint_mask[..., None, None], points, NAN),
        "frame_mask": frame_mask,
        "keypoint_mask": keypoint_mask,
    }


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    values = session.run(None, {name: inputs[name].numpy() for name in names})
    return dict(zip([entry.name for entry in session.get_outputs()], values, strict=True))


@torch.inference_mode()
def run_torch(model, inputs):
    return model(**inputs, output_explanation=True)


def assert_equal_outputs(found, expected):
    for name in ("logits", "gate", "semantic_attention"):
        if expected.get(name) is None:
            assert name not in found
        else:
            np.testing.assert_allclose(found[name], expected[name].numpy(), atol=1e-4, rtol=0, err_msg=name)


# --- what is written


def test_every_graph_is_there_and_was_compared(report, formats):
    folder, files = report
    differences = {file.name: file.largest_difference for file in files}
    computing = {*GRAPHS, "model.pt2", *(["model.xml"] if "openvino" in formats else [])}
    assert {name for name, difference in differences.items() if difference is not None} == computing
    assert all(differences[name] <= 1e-4 for name in computing)
    assert differences.keys() - computing == {
        "README.md", "config.json", "preprocessing.json", "processor_config.json", "weights.bin",
        *(["model.bin"] if "openvino" in formats else []),
    }  # fmt: skip
    assert [file.num_bytes for file in files] == [(folder / file.name).stat().st_size for file in files]


def test_graphs_share_their_weights(exported, loaded):
    num_bytes = sum(parameter.numel() * 4 for parameter in loaded[0].parameters())
    # Starting at whole pages costs a tiny model a few of them.
    assert (exported / "weights.bin").stat().st_size < num_bytes + 4096 * 200
    assert sum((exported / name).stat().st_size for name in GRAPHS) < num_bytes


def test_files_say_nothing_of_this_machine(exported):
    roots = [str(exported.parent).encode(), export.__file__.rpartition("/clipmg_hf/")[0].encode()]
    for path in exported.iterdir():
        content = path.read_bytes()
        assert not any(root in content for root in roots), path.name


def test_description_lists_inputs_outputs_and_labels(exported, loaded):
    model, processor = loaded
    description = json.loads((exported / "preprocessing.json").read_bytes())
    graph = description["graphs"]["model_with_preprocessing.onnx"]
    assert graph["inputs"]["frames"] == ["uint8", ["clips", 8, "height", "width", 3]]
    assert graph["inputs"]["source_keypoints"] == ["float", ["clips", 32, 22, 3]]
    assert graph["outputs"]["logits"] == ["float", ["clips", 32]]
    assert description["labels"] == [model.config.id2label[index] for index in range(32)]
    assert description["image_mean"] == list(processor.video_processor.image_mean)
    sources = description["keypoint_sources"]["openpose-137"]
    source, target = get_layout("openpose-137").keypoints, get_layout("imigue-22").keypoints
    assert [[source[index] for index in indices] for indices in sources] == [[name] for name in target]


def test_sources_of_derived_and_absent_points():
    sources = export._find_sources("openpose-body25", get_layout("openpose-137"))
    body = get_layout("openpose-body25")
    assert sources[:25] == [[index] for index in range(25)]
    assert sources[25 + 70] == [body.index("left_wrist")] and sources[25 + 71] == []
    assert export._find_sources("coco-17", body)[body.index("neck")] == [5, 6]


# --- equality with torch


@pytest.mark.parametrize("count", [1, 5])
def test_mixed_batches_with_missing_frames_and_pose(exported, loaded, count):
    batch = make_batch(loaded[0].config, count)
    expected = run_torch(loaded[0], batch)
    assert_equal_outputs(run_onnx(exported / "model.onnx", batch), expected)


def test_a_clip_does_not_depend_on_its_batch(exported, loaded):
    batch = make_batch(loaded[0].config)
    together = run_onnx(exported / "model.onnx", batch)["logits"]
    for index in range(5):
        alone = run_onnx(exported / "model.onnx", {name: value[index : index + 1] for name, value in batch.items()})
        np.testing.assert_allclose(together[index], alone["logits"][0], atol=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_pt2_is_equal(exported, loaded, count):
    batch = make_batch(loaded[0].config, count)
    found = torch.export.load(exported / "model.pt2").module()(**batch)
    assert_equal_outputs({name: value.detach().numpy() for name, value in found.items()}, run_torch(loaded[0], batch))


def test_openvino_is_equal(exported, loaded):
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(exported / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batch = make_batch(loaded[0].config)
    found = compiled({name: value.numpy() for name, value in batch.items()})
    found = {output.any_name: found[output] for output in compiled.outputs}
    assert_equal_outputs(found, run_torch(loaded[0], batch))


@pytest.mark.parametrize(
    "values",
    [
        {"query": "pose_pool", "pose_temporal_strides": (1, 2, 1)},
        {"fusion": "visual", "use_semantic_attention": False},
        {"fusion": "pose"},
    ],
    ids=lambda values: next(iter(values.values())),
)
def test_ablations(values, tmp_path, monkeypatch):
    config = CLIPMGConfig(**{**TINY, "vision_config": SMALL_VISION, **values})
    torch.manual_seed(0)
    model = CLIPMGForMicroGestureClassification(config).eval()

    def make_some(*args):
        return [graph for graph in make_graphs(*args) if graph.name in ("model.onnx", "window_head.onnx")]

    monkeypatch.setattr(export, "make_graphs", make_some)
    export.export_model(model, CLIPMGProcessor.from_model_config(config), tmp_path / "onnx")
    batch = make_batch(config)
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    streams = {"visual": {"pixel_values", "frame_mask"}, "pose": {"keypoints", "keypoint_mask"}}
    assert {entry.name for entry in session.get_inputs()} == streams.get(config.fusion, batch.keys())
    batch = {name: batch[name] for name in (entry.name for entry in session.get_inputs())}
    assert_equal_outputs(run_onnx(tmp_path / "onnx" / "model.onnx", batch), run_torch(model, batch))


# --- preprocessing in the graph

CROPS = [(0, -32, 96), (10, 5, 40), (-20, 10, 70), (60, 40, 77), (3, 5, 32), (-200, -100, 400)]


@pytest.mark.parametrize("size", [32, 56])
def test_resize_in_the_graph_differs_from_the_processors_by_rounding(size):
    frames = np.random.default_rng(0).integers(0, 256, (len(CROPS), 2, 64, 96, 3), np.uint8)
    found = crop_and_resize_clips(torch.from_numpy(frames), torch.tensor(CROPS), size)
    expected = torch.stack(
        [crop_and_resize(clip, SquareCrop(*crop), size) for clip, crop in zip(frames, CROPS, strict=True)]
    )
    difference = (found - expected).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("with_pose", [True, False])
def test_source_frames_give_the_scores_of_the_processor(exported, loaded, video, points, with_pose):
    model, processor = loaded
    keypoints = points if with_pose else None
    inputs = processor(video, keypoints, return_metadata=True)
    clip = inputs.pop("clips")[0]
    from clipmg_hf.processing import VideoReader

    pose = np.zeros((1, 32, 22, 3), np.float32)
    if with_pose:
        pose[0] = processor.convert_keypoints(points)[clip.pose_frame_indices]
    raw = {
        "frames": VideoReader(video).read(clip.frame_indices)[None],
        "frame_mask": np.ones((1, 8), bool),
        "crops": np.array([[clip.crop.left, clip.crop.top, clip.crop.size]]),
        "source_keypoints": pose,
    }
    found = run_onnx(
        exported / "model_with_preprocessing.onnx", {name: torch.from_numpy(value) for name, value in raw.items()}
    )
    expected = run_torch(model, inputs)
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), atol=1e-2)
    np.testing.assert_allclose(found["gate"], expected.gate.numpy(), atol=1e-3)


# --- in place of the torch model


@pytest.mark.parametrize("with_pose", [True, False])
def test_predict_clip(onnx_model, loaded, video, points, with_pose):
    keypoints = points if with_pose else None
    found = predict_clip(*onnx_model, video, keypoints, start=2, explain=True)
    expected = predict_clip(*loaded, video, keypoints, start=2, explain=True)
    assert dict(found.scores) == pytest.approx(dict(expected.scores), abs=1e-5)
    assert found.gate_mean == pytest.approx(expected.gate_mean, abs=1e-5)
    np.testing.assert_allclose(
        found.explanation.semantic_attention, expected.explanation.semantic_attention, atol=1e-5
    )


@pytest.mark.parametrize("with_pose", [True, False])
def test_timelines_share_frames(onnx_model, loaded, video, points, with_pose, monkeypatch):
    model, processor = onnx_model
    runs = []
    original = OnnxModel.run

    def count(self, name, inputs):
        runs.append((name, len(next(iter(inputs.values())))))
        return original(self, name, inputs)

    monkeypatch.setattr(OnnxModel, "run", count)
    settings = {"window": 8, "stride": 2, "batch_size": 4, "keypoints": points if with_pose else None}
    found = predict_timeline(video, model=model, processor=processor, **settings)
    expected = predict_timeline(video, model=loaded[0], processor=processor, **settings)
    assert len(found.windows) == len(expected.windows) > 1
    for window, reference in zip(found.windows, expected.windows, strict=True):
        np.testing.assert_allclose(window.scores, reference.scores, atol=1e-5)
        assert window.gate == pytest.approx(reference.gate, abs=1e-5)
    grid = WindowGrid.from_processor(processor, 8, 2)
    sampled = sum(grid.samples_image(index) for index in range(12))
    assert sum(length for name, length in runs if name == "vision_tower.onnx") == sampled
    assert "model.onnx" not in dict(runs)


def test_a_stream_that_is_not_given_is_missing_in_all_clips(onnx_model, loaded):
    batch = {name: value[:1] for name, value in make_batch(loaded[0].config).items()}
    for names in (["pixel_values"], ["keypoints"]):
        inputs = {name: batch[name] for name in names}
        found = onnx_model[0](**inputs, output_explanation=True)
        assert_equal_outputs({name: value.numpy() for name, value in found.items()}, run_torch(loaded[0], inputs))
    assert list(onnx_model[0](**batch)) == ["logits"]


def test_windows_of_another_model_are_told_apart(onnx_model, exported, loaded, tmp_path):
    other = shutil.copytree(exported, tmp_path / "other")
    content = json.loads((other / "preprocessing.json").read_bytes())
    content["files"]["weights.bin"]["sha256"] = "0" * 64
    (other / "preprocessing.json").write_text(json.dumps(content))
    assert load_model(other, backend="onnx")[0].digest != onnx_model[0].digest


def test_commands(exported, checkpoint, video, points, tmp_path):
    write_openpose(tmp_path / "json", points, "clip")
    run = partial(CliRunner().invoke, cli.app)
    scores = []
    for folder, backend in ((exported, "onnx"), (checkpoint, "torch")):
        words = [str(video), "--keypoints", str(tmp_path / "json"), "--model", str(folder), "--backend", backend]
        result = run(["predict", *words, "--json", "--quiet", "--top", "32", "--device", "cpu"])
        assert result.exit_code == 0, result.output
        scores.append({entry["label"]: entry["score"] for entry in json.loads(result.stdout)["scores"]})
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    words = ["--model", str(exported), "--backend", "onnx", "--output", str(tmp_path / "out"), "--window", "4"]
    result = run(["timeline", str(video), *words, "--stride", "2", "--formats", "json", "--quiet"])
    assert result.exit_code == 0, result.output
    assert len(read_timeline(tmp_path / "out" / "clip" / "clip.json").windows) == 5


# --- refusals


def test_a_file_that_was_cut_off_is_named(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "cut")
    with (folder / "weights.bin").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError, match=r"weights\.bin has 1000 bytes; expected \d+"):
        load_model(folder, backend="onnx")
    (folder / "pose_frames.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"pose_frames\.onnx is missing"):
        load_model(folder, backend="onnx")


def test_backends_and_their_limits(exported, checkpoint, onnx_model):
    with pytest.raises(CheckpointError, match=r"holds no preprocessing\.json; expected a folder that hub_scripts"):
        load_model(checkpoint, backend="onnx")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_model(exported)
    with pytest.raises(ValueError, match="backend is 'tensorrt'; expected 'torch' or 'onnx'"):
        load_model(exported, backend="tensorrt")
    with pytest.raises(ValueError, match=r"dtype is torch\.bfloat16; expected float32"):
        load_model(exported, dtype=torch.bfloat16, backend="onnx")
    with pytest.raises(ValueError, match="device 'tpu' cannot be used by ONNX Runtime"):
        load_model(exported, device="tpu", backend="onnx")
    with pytest.raises(ValueError, match="cannot be trained"):
        onnx_model[0].train()


def test_a_graph_that_computes_something_else_is_an_error(loaded):
    graph = make_graphs(*loaded)[0]

    def run(inputs):
        with torch.inference_mode():
            outputs = graph.module(**inputs)
        return {name: value.numpy() + 1e-2 * (name == "gate") for name, value in outputs.items()}

    with pytest.raises(
        export.ExportError, match=r"model\.onnx: gate differs from torch's by 1\.0e-02 in a batch of 1"
    ):
        export._compare(graph, run, "model.onnx")


def test_places_that_cannot_be_used(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "make_graphs", lambda *args: [])
    (tmp_path / "photos").mkdir()
    with pytest.raises(FileExistsError, match="exists and is no export"):
        export.export_model(*loaded, tmp_path / "photos", overwrite=True)
    export.export_model(*loaded, tmp_path / "new" / "export")
    with pytest.raises(FileExistsError, match="holds an earlier export"):
        export.export_model(*loaded, tmp_path / "new" / "export")
    (tmp_path / "new" / "export" / "old").touch()
    export.export_model(*loaded, tmp_path / "new" / "export", overwrite=True)
    assert not (tmp_path / "new" / "export" / "old").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["export"]


def test_models_and_formats_that_cannot_be_exported(loaded, tmp_path):
    model, processor = loaded
    half = CLIPMGForMicroGestureClassification(model.config).bfloat16()
    with pytest.raises(export.ExportError, match=r"torch\.bfloat16 on cpu; expected float32"):
        export.export_model(half, processor, tmp_path / "out")
    with pytest.raises(ValueError, match="'tflite' is none of them; expected one or more of onnx, pt2, openvino"):
        export.export_model(model, processor, tmp_path / "out", ["tflite"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "message"),
    [("onnxruntime", "pip install clipmg_hf\\[onnx\\]"), ("onnxscript", "clipmg_hf\\[onnx\\]")],
)
def test_a_missing_extra_is_named(loaded, exported, tmp_path, monkeypatch, package, message):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=message):
        export.export_model(*loaded, tmp_path / "out")
    if package == "onnxruntime":
        with pytest.raises(ImportError, match=message):
            load_model(exported, backend="onnx")

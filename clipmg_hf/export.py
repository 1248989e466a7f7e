"""Export a checkpoint to ONNX, `torch.export` and OpenVINO, and make sure that what was written computes the same.

    report = export_model(model, processor, "runs/full/onnx", formats=["onnx", "pt2"])

The folder holds graphs that share one file of weights (`weights.bin`), so that the weights are there once:

- `model.onnx`: processed frames and keypoints of clips to scores;
- `model_with_preprocessing.onnx`: source frames (uint8, of any size), keypoints in their pixels and the square to cut
  them to; cuts, scales and normalises inside the graph;
- `vision_tower.onnx`, `pose_frames.onnx`, `window_head.onnx`: its parts, for a stream whose frames are shared;
- `preprocessing.json`: what must be known to use them without this package, and digests of all files.

The batch has any length in all of them; heatmaps are drawn in the graph, and what is missing is masked there as in
torch. `model.pt2` and OpenVINO's `model.xml` compute what `model.onnx` does.
"""

import hashlib
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import torch

from clipmg_hf.console import no_warnings
from clipmg_hf.export_graphs import Graph, make_graphs
from clipmg_hf.files import digest_file, write_file
from clipmg_hf.inference.onnx_model import (
    DESCRIPTION_FILE,
    EXPORT_FORMAT,
    MODEL,
    ONNX_WEIGHTS_FILE,
    RAW_MODEL,
    import_onnxruntime,
)
from clipmg_hf.model_state import evaluating
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE, PROCESSOR_FILE
from clipmg_hf.processing import CLIPMGProcessor, describe_conversion, get_layout
from clipmg_hf.processing.geometry_clipmg import subject_crop
from clipmg_hf.processing.keypoint_layouts_clipmg import KeypointLayout, convert_keypoints


FormatName = Literal["onnx", "pt2", "openvino"]
FORMATS = get_args(FormatName)
PT2_FILE, OPENVINO_FILE = "model.pt2", "model.xml"
# Relative to the largest value of an output, or to 1 where all are smaller.
TOLERANCE = 1e-4
# Scaled frames are whole numbers: rounding moves a few of them by one, of 255.
RAW_TOLERANCE = 1e-3
OPSET = 20
# Smaller tensors stay in the graph. Readers map the file into memory, by pages.
_SHARED_BYTES, _ALIGNMENT = 1024, 4096
_CHECKED_COUNTS = (1, 4)
_SOURCES = ("openpose-body25", "openpose-137")
Runner = Callable[[dict[str, torch.Tensor]], dict[str, np.ndarray]]


class ExportError(ValueError):
    """What was exported does not compute what the model does, or cannot be put where it should go."""


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written.

    Args:
        name: Its name.
        num_bytes: Its size.
        largest_difference: Of any output from the torch model's, relative to the output's largest value or to 1 where
            that is smaller; `None` for files that compute nothing.
    """

    name: str
    num_bytes: int
    largest_difference: float | None = None


def export_model(
    model: CLIPMGForMicroGestureClassification,
    processor: CLIPMGProcessor,
    output_dir: str | PathLike,
    formats: Sequence[FormatName] = ("onnx",),
    overwrite: bool = False,
) -> list[ExportedFile]:
    """Export a model, run every graph, and compare.

    Args:
        model: On the CPU in float32.
        processor: The one that belongs to it.
        output_dir: The folder appears when it is complete. `load_model(output_dir, backend="onnx")` reads it.
        formats: `"onnx"` is always among them: OpenVINO converts it, and the others come beside it.
        overwrite: Replace an earlier export.

    Returns:
        The files.

    Raises:
        ImportError: The extra `onnx` (or `openvino`) is missing.
        FileExistsError: The folder exists, and is no earlier export or `overwrite` was not given.
        ExportError: A result differs from torch's by more than `TOLERANCE`.
    """
    _check_packages(formats)
    output_dir = Path(output_dir)
    _check_place(output_dir, overwrite)
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32} or model.device.type != "cpu":
        raise ExportError(f"The model is {model.dtype} on {model.device}; expected float32 on the CPU.")
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    # The exporters speak of packages that are not there, and of their own future.
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}.") as staging, no_warnings():
        folder = Path(staging, "export")
        folder.mkdir()
        with evaluating(model):
            graphs = make_graphs(model, processor)
            differences = _write_graphs(graphs, folder, formats)
        # Without the code that `save_pretrained` may put beside it.
        model.config.to_json_file(folder / CONFIG_FILE)
        processor.to_json_file(folder / PROCESSOR_FILE)
        write_file(folder / "README.md", _README)
        description = _describe(model, processor, graphs, folder)
        write_file(folder / DESCRIPTION_FILE, json.dumps(description, indent=1) + "\n")
        if output_dir.exists():
            output_dir.replace(Path(staging, "earlier"))
        folder.replace(output_dir)
    return [
        ExportedFile(path.name, path.stat().st_size, differences.get(path.name))
        for path in sorted(output_dir.iterdir())
    ]


def _check_packages(formats: Sequence[str]) -> None:
    """Find what is missing before the work starts."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"formats: {unknown[0]!r} is none of them; expected one or more of {', '.join(FORMATS)}.")
    import_onnxruntime()
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("Export needs onnx and onnxscript: pip install clipmg_hf[onnx].") from error
    if "openvino" in formats:
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise ImportError("The format openvino needs OpenVINO: pip install clipmg_hf[openvino].") from error


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not (folder / DESCRIPTION_FILE).is_file():
        raise FileExistsError(f"{folder} exists and is no export; expected a new folder.")
    if not overwrite:
        raise FileExistsError(f"{folder} holds an earlier export; expected a new folder, or overwrite to replace it.")


def _write_graphs(graphs: list[Graph], folder: Path, formats: Sequence[str]) -> dict[str, float]:
    """Write all graphs, and compare each with torch: the largest differences by the names of the files."""
    differences = {}
    with (folder / ONNX_WEIGHTS_FILE).open("wb") as file:
        weights = _SharedWeights(file)
        for graph in graphs:
            program = _trace(graph)
            _write_onnx(program, graph, folder, weights)
            if graph.name == MODEL and "pt2" in formats:
                torch.export.save(program, folder / PT2_FILE)
    for graph in graphs:
        names = [graph.name]
        if graph.name == MODEL and "pt2" in formats:
            names.append(PT2_FILE)
        if graph.name == MODEL and "openvino" in formats:
            _write_openvino(folder)
            names.append(OPENVINO_FILE)
        for name in names:
            differences[name] = _compare(graph, load_graph(folder / name), name)
    return differences


@torch.no_grad()
def _trace(graph: Graph) -> torch.export.ExportedProgram:
    names = sorted({name for axes in graph.axes.values() for name in axes.values()})
    axes = {name: torch.export.Dim(name) for name in names}
    shapes = {key: {axis: axes[name] for axis, name in own.items()} for key, own in graph.axes.items()}
    program = torch.export.export(graph.module, (), graph.make_inputs(3), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        # Lines of source with the folders of this machine.
        node.meta.pop("stack_trace", None)
    return program


class _SharedWeights:
    """Tensors in a file that several graphs refer to, each of them once."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._places: dict[bytes, int] = {}

    def take(self, tensor: Any) -> Any:
        """Put a tensor of `onnx_ir` into the file; returns the tensor that refers to it."""
        import onnx_ir

        content = tensor.tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._places:
            self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
            self._places[key] = self._file.tell()
            self._file.write(content)
        return onnx_ir.ExternalTensor(
            ONNX_WEIGHTS_FILE,
            self._places[key],
            len(content),
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            base_dir=str(Path(self._file.name).parent),
        )


def _write_onnx(program: torch.export.ExportedProgram, graph: Graph, folder: Path, weights: _SharedWeights) -> None:
    import onnx_ir

    with torch.inference_mode():
        outputs = list(graph.module(**graph.make_inputs(1)))
    exported = torch.onnx.export(program, dynamo=True, output_names=outputs, opset_version=OPSET, verbose=False)
    assert exported is not None
    model = exported.model
    _name_axes(model.graph, graph.axes)
    for part in (model, model.graph, *model.graph, *model.graph.inputs, *model.graph.initializers.values()):
        part.metadata_props.clear()
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.nbytes >= _SHARED_BYTES:
            value.const_value = weights.take(value.const_value)
    onnx_ir.save(model, folder / graph.name)


def _name_axes(graph: Any, axes: dict[str, dict[int, str]]) -> None:
    """Give the axes that may have any length their names; the exporter calls them s77."""
    import onnx_ir

    names = {str(value.shape[axis]): name for value in graph.inputs for axis, name in axes[value.name].items()}
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            lengths = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
            value.shape = onnx_ir.Shape(
                [
                    re.sub(r"s\d+", lambda found: names.get(found[0], found[0]), dim) if isinstance(dim, str) else dim
                    for dim in lengths
                ]
            )


def _write_openvino(folder: Path) -> None:
    """By way of ONNX: OpenVINO knows no rule for `aten.trunc`, which draws the heatmaps."""
    import openvino

    openvino.save_model(openvino.convert_model(folder / MODEL), folder / OPENVINO_FILE, compress_to_fp16=False)


def load_graph(path: Path) -> Runner:
    """A function that runs `model.pt2`, `model.xml` or one of the `.onnx` on the CPU, in as many threads as torch.

    It takes and returns tensors and arrays by name.
    """
    return {".pt2": _load_pt2, ".xml": _load_openvino, ".onnx": _load_onnx}[path.suffix](path)


def _load_onnx(path: Path) -> Runner:
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        values = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return dict(zip(names, values, strict=True))

    return run


def _load_pt2(path: Path) -> Runner:
    module = torch.export.load(path).module()
    return lambda inputs: {name: value.numpy(force=True) for name, value in module(**inputs).items()}


def _load_openvino(path: Path) -> Runner:
    import openvino

    # By default OpenVINO computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        values = compiled({name: tensor.numpy() for name, tensor in inputs.items()})
        return {output.any_name: values[output] for output in compiled.outputs}

    return run


@torch.inference_mode()
def _compare(graph: Graph, run: Runner, name: str) -> float:
    """Largest difference from torch over batches of several lengths, each output relative to its size."""
    largest = 0.0
    for count in _CHECKED_COUNTS:
        inputs = graph.make_inputs(count)
        found = run(inputs)
        for output, expected in graph.module(**inputs).items():
            scale = max(1.0, float(expected.abs().max()))
            difference = float((torch.from_numpy(found[output]) - expected).abs().max()) / scale
            tolerance = RAW_TOLERANCE if name == RAW_MODEL else TOLERANCE
            if not difference <= tolerance:
                raise ExportError(
                    f"{name}: {output} differs from torch's by {difference:.1e} in a batch of {count}; expected at "
                    f"most {tolerance:.0e}."
                )
            largest = max(largest, difference)
    return largest


def _describe(
    model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, graphs: list[Graph], folder: Path
) -> dict[str, Any]:
    """What must be known to use the graphs without this package, as JSON values."""
    settings = processor.video_processor.resolve_settings()
    layout = get_layout(processor.keypoint_layout)
    limits = inspect.signature(subject_crop).parameters
    return {
        "format": EXPORT_FORMAT,
        "labels": [model.config.id2label[index] for index in range(model.config.num_labels)],
        "num_frames": settings.num_frames,
        "pose_frames_per_frame": settings.pose_frames_per_frame,
        "image_size": settings.size.height,
        "image_mean": list(settings.image_mean),
        "image_std": list(settings.image_std),
        "crop": {
            "padding": processor.crop_padding,
            **{name: limits[name].default for name in ("min_points", "min_size")},
        },
        "keypoint_layout": layout.name,
        "keypoints": list(layout.keypoints),
        "keypoint_sources": {name: _find_sources(name, layout) for name in _SOURCES},
        "graphs": {graph.name: _list_tensors(folder / graph.name) for graph in graphs},
        "files": {path.name: digest_file(path) for path in sorted(folder.iterdir())},
    }


def _find_sources(source: str, target: KeypointLayout) -> list[list[int]]:
    """For each point of a layout the points of `source` of which it is the mean; none where it cannot be had."""
    count = get_layout(source).num_keypoints
    # Row i lacks point i: what is missing there was made of it.
    probe = np.ones((count, count, 3)) - np.eye(count)[..., None]
    absent = describe_conversion(source, target)
    is_made_of = convert_keypoints(probe, source, target, missing_keypoints="mask")[..., 2] == 0
    return [
        [] if name in absent else np.flatnonzero(is_made_of[:, index]).tolist()
        for index, name in enumerate(target.keypoints)
    ]


def _list_tensors(path: Path) -> dict[str, dict[str, list]]:
    """Names of inputs and outputs with their type and shape; axes of any length have names."""
    session = import_onnxruntime().InferenceSession(str(path), providers=["CPUExecutionProvider"])
    tensors = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        kind: {entry.name: [entry.type.removeprefix("tensor(").rstrip(")"), entry.shape] for entry in entries}
        for kind, entries in tensors.items()
    }


_README = """# An exported CLIP-MG model

The graphs `*.onnx` share `weights.bin`; keep them in one folder. `preprocessing.json` lists the inputs and outputs of
each with their shapes, the labels, and what to do to a video and its keypoints.

- `model.onnx`: processed frames and keypoints of a batch of clips to logits, gate and attention.
- `model_with_preprocessing.onnx`: `frames`, uint8 (clips, frames, height, width, 3), upright RGB of any size;
  `source_keypoints`, x and y in pixels of these frames (integers at pixel centres) and confidence, (0, 0, 0) where
  missing; and `crops`, int64 (clips, 3): left, top and side, in pixels, of the square that both are cut to. It may
  leave the frame; the outside is black. The model was trained on the square around all valid points of the whole clip:
  around the middle of their box, the larger side of it times 1 + 2 * `padding`. Without `min_points` points, or with
  a box smaller than `min_size` pixels, or without keypoints, it is the smallest centred square that holds the frame.
- `vision_tower.onnx`, `pose_frames.onnx`, `window_head.onnx`: its parts, for windows that share frames.

What is missing is `false` in `frame_mask` and `keypoint_mask`: it has no influence, whatever stands in its place. Of
`preprocessing.json`: a clip of n frames is cut into `num_frames * pose_frames_per_frame` equal parts; the frame in the
middle of each gives the keypoints, and of each group of `pose_frames_per_frame` the one at place
`pose_frames_per_frame // 2` the image. `keypoint_sources` says which points of OpenPose a point is the mean of.

With the package: `load_model(folder, backend="onnx")`, or `clipmg predict --backend onnx`.
"""


__all__ = [
    "FORMATS",
    "OPENVINO_FILE",
    "PT2_FILE",
    "ExportError",
    "ExportedFile",
    "FormatName",
    "export_model",
    "load_graph",
]

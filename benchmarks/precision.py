"""Accuracy and time of a model in bfloat16, float16 and with int8 weights, beside float32.

    pip install torchao
    python -m benchmarks precision --model demo_output/checkpoint --data_dir demo_output/data

Cost: about 5 minutes on one core: 3 for the accuracy on 576 small clips, 2 for the time of the full-size model.

Expected: top-1 within a point of float32 in every form. Weights of linear layers become int8 with one scale for each
output; "weight-only" computes in float32, "dynamic" rounds the inputs of a layer to int8, too, with one scale for each
token. The pose encoder's convolutions, layer norms and embeddings stay what they are. The accuracy is that of a
trained model on a split of a data set, the time that of the full-size model with random weights on one clip. float16
is for GPUs: most CPUs have no fast routines for it, so that there it is scored on a few clips and not timed. Without
torchao, the int8 rows are left out.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.forward import make_config, make_inputs
from benchmarks.measuring import clock_of, format_ratios, format_table, run_benchmark, take_turns
from clipmg_hf import CLIPMGForMicroGestureClassification
from clipmg_hf.data.loading import load_named_splits
from clipmg_hf.evaluation import EvaluationOptions, evaluate_checkpoint
from clipmg_hf.inference import load_model


FULL, HALF = "float32", "float16"
INT8 = ("int8 weight-only", "int8 dynamic")


@dataclass
class Settings:
    """What is measured."""

    model: str = field(metadata={"help": "Folder of a trained checkpoint."})
    data_dir: str = field(metadata={"help": "Folder of the data set it was trained on, prepared or not."})
    split: str = field(default="validation", metadata={"help": "Split to score."})
    forms: list[str] = field(
        default_factory=lambda: [FULL, "bfloat16", HALF, *INT8], metadata={"help": "Beside float32."}
    )
    half_clips: int = field(default=48, metadata={"help": "Clips that float16 is scored on without a GPU."})
    rounds: int = field(default=5, metadata={"help": "Repetitions of each way; 0 leaves the time out."})
    device: str = field(default="cpu", metadata={"help": "cpu, in one thread, or cuda."})


def has_torchao() -> bool:
    """Whether int8 can be measured."""
    return importlib.util.find_spec("torchao") is not None


def convert(model: CLIPMGForMicroGestureClassification, form: str) -> CLIPMGForMicroGestureClassification:
    """Bring a float32 model into a form, in place."""
    if form not in INT8:
        return model.to(getattr(torch, form))
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig() if form == INT8[0] else Int8DynamicActivationInt8WeightConfig())
    return model


def measure_accuracy(settings: Settings, forms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each form: top-1, clips predicted otherwise, and errors of logits relative to the largest in float32."""
    rows = load_named_splits(settings.data_dir, [settings.split], "classification")[settings.split]
    results: dict[str, dict[str, float]] = {}
    reference: np.ndarray | None = None
    for form in forms:
        few = form == HALF and settings.device == "cpu"
        clips = np.arange(0, len(rows), max(1, len(rows) // settings.half_clips) if few else 1)
        model, processor = load_model(settings.model, settings.device, torch.float32)
        scores = evaluate_checkpoint(convert(model, form), processor, rows.select(clips), EvaluationOptions()).scores
        reference = scores.logits if reference is None else reference
        results[form] = compare(scores.logits, reference[clips], np.asarray(scores.labels))
    return results


def compare(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Logits (N, L) of a form with those of float32; a ValueError where one is not finite."""
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).sum()} of {logits.size} logits are not finite.")
    predicted, expected = logits.argmax(axis=1), reference.argmax(axis=1)
    errors = np.abs(logits - reference) / np.abs(reference).max()
    return {
        "clips": len(labels),
        "top1": float((predicted == labels).mean()),
        "change": float((predicted == labels).mean() - (expected == labels).mean()),
        "changed": int((predicted != expected).sum()),
        "largest_error": float(errors.max()),
        "mean_error": float(errors.mean()),
    }


@torch.inference_mode()
def measure_time(settings: Settings, forms: Sequence[str]) -> dict[str, Any]:
    """Seconds of the full-size model by form and round, and bytes of its weights."""
    ways: dict[str, Callable[[], Any]] = {}
    sizes = {}
    for form in forms:
        if form == HALF and settings.device == "cpu":
            continue
        torch.manual_seed(0)
        model = CLIPMGForMicroGestureClassification(make_config()).eval()
        model = convert(model.to(settings.device), form)
        inputs = make_inputs(model.config, 1, settings.device, model.dtype)
        ways[form] = lambda model=model, inputs=inputs: model(**inputs)  # type: ignore[misc]
        sizes[form] = count_bytes(model)
    return {"seconds": take_turns(ways, settings.rounds, clock_of(settings.device)), "bytes": sizes}


def count_bytes(model: torch.nn.Module) -> int:
    """Of all parameters and buffers; a quantised weight is several tensors."""
    total = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        names, _ = tensor.__tensor_flatten__() if hasattr(tensor, "__tensor_flatten__") else ([], None)
        parts = [getattr(tensor, name) for name in names] or [tensor]
        total += sum(part.numel() * part.element_size() for part in parts)
    return total


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Accuracy of the checkpoint and time of the full-size model."""
    torch.set_num_threads(1)
    forms = [form for form in dict.fromkeys([FULL, *settings.forms]) if form not in INT8 or has_torchao()]
    results: dict[str, Any] = {"accuracy": measure_accuracy(settings, forms)}
    if settings.rounds:
        results["time"] = measure_time(settings, forms)
    return results


def format_tables(report: dict[str, Any]) -> str:
    """One table of accuracies, one of times."""
    settings, results = report["settings"], report["results"]
    rows = [
        [
            form,
            f"{100 * values['top1']:.2f} %",
            f"{100 * values['change']:+.2f}",
            f"{values['changed']} of {values['clips']}",
            f"{values['largest_error']:.1e}",
            f"{values['mean_error']:.1e}",
        ]
        for form, values in results["accuracy"].items()
    ]
    headers = ["form", "top-1", "change in points", "clips predicted otherwise", "largest error", "mean error"]
    text = (
        f"Split {settings['split']} of the data set, {settings['device']}. Errors are those of logits, relative to "
        f"the largest logit of the same clips in {FULL}.\n\n{format_table(headers, rows)}"
    )
    if "time" in results:
        times = results["time"]
        sizes = {form: f"{size / 1e6:.0f}" for form, size in times["bytes"].items()}
        text += (
            f"\nFull-size model with random weights, one clip, one thread; medians of {settings['rounds']} rounds in "
            f"which all forms take turns, without `torch.compile`.\n\n"
            + format_ratios(times["seconds"], FULL, more={"MB of weights": sizes})
        )
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark(
        "precision",
        Settings,
        measure,
        format_tables,
        doc=__doc__ or "",
        packages=["torchao"] if has_torchao() else [],
        arguments=arguments,
    )


if __name__ == "__main__":
    main()

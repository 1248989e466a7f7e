"""Export a checkpoint to ONNX, and on request to `torch.export` and OpenVINO.

Command:  python hub_scripts/export.py --model runs/full --output_dir runs/full_onnx
          python hub_scripts/export.py ... --formats onnx pt2 openvino
          clipmg predict clip.mp4 --model runs/full_onnx --backend onnx
          python hub_scripts/predict_onnx.py clip.mp4 --model runs/full_onnx      # without torch
Cost:     four minutes of processor time and 3.3 GB of memory with the full-size model and all formats; needs the extra
          `onnx`, the last format `openvino`.
Expected: OUT/ with model.onnx and other graphs, weights.bin that they share, preprocessing.json and README.md, which
          says what each is for. Every file was run and compared with torch before it got there; the table shows by how
          much it differs.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from rich.console import Console
from transformers import HfArgumentParser

from clipmg_hf.console import make_table, run, say
from clipmg_hf.export import FORMATS, ExportedFile, export_model
from clipmg_hf.inference import load_model


@dataclass
class ExportArguments:
    """What to export and where to."""

    model: str = field(metadata={"help": "Folder of a checkpoint, or owner/name on the Hub."})
    output_dir: str = field(metadata={"help": "Folder of the export."})
    revision: str | None = field(default=None, metadata={"help": "Commit, tag or branch of a model on the Hub."})
    formats: list[str] = field(
        default_factory=lambda: ["onnx"], metadata={"help": f"What to write: {', '.join(FORMATS)}; onnx always."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier export."})


def print_files(files: list[ExportedFile]) -> None:
    """Print sizes, and differences from torch where a file computes something."""
    table = make_table(["file", "MB", "largest difference"])
    for file in files:
        difference = "" if file.largest_difference is None else f"{file.largest_difference:.1e}"
        table.add_row(file.name, f"{file.num_bytes / 1e6:.1f}", difference)
    Console(highlight=False).print(table)


def main() -> None:
    """Load, export, check and say what was written."""
    (args,) = HfArgumentParser(cast(Any, ExportArguments)).parse_args_into_dataclasses()
    model, processor = load_model(args.model, device="cpu", dtype=torch.float32, revision=args.revision)
    print_files(export_model(model, processor, args.output_dir, args.formats, args.overwrite))
    say(Console(stderr=True), f"exported to {args.output_dir}")


if __name__ == "__main__":
    run(main)

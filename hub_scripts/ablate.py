"""Train the ablations of a configuration over several seeds, and write the table beside the paper's numbers.

Command:  python hub_scripts/ablate.py --config hub_scripts/configs/imigue_full.yaml --output_dir runs/ablation \
              --seeds 0 1 2 --data_dir DIR --eval_split test [--variants full no_pose ...] [any argument of train.py]
Cost:     a training run for each variant and seed, one after the other; started again, it goes on.
Expected: runs/ablation/table.md, and a run's folder for each variant and seed. No model is chosen by its results, so
          the test split, where the paper's numbers are from, may be evaluated.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.ablation import VARIANTS, compare_with_full, format_table, run_ablation
from clipmg_hf.console import run
from clipmg_hf.files import write_file


@dataclass
class AblationArguments:
    """Which runs to make."""

    config: str = field(metadata={"help": "Configuration of the full model."})
    output_dir: str = field(metadata={"help": "Folder of the runs and of table.md."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds of each variant."})
    variants: list[str] = field(default_factory=lambda: list(VARIANTS), metadata={"help": "Variants to train."})


def main() -> None:
    """Run the steps; unusable input ends with status 1 and one line."""
    # 1. What is not ours goes to every training run.
    parser = HfArgumentParser(cast(Any, AblationArguments), allow_abbrev=False)
    args, overrides = parser.parse_args_into_dataclasses(return_remaining_strings=True)
    # 2. Train what is missing.
    try:
        results = run_ablation(args.config, Path(args.output_dir), args.seeds, args.variants, overrides)
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    # 3. Write the table.
    table = "\n".join([format_table(results), *compare_with_full(results)]) + "\n"
    write_file(Path(args.output_dir, "table.md"), table)
    print(table)


if __name__ == "__main__":
    run(main)

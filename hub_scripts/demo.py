"""Show the whole path on synthetic data, from generated videos to a reloaded checkpoint that predicts.

Command:  python hub_scripts/demo.py --output_dir demo_output      (or `make demo`)
Cost:     about 7 minutes on 2 CPU cores, about 2.5 GB of memory, no network.
Expected: top-1 of at least 80 % on held-out subjects, at least 10 points above the model without pose.
"""

from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.demo import DemoArguments, run_demo


def main() -> None:
    """Parse the arguments and run."""
    (args,) = HfArgumentParser(cast(Any, DemoArguments)).parse_args_into_dataclasses()
    run_demo(args)


if __name__ == "__main__":
    run(main)

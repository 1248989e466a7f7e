"""Cut the clips of a data set out of its videos, into a compact folder that plain `datasets` loads.

Command:  python hub_scripts/prepare_dataset.py --data_dir /data/imigue --output_dir prepared --num_proc 8
          python hub_scripts/prepare_dataset.py --output_dir prepared --verify
Cost:     about 8 ms of processor time and 5 kB for a frame of 1280 x 720 at the defaults, with 137 keypoints; a
          killed run goes on where it stopped when the command is given again.
Expected: prepared/data/<split>-<n>-of-<m>.parquet, README.md and manifest.json; `--verify` decodes every video, and
          ends with status 1 and a list if anything is wrong. `--on_error skip` leaves out clips whose files are wrong.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.data.loading import LOADERS
from clipmg_hf.data.prepare import PrepareConfig, prepare_dataset, verify_dataset
from clipmg_hf.text import plural


LICENCE_REMINDER = (
    "This is licensed data, for your own use: do not publish it or pass it on. Pushing it to a repository is another "
    "script's job, and private unless you say otherwise."
)


@dataclass
class PrepareArguments:
    """What to prepare and where."""

    output_dir: str = field(metadata={"help": "Folder of the prepared data."})
    data_dir: str | None = field(default=None, metadata={"help": "Folder of the data set."})
    dataset: Literal["imigue", "smg", "ma52"] = field(default="imigue", metadata={"help": "Which data set it is."})
    protocol: str = field(default="", metadata={"help": "How to split; the data set's official way by default."})
    validation: float | None = field(default=None, metadata={"help": "Share of the training subjects to validate on."})
    seed: int = field(default=0, metadata={"help": "Seed of that choice, and of the folds."})
    num_folds: int = field(default=5, metadata={"help": "With --protocol folds: how many."})
    fold: int = field(default=0, metadata={"help": "With --protocol folds: the one that validates, from 0."})
    background_share: float = field(
        default=0.0,
        metadata={
            "help": "Clips of the gaps between gestures, as a class 'Background': so many for each gesture, as 0.1."
        },
    )
    on_error: Literal["raise", "skip"] = field(
        default="raise", metadata={"help": "Stop at files that are wrong, or leave out what they concern."}
    )
    num_proc: int = field(default=1, metadata={"help": "Processes."})
    verify: bool = field(default=False, metadata={"help": "Only check the folder against its manifest."})


def verify(folder: str) -> int:
    """Say what is wrong with a prepared folder; the exit status."""
    problems = verify_dataset(folder, decode=True)
    print("\n".join([f"{folder}: {plural(len(problems), 'problem')}", *problems]))
    return 1 if problems else 0


def prepare(args: PrepareArguments, config: PrepareConfig) -> None:
    """Load the data set, prepare it and say what was written."""
    if args.data_dir is None:
        raise ValueError("data_dir is missing; expected --data_dir with the folder of the data set, or --verify.")
    names = ("protocol", "validation", "seed", "num_folds", "fold", "background_share")
    split = {name: getattr(args, name) for name in names}
    load = LOADERS[args.dataset]
    options = {"personal_data": config.keep_personal_columns, "on_error": args.on_error, "num_proc": args.num_proc}
    rows = load(args.data_dir, **split, **options)
    # It names the digest of all files, which does not change when the folder moves.
    description = next(iter(rows.values())).info.description.splitlines()
    source = {"dataset": args.dataset, **split, "description": description}
    manifest = prepare_dataset(rows, args.output_dir, config, args.num_proc, source)
    for name, counts in manifest["splits"].items():
        print(f"{name}: {plural(counts['clips'], 'clip')}, {plural(counts['frames'], 'frame')}")
    print(f"{args.output_dir}: {sum(entry['bytes'] for entry in manifest['files'].values()):,} bytes")
    print(LICENCE_REMINDER)


def main() -> int:
    """Prepare or verify; the exit status."""
    parser = HfArgumentParser(cast(Any, (PrepareArguments, PrepareConfig)))
    args, config = parser.parse_args_into_dataclasses()
    if args.verify:
        return verify(args.output_dir)
    prepare(args, config)
    return 0


if __name__ == "__main__":
    run(main)

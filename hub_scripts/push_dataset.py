"""Push a prepared data set to the Hub, privately unless you say otherwise; plain `datasets` loads and streams it.

Command:  python hub_scripts/push_dataset.py --folder prepared --repo_id OWNER/NAME --dry_run
          python hub_scripts/push_dataset.py --folder prepared --repo_id OWNER/NAME
          ... --public --public_licensed_data     # only if those who made the data set allow you to publish it
Cost:     reads the folder twice before it uploads. Memory does not grow with the data.
Expected: the folder is compared with its manifest, then pushed in one commit with its data set card: a revision holds
          all of it or nothing. After a cut the same command goes on; files that had arrived are not sent again.
          `--dry_run` compares, lists the files, and needs neither a token nor a network.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.data.prepared_folder import read_manifest
from clipmg_hf.data.push import describe_clips, is_card_edited, push_dataset
from clipmg_hf.hub import describe_files


PRIVATE_REMINDER = (
    "This is licensed data: whoever may read the private repositories of {owner} has it now. Expected: people under "
    "the same agreement, nobody else."
)
PUBLIC_REMINDER = (
    "This is public now: anybody can copy these recordings, and a copy cannot be taken back. You declared that you "
    "may publish them."
)


@dataclass
class PushDatasetArguments:
    """What to push and where to."""

    folder: str = field(metadata={"help": "Folder that hub_scripts/prepare_dataset.py wrote."})
    repo_id: str = field(metadata={"help": "OWNER/NAME on the Hub; made if it is not there."})
    public: bool = field(
        default=False,
        metadata={"help": "For everybody, instead of only those who may read OWNER's private repositories."},
    )
    public_licensed_data: bool = field(
        default=False,
        metadata={
            "help": "With --public: I declare that those who made the data set allow me to give these recordings of "
            "people to everybody."
        },
    )
    dry_run: bool = field(default=False, metadata={"help": "Check the folder and list its files; push nothing."})


def main() -> None:
    """Push, or list what would be pushed, and say what that means."""
    (args,) = cast(Any, HfArgumentParser(cast(Any, PushDatasetArguments)).parse_args_into_dataclasses())
    result = push_dataset(
        args.folder,
        args.repo_id,
        private=not args.public,
        public_licensed_data=args.public_licensed_data,
        dry_run=args.dry_run,
    )
    manifest = read_manifest(args.folder)
    print(f"{args.folder}: as its manifest says; {describe_clips(manifest)}")
    if is_card_edited(args.folder, manifest):
        print("README.md was edited and goes as it is; remove it to get one from the facts of the manifest.")
    if args.dry_run:
        print(describe_files(result.files))
        print(f"dry run: nothing was sent to {result.url} ({'public' if args.public else 'private'})")
        return
    print(result.url if result.is_new else f"{result.url} has all of this already")
    print(f'rows = datasets.load_dataset("{args.repo_id}", streaming=True)')
    reminder = PUBLIC_REMINDER if args.public else PRIVATE_REMINDER
    print(reminder.format(owner=args.repo_id.split("/")[0]))


if __name__ == "__main__":
    run(main)

"""Check a checkpoint as a stranger would use it, and push it to the Hub in one commit.

Command:  python hub_scripts/push_model.py --folder runs/full --repo_id owner/clip-mg --private true --tag v1
          python hub_scripts/push_model.py --folder runs/full --repo_id owner/clip-mg --dry_run true   # no token
          python hub_scripts/push_model.py ... --create_pr true    # a pull request to somebody's repository
Cost:     half a minute for the check, then the upload of the weights; what the Hub has already is not sent again.
Expected: the address of the commit, or of the pull request. Folders in the run's folder, and what training leaves
          beside a checkpoint (state to resume from, records with local paths), are left out and listed. Where
          README.md says nothing of the run yet, the model card takes its place, in a dry run too: read it before you
          push. Nothing is pushed if anything is wrong with the folder; all of it is said at once.
"""

from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.checkpoint_check import check_checkpoint, select_files
from clipmg_hf.console import run
from clipmg_hf.hub import describe_files, push_folder
from clipmg_hf.model_card import write_model_card
from clipmg_hf.modeling.checkpoint_files_clipmg import CARD, CARD_FILE


# Of an earlier push, whose shards or code may have had other names.
REPLACED = ("*.safetensors", "*.safetensors.index.json", "*.py")
INTERRUPTED = "interrupted; nothing was pushed, unless an address was printed: run the same command again"


@dataclass
class PushModelArguments:
    """What to push and where to."""

    folder: str = field(metadata={"help": "Folder of the checkpoint."})
    repo_id: str = field(metadata={"help": "Repository on the Hub, owner/name; made if it is not there."})
    private: bool = field(default=False, metadata={"help": "Make it a private repository."})
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request and leave main as it is."})
    tag: str | None = field(default=None, metadata={"help": "A new tag for the commit, such as v1."})
    renew_card: bool = field(
        default=False, metadata={"help": "Write the card anew, with the evaluations that lie in the folder by now."}
    )
    commit_message: str = field(default="Upload CLIP-MG", metadata={"help": "First line of the commit."})
    dry_run: bool = field(default=False, metadata={"help": "Check, list the files with their sizes, and stop."})


def has_card(folder: Path) -> bool:
    """Whether there is a card other than the one that saving writes, which knows nothing of the run."""
    path = folder / CARD_FILE
    return path.is_file() and not path.read_text(encoding="utf-8").startswith(CARD.partition("{")[0])


def push(args: PushModelArguments) -> None:
    """Write a card if there is none, check, push, and say where it is."""
    folder = Path(args.folder)
    options: dict[str, Any] = {
        "private": args.private,
        "create_pr": args.create_pr,
        "tag": args.tag,
        "commit_message": args.commit_message,
        "delete_patterns": REPLACED,
    }
    # What is wrong with the names shows before the checkpoint is loaded.
    push_folder(folder, args.repo_id, **options, dry_run=True)
    if args.renew_card or not has_card(folder):
        print(f"{write_model_card(folder, repo_id=args.repo_id)}: written; read it before others do")
    files, left_out = select_files(folder)
    check_checkpoint(folder, files)
    print(describe_files(files))
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    names = [escape(file.path) for file in files]
    result = push_folder(folder, args.repo_id, **options, allow_patterns=names, dry_run=args.dry_run)
    if args.dry_run:
        print(f"dry run: nothing was sent to {result.url}")
    else:
        print(result.url if result.is_new else f"{result.url} has all of this already")


def main() -> None:
    """Push a checkpoint."""
    (args,) = HfArgumentParser(cast(Any, PushModelArguments)).parse_args_into_dataclasses()
    push(args)


if __name__ == "__main__":
    run(main, INTERRUPTED)

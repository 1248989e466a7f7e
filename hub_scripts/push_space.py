"""Push the app to the Hub as a Space: upload a video in the browser, look at its timeline, download the results.

Command:  python hub_scripts/push_space.py --repo_id OWNER/micro-gestures --model OWNER/clip-mg
          ... --dry_run          # list the files; needs neither a token nor a network
Cost:     seconds; the Hub then installs the requirements, which takes it minutes.
Expected: a Space that shows the model, with the code of this package as it is here. The model must be on the Hub
          before (hub_scripts/push_model.py). The Space of a private model needs a secret HF_TOKEN that may read it.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.hub import describe_files
from clipmg_hf.spaces import push_app


@dataclass
class PushSpaceArguments:
    """Which model, and where to push it."""

    repo_id: str = field(metadata={"help": "OWNER/NAME of the Space; made if it is not there."})
    model: str = field(metadata={"help": "OWNER/NAME of the model that it shows, which is on the Hub."})
    private: bool = field(
        default=False, metadata={"help": "Only for those who may read OWNER's private repositories."}
    )
    dry_run: bool = field(default=False, metadata={"help": "List the files; push nothing, and look for no model."})


def main() -> None:
    """Push the app, or list what would be pushed."""
    (args,) = cast(Any, HfArgumentParser(cast(Any, PushSpaceArguments)).parse_args_into_dataclasses())
    result = push_app(args.repo_id, args.model, private=args.private, dry_run=args.dry_run)
    if args.dry_run:
        print(describe_files(result.files))
        print(f"dry run: nothing was sent to {result.url}; whether there is a model {args.model} was not looked at")
        return
    print(result.url if result.is_new else f"{result.url} has all of this already")


if __name__ == "__main__":
    run(main)

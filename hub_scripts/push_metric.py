"""Push the metric for the `evaluate` library to the Hub, as a Space with a page to try it on.

Command:  python hub_scripts/push_metric.py --repo_id OWNER/clipmg_metric
          ... --dry_run          # list the files; needs neither a token nor a network
Cost:     seconds.
Expected: evaluate.load("OWNER/clipmg_metric") works without this package, and the Space computes what is pasted into
          it. The Space must have this name, because `evaluate` looks for a script of the Space's name.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.hub import describe_files
from clipmg_hf.spaces import push_metric


@dataclass
class PushMetricArguments:
    """Where to push it."""

    repo_id: str = field(metadata={"help": "OWNER/clipmg_metric on the Hub; made if it is not there."})
    private: bool = field(default=False, metadata={"help": "Load it with a token that may read it only."})
    dry_run: bool = field(default=False, metadata={"help": "List the files; push nothing."})


def main() -> None:
    """Push the metric, or list what would be pushed."""
    (args,) = cast(Any, HfArgumentParser(cast(Any, PushMetricArguments)).parse_args_into_dataclasses())
    result = push_metric(args.repo_id, private=args.private, dry_run=args.dry_run)
    if args.dry_run:
        print(describe_files(result.files))
        print(f"dry run: nothing was sent to {result.url}")
        return
    print(result.url if result.is_new else f"{result.url} has all of this already")
    print(f'metric = evaluate.load("{args.repo_id}")')


if __name__ == "__main__":
    run(main)

"""iMiGUE as a `datasets` builder: the data set script.

    python hub_scripts/imigue.py --data_dir /data/imigue                # what is there, counted and compared
    python hub_scripts/imigue.py --data_dir /data/imigue --load         # also builds the Arrow cache
    python hub_scripts/imigue.py --data_dir /data/imigue --on_error skip    # leaves out what is wrong

`datasets` runs no loading scripts since version 4. Imported, this file gives what such a script gave, the builder:

    from imigue import IMiGUE, load_imigue
    dataset = load_imigue("/data/imigue")

Describing takes seconds. Loading converts every skeleton once, about half an hour of processor time for the whole
release of workbooks; later calls take seconds.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from transformers import HfArgumentParser

from clipmg_hf.console import run
from clipmg_hf.data.imigue import IMiGUE, load_imigue, register
from clipmg_hf.data.imigue_files import find_imigue


@dataclass
class Arguments:
    """What to read."""

    data_dir: str = field(
        metadata={"help": "Folder that holds the Oulu release, the MiGA packs, or a part of either."}
    )
    name: Literal["classification", "online", "emotion"] = field(
        default="classification", metadata={"help": "What a row is."}
    )
    protocol: Literal["miga", "cross_subject", "folds"] = field(default="miga", metadata={"help": "How to split."})
    on_error: Literal["raise", "skip"] = field(
        default="raise", metadata={"help": "Stop at files that are wrong, or leave out what they concern."}
    )
    load: bool = field(default=False, metadata={"help": "Build the Arrow cache and print the splits."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that convert."})


def main() -> None:
    """Describe the folder, and load it if asked to."""
    (args,) = HfArgumentParser(cast(Any, Arguments)).parse_args_into_dataclasses()
    print(find_imigue(args.data_dir, args.on_error).describe())
    if args.load:
        options = {"protocol": args.protocol, "on_error": args.on_error, "num_proc": args.num_proc}
        print(load_imigue(args.data_dir, args.name, **options))


if __name__ == "__main__":
    run(main)


__all__ = ["IMiGUE", "load_imigue", "register"]

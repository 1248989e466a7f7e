"""iMiGUE as a `datasets` builder: the data set script.

    python hub_scripts/imigue.py --data_dir /data/imigue                # what is there, counted and compared
    python hub_scripts/imigue.py --data_dir /data/imigue --load         # also builds the Arrow cache

`datasets` runs no loading scripts since version 4. Imported, this file gives what such a script gave, the builder:

    from imigue import IMiGUE, load_imigue
    dataset = load_imigue("/data/imigue")

Describing takes seconds. Loading converts every skeleton once, about half an hour of processor time for the whole
release of workbooks; later calls take seconds.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from transformers import HfArgumentParser

from clipmg_hf.data.imigue import IMiGUE, load_imigue, register
from clipmg_hf.data.imigue_files import find_imigue


@dataclass
class Arguments:
    """What to read."""

    data_dir: str = field(
        metadata={"help": "Folder that holds the Oulu release, the MiGA packs, or a part of either."}
    )
    name: str = field(default="classification", metadata={"help": "classification, online or emotion."})
    protocol: str = field(default="miga", metadata={"help": "miga, cross_subject or folds."})
    load: bool = field(default=False, metadata={"help": "Build the Arrow cache and print the splits."})
    num_proc: int | None = field(default=None, metadata={"help": "Processes that convert."})


def main() -> None:
    """Describe the folder, and load it if asked to."""
    (args,) = HfArgumentParser(cast(Any, Arguments)).parse_args_into_dataclasses()
    print(find_imigue(args.data_dir).describe())
    if args.load:
        print(load_imigue(args.data_dir, args.name, protocol=args.protocol, num_proc=args.num_proc))


if __name__ == "__main__":
    main()


__all__ = ["IMiGUE", "load_imigue", "register"]

"""Time and memory of finding and splitting a data set of iMiGUE's full size: 18,498 clips of 359 videos.

    python -m benchmarks data_index

Cost: half a minute.

The index is synthetic and has no videos; a skeleton file is an empty placeholder. Each run is a process of its own:
memory is that of a process which does nothing else.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import Spread, format_table, run_benchmark
from clipmg_hf.data.synthetic_layouts import write_index


FIND, SPLIT = "find and describe, s", "split by subject, twice, s"
IMPORTED, PEAK, TABLES = "memory of the process after its imports, MB", "memory at its peak, MB", "the two tables, MB"
CODE = """
import resource, sys, time
from clipmg_hf.data.imigue_files import TRAIN_SUBJECTS, find_imigue
from clipmg_hf.data.splits import SplitSettings, assign_splits
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
source = find_imigue(sys.argv[1])
text = str(source.describe())
described = time.perf_counter()
assign_splits(source, SplitSettings("cross_subject"), TRAIN_SUBJECTS)
assign_splits(source, SplitSettings("folds"), TRAIN_SUBJECTS)
split = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = source.clips.nbytes + source.videos.nbytes
print(described - begin, split - described, imported / 1024, peak / 1024, table / 2**20)
"""


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=5, metadata={"help": "Processes."})


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """What each process said, by name of the number."""
    write_index(folder)
    runs = []
    for _ in range(settings.rounds):
        command = [sys.executable, "-c", CODE, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append([float(value) for value in done.stdout.split()])
    return dict(zip((FIND, SPLIT, IMPORTED, PEAK, TABLES), map(list, zip(*runs, strict=True)), strict=True))


def format_tables(report: dict[str, Any]) -> str:
    """One table."""
    rows = [[name, Spread.of(values).format(3 if name == SPLIT else 2)] for name, values in report["results"].items()]
    return f"Medians and quartiles of {report['settings']['rounds']} processes.\n\n" + format_table(
        ["what", "value"], rows
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark("data_index", Settings, measure, format_tables, doc=__doc__ or "", arguments=arguments)


if __name__ == "__main__":
    main()

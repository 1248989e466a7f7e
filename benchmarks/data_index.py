"""What finding and splitting a data set of iMiGUE's full size costs: 18,498 clips of 359 videos.

    python -m benchmarks.data_index

Writes `benchmarks/results/data_index.md`. The index is synthetic and has no videos; a skeleton file is an empty
placeholder. Takes a few seconds.
"""

import datetime
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from clipmg_hf.data.synthetic_layouts import write_index
from clipmg_hf.files import write_file


RESULTS = Path(__file__).parent / "results" / "data_index.md"
NUM_RUNS = 5
# A process for each run: memory is that of a process which does nothing else.
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


def main() -> None:
    """Measure in fresh processes and write the medians."""
    with tempfile.TemporaryDirectory() as folder:
        write_index(folder)
        runs = []
        for _ in range(NUM_RUNS):
            done = subprocess.run([sys.executable, "-c", CODE, folder], capture_output=True, text=True, check=True)
            runs.append([float(value) for value in done.stdout.split()])
    describe, split, imported, peak, table = (sorted(values)[NUM_RUNS // 2] for values in zip(*runs, strict=True))
    text = f"""# Finding and splitting 18,498 clips of 359 videos

{datetime.date.today().isoformat()}, {platform.machine()}, {platform.system()}, Python {platform.python_version()}.
Medians of {NUM_RUNS} runs, each in a process of its own. `python -m benchmarks.data_index` makes this table.

| what | value |
|---|---|
| find and describe | {describe:.2f} s |
| split by subject, twice | {split:.3f} s |
| memory of the process after its imports | {imported:.0f} MB |
| memory at its peak | {peak:.0f} MB |
| the two tables | {table:.1f} MB |
"""
    write_file(RESULTS, text)
    print(text)


if __name__ == "__main__":
    main()

"""Which library reads iMiGUE's workbooks, and what the cache of converted skeletons saves.

    python -m benchmarks.skeleton_readers

Writes a synthetic workbook as large as a real one, reads it with every reader in turn, several times over, and writes
`benchmarks/results/skeleton_readers.md`. About 2 minutes; expects calamine to be the fastest library, and a reader
of the bare XML that checks nothing to be no more than three times as fast.
"""

import argparse
import datetime
import os
import platform
import re
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import openpyxl
import pandas as pd
import python_calamine
from tqdm import tqdm

from clipmg_hf.data.skeletons import SkeletonCache, read_skeleton
from clipmg_hf.data.synthetic import write_xlsx
from clipmg_hf.files import write_file


NUM_ROWS, NUM_KEYPOINTS = 7000, 137
RESULTS = Path(__file__).parent / "results" / "skeleton_readers.md"
SHEET = "xl/worksheets/sheet1.xml"
VALUE_TAG = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}v"
ROW_TAG = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}row"
REFERENCE = "python-calamine"


def make_keypoints(num_rows: int) -> np.ndarray:
    """Random keypoints (num_rows, 411) of a 1280 x 720 frame with three decimals; an eighth of the points missing."""
    random = np.random.default_rng(0)
    points = random.uniform(0, 1, (num_rows, NUM_KEYPOINTS, 3)) * (1280, 720, 1)
    points[:, ::8] = 0
    return points.round(3).reshape(num_rows, -1)


def read_calamine(path: Path) -> np.ndarray:
    """Rows of Python numbers from Rust."""
    sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    return np.array(sheet.to_python(skip_empty_area=False), dtype=np.float32)


def read_pandas(path: Path) -> np.ndarray:
    """Calamine behind pandas."""
    return pd.read_excel(path, header=None, engine="calamine").to_numpy(np.float32)


def read_openpyxl(path: Path) -> np.ndarray:
    """Pure Python, one row at a time."""
    workbook = openpyxl.load_workbook(path, read_only=True)
    try:
        return np.array(list(workbook.worksheets[0].iter_rows(values_only=True)), dtype=np.float32)
    finally:
        workbook.close()


def read_iterparse(path: Path) -> np.ndarray:
    """The sheet's XML with the standard library; takes every cell for a number and none for empty."""
    rows = []
    with zipfile.ZipFile(path) as archive, archive.open(SHEET) as file:
        for _, element in ElementTree.iterparse(file):
            if element.tag == ROW_TAG:
                rows.append([float(value.text or "nan") for value in element.iter(VALUE_TAG)])
                element.clear()
    return np.array(rows, dtype=np.float32)


def read_regular_expression(path: Path) -> np.ndarray:
    """The sheet's XML with a regular expression; takes every cell for a number and none for empty."""
    with zipfile.ZipFile(path) as archive:
        values = re.findall(rb"<v>([^<]*)</v>", archive.read(SHEET))
    return np.array([*map(float, values)], dtype=np.float32).reshape(-1, NUM_KEYPOINTS * 3)


def measure(
    readers: dict[str, Callable[[], np.ndarray]], expected: np.ndarray, repeats: int
) -> dict[str, list[float]]:
    """Seconds of processor time of each reader, all of them once in every round; each must return `expected`.

    Every reader runs in one thread and the file is in the page cache, so that other work on the machine counts less
    than it would in wall-clock time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    with tqdm(total=repeats * len(readers), desc="Read") as bar:
        for _ in range(repeats):
            for name, read in readers.items():
                start = time.process_time()
                values = read()
                seconds[name].append(time.process_time() - start)
                np.testing.assert_array_equal(values.reshape(expected.shape), expected, err_msg=name)
                bar.update()
    return seconds


def describe_machine() -> str:
    """Processor, cores and versions in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    versions = f"Python {platform.python_version()}, python-calamine {_version('python-calamine')}"
    versions += f", openpyxl {openpyxl.__version__}, pandas {pd.__version__}, numpy {np.__version__}"
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, {platform.system()}; {versions}"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def write_results(path: Path, seconds: dict[str, list[float]], size: int, num_rows: int) -> None:
    """Write the table: medians with the smallest and largest value, and medians as multiples of calamine's."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    lines = [
        "# Readers of skeleton workbooks",
        "",
        f"{datetime.date.today()}, {describe_machine()}.",
        "",
        f"A synthetic workbook of {num_rows:,} rows x {NUM_KEYPOINTS * 3} columns, {size / 1e6:.0f} MB. "
        f"Processor time in one run of {len(seconds[REFERENCE])} rounds, all readers once in each round; the file is "
        "in the page cache. `python -m benchmarks.skeleton_readers` makes this table.",
        "",
        f"| reader | median seconds | from | to | x {REFERENCE} |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {medians[name]:.3f} | {min(values):.3f} | {max(values):.3f} "
            f"| {medians[name] / medians[REFERENCE]:.2g} |"
            for name, values in seconds.items()
        ),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "\n".join(lines) + "\n")


def main() -> None:
    """Write the workbook, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="rows of the workbook (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the table goes (default: %(default)s)")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder, "0001_openpose.xlsx"), SkeletonCache(Path(folder, "cache"))
        keypoints = make_keypoints(arguments.rows)
        write_xlsx(path, keypoints)
        cache.load(path, "openpose_xlsx")
        readers: dict[str, Callable[[], np.ndarray]] = {
            REFERENCE: lambda: read_calamine(path),
            "pandas with calamine": lambda: read_pandas(path),
            "openpyxl, read-only": lambda: read_openpyxl(path),
            "zipfile and iterparse, unchecked": lambda: read_iterparse(path),
            "zipfile and a regular expression, unchecked": lambda: read_regular_expression(path),
            "`read_skeleton`: calamine and all checks": lambda: read_skeleton(path, "openpose_xlsx").keypoints,
            "`SkeletonCache.load`: converted before, checksum compared": lambda: (
                cache.load(path, "openpose_xlsx").keypoints
            ),
        }
        seconds = measure(readers, keypoints.astype(np.float32), arguments.repeats)
        size = path.stat().st_size
    write_results(arguments.output, seconds, size, arguments.rows)
    print(arguments.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

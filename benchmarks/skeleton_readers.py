"""Which library reads iMiGUE's workbooks, and what the cache of converted skeletons saves.

    python -m benchmarks skeleton_readers

Cost: 2 minutes.

Expected: calamine is the fastest library, and a reader of the bare XML that checks nothing no more than three times as
fast. The workbook is synthetic and as large as a real one.
"""

import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openpyxl
import pandas as pd
import python_calamine

from benchmarks.measuring import format_ratios, run_benchmark, take_turns
from clipmg_hf.data.skeletons import SkeletonCache, read_skeleton
from clipmg_hf.data.synthetic import write_xlsx


NUM_KEYPOINTS = 137
SHEET = "xl/worksheets/sheet1.xml"
VALUE_TAG = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}v"
ROW_TAG = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}row"
REFERENCE = "python-calamine"


@dataclass
class Settings:
    """What is measured."""

    rows: int = field(default=7000, metadata={"help": "Rows of the workbook."})
    repeats: int = field(default=5, metadata={"help": "Repetitions of each reader."})


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


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of processor time of each reader, all of them once in every round, and bytes of the workbook.

    Every reader runs in one thread and the file is in the page cache, so that other work on the machine counts less
    than it would in wall-clock time.
    """
    path, cache = folder / "0001_openpose.xlsx", SkeletonCache(folder / "cache")
    keypoints = make_keypoints(settings.rows)
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
    expected = keypoints.astype(np.float32)
    for name, read in readers.items():
        np.testing.assert_array_equal(read().reshape(expected.shape), expected, err_msg=name)
    return {"bytes": path.stat().st_size, "seconds": take_turns(readers, settings.repeats, warm_up=0)}


def format_tables(report: dict[str, Any]) -> str:
    """One table."""
    settings, results = report["settings"], report["results"]
    size = f"{settings['rows']:,} rows x {NUM_KEYPOINTS * 3} columns, {results['bytes'] / 1e6:.0f} MB"
    return (
        f"A synthetic workbook of {size}. Processor time in one run of {settings['repeats']} rounds, all readers once "
        f"in each round; the file is in the page cache.\n\n{format_ratios(results['seconds'], REFERENCE)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    packages = ["python-calamine", "openpyxl", "pandas", "numpy"]
    run_benchmark(
        "skeleton_readers", Settings, measure, format_tables, doc=__doc__ or "", packages=packages, arguments=arguments
    )


if __name__ == "__main__":
    main()

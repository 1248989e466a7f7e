"""What the benchmarks share: ways that take turns, tables of ratios, and results with their date and machine.

A benchmark is a module of this package with a docstring (first line, command, cost), `Settings`, `measure`,
`format_tables` and a `main` that hands these to `run_benchmark`.
"""

import ctypes
import dataclasses
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm
from transformers import HfArgumentParser

from clipmg_hf.files import write_file


RESULTS = Path(__file__).parent / "results"
COMMON_PACKAGES = ("torch", "transformers")
Seconds = dict[str, list[float]]
SettingsType = TypeVar("SettingsType")


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of several measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)

    def format(self, digits: int = 2) -> str:
        """As in "1.07 (1.05 to 1.10)"; small numbers with two significant digits."""
        form = f".{digits}f" if self.median >= 0.1 else ".2g"
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def clock_of(device: str | torch.device) -> Callable[[], float]:
    """Seconds on a clock that suits a device.

    Work of other processes does not count where one thread does everything: processor time then, else the time on the
    wall, after a GPU has finished what it was given.
    """
    if torch.device(device).type != "cpu":

        def read_clock() -> float:
            torch.accelerator.synchronize()
            return time.perf_counter()

        return read_clock
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def keep_freed_memory() -> None:
    """Have the allocator keep what is freed, if it is glibc's, as it does in the course of a model's forward.

    Alone, a buffer of some megabytes is returned to the system or not depending on what was allocated before, and
    fetching its pages again takes longer than what is measured.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30)


def take_turns(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
    warm_up: int = 1,
    description: str = "Measure",
) -> Seconds:
    """Seconds of each way in each round; in a round every way runs once, so that other work disturbs all alike.

    A way that returns a `float` has measured itself, in a process of its own.
    """
    seconds: Seconds = {name: [] for name in ways}
    with tqdm(total=(rounds + warm_up) * len(ways), desc=description, leave=False, mininterval=1) as bar:
        for number in range(rounds + warm_up):
            for name, run in ways.items():
                start = clock()
                returned = run()
                taken = clock() - start
                if number >= warm_up:
                    seconds[name].append(returned if isinstance(returned, float) else taken)
                bar.update()
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], way: str, reference: str) -> Spread:
    """Times of a way relative to those of another one in the same round."""
    return Spread.of([one / other for one, other in zip(seconds[way], seconds[reference], strict=True)])


def show(value: float) -> str:
    """Three digits, or all before the point: 0.947, 30.5, 3,342."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown of a table."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(map(str, cells))} |\n" for cells in lines)


def format_ratios(
    seconds: Mapping[str, Sequence[float]],
    reference: str,
    scale: float = 1e3,
    unit: str = "ms",
    inverse: bool = False,
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Markdown of the times of all ways and their ratios to a reference.

    Args:
        seconds: What `take_turns` returned.
        reference: The way that has the ratio 1.
        scale, unit: Unit of the times.
        inverse: Say how many times faster than the reference a way is, not how many times as long it takes.
        more: Further columns: values by way, by header.
    """
    more = more or {}
    headers = ["way", f"median {unit}", "quartiles", f"times faster than {reference}" if inverse else f"/ {reference}"]
    rows = []
    for way, values in seconds.items():
        spread = Spread.of([value * scale for value in values])
        compared = ratio(seconds, reference, way) if inverse else ratio(seconds, way, reference)
        row = [way, show(spread.median), f"{show(spread.low)} to {show(spread.high)}", compared.format()]
        rows.append(row + [column.get(way, "") for column in more.values()])
    return format_table([*headers, *more], rows)


def describe_machine(*packages: str) -> str:
    """Processor, cores, GPU if there is one, and versions, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    parts = [name, f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(f"{platform.system()}, Python {platform.python_version()}")
    parts += [f"{package} {version(package)}" for package in dict.fromkeys([*COMMON_PACKAGES, *packages])]
    return ", ".join(parts)


def run_benchmark(
    name: str,
    settings_type: type[SettingsType],
    measure: Callable[[SettingsType, Path], dict[str, Any]],
    format_tables: Callable[[dict[str, Any]], str],
    *,
    doc: str,
    packages: Sequence[str] = (),
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse a command line, measure, and write and print the results.

    Args:
        name: Of the benchmark and its results.
        settings_type: Dataclass of its options.
        measure: Settings and an empty folder to values that JSON takes.
        format_tables: A report (date, machine, command, settings, results) to Markdown without the heading.
        doc: Docstring of the benchmark; the first line is the heading.
        packages: Packages whose version matters, beside torch and transformers.
        arguments: The command line; by default that of the process.
    """
    heading, _, _ = doc.partition("\n")
    parser = HfArgumentParser(settings_type, description=heading)  # type: ignore[arg-type]
    parser.add_argument("--output", type=Path, default=RESULTS / f"{name}.md", help="Where the tables go.")
    settings, options = parser.parse_args_into_dataclasses(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(settings, Path(folder))
    report = {
        "date": date.today().isoformat(),
        "machine": describe_machine(*packages),
        "command": f"python -m benchmarks {name}",
        "settings": dataclasses.asdict(settings),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "results": results,
    }
    text = (
        f"# {heading.rstrip('.')}\n\n{report['date']}, {report['machine']}. `{report['command']}` makes these tables, "
        f"here in {report['minutes']} minutes.\n\n{format_tables(report)}"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_file(options.output.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    write_file(options.output, text)
    print(text)

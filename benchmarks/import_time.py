"""Time to import the package, and of the command `clipmg` until it answers.

    python -m benchmarks import_time

Cost: 3 minutes.

Expected: `clipmg_hf` at most 0.2 s beyond the lazy import of transformers, `clipmg --help` below 1 s. Each repetition
is a process of its own; its processor time counts, the start of Python included, with the files in the page cache.
Using a model imports torch and much of transformers, whoever asks: two of the ways compare ours with theirs.
"""

import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import Spread, format_ratios, run_benchmark, take_turns


REFERENCE = "import transformers"
BOTH = "import transformers, clipmg_hf"
SCRIPTS = (
    "pass",
    REFERENCE,
    "import clipmg_hf",
    BOTH,
    "from transformers import CLIPModel, pipeline",
    "from clipmg_hf import CLIPMGModel",
)
COMMANDS = ("clipmg --version", "clipmg --help", "clipmg predict --help", "clipmg timeline --help")


@dataclass
class Settings:
    """What is measured."""

    rounds: int = field(default=7, metadata={"help": "Repetitions of each way."})


def time_process(arguments: Sequence[str]) -> float:
    """Processor seconds of Python with these arguments, in one thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["env", "OMP_NUM_THREADS=1", sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Seconds of each way and round."""
    lines = {script: ["-c", script] for script in SCRIPTS}
    lines |= {command: ["-m", "clipmg_hf.cli", *command.split()[1:]] for command in COMMANDS}
    ways = {name: partial(time_process, line) for name, line in lines.items()}
    return {"seconds": take_turns(ways, settings.rounds)}


def format_tables(report: dict[str, Any]) -> str:
    """One table, and what the package adds to transformers."""
    seconds = report["results"]["seconds"]
    added = Spread.of([both - alone for both, alone in zip(seconds[BOTH], seconds[REFERENCE], strict=True)])
    names = {name: f"`{name}`" for name in seconds}
    return (
        f"Processor seconds of a process, medians of {report['settings']['rounds']} rounds in which all ways take "
        "turns.\n\n"
        + format_ratios({names[name]: values for name, values in seconds.items()}, names[REFERENCE], 1, "s")
        + f"\n`clipmg_hf` beyond `{REFERENCE}`: {added.format(3)} s.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark("import_time", Settings, measure, format_tables, doc=__doc__ or "", arguments=arguments)


if __name__ == "__main__":
    main()

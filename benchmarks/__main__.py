"""List the benchmarks, or run some.

python -m benchmarks                      # what there is, and what it costs
python -m benchmarks heatmaps decoding    # with their defaults; results go to benchmarks/results/
python -m benchmarks all                  # all that need no trained model
python -m benchmarks forward --rounds 3   # options go to a single benchmark; --help lists them
"""

import ast
import importlib
import re
import sys
import time
from pathlib import Path


FOLDER = Path(__file__).parent
NEEDS_MODEL = ("precision", "timeline_events")


def find_benchmarks() -> dict[str, str]:
    """Docstrings of the benchmarks by name, without importing them."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if path.stem != "__main__" and any(
            isinstance(part, ast.FunctionDef) and part.name == "main" for part in module.body
        ):
            found[path.stem] = ast.get_docstring(module) or ""
    return found


def describe(doc: str) -> str:
    """First line of a docstring, and the first words of what it costs."""
    lines = doc.splitlines()
    cost = next((line.removeprefix("Cost: ") for line in lines if line.startswith("Cost: ")), "unknown")
    return f"{lines[0]} Cost: {re.split('[.,:;]( |$)', cost)[0]}."


def main(arguments: list[str]) -> None:
    """List or run."""
    benchmarks = find_benchmarks()
    names = [name for name in arguments if not name.startswith("-")]
    if not arguments:
        width = max(map(len, benchmarks))
        print("\n".join(f"{name:{width}}  {describe(doc)}" for name, doc in benchmarks.items()))
        return
    if arguments[0] in benchmarks and names != arguments:
        selected, options = [arguments[0]], arguments[1:]
    else:
        options = []
        selected = [name for name in benchmarks if name not in NEEDS_MODEL] if names == ["all"] else names
    if unknown := [name for name in selected if name not in benchmarks]:
        sys.exit(f"No benchmark {', '.join(unknown)}; expected some of {', '.join(benchmarks)}.")
    for name in selected:
        started = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main(options)
        print(f"{name}: {(time.monotonic() - started) / 60:.1f} minutes\n")


if __name__ == "__main__":
    main(sys.argv[1:])

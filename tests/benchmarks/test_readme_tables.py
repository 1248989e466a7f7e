"""The tables of the README that benchmarks made are theirs."""

import re
from pathlib import Path


ROOT = Path(__file__).parents[2]


def test_tables_of_the_readme_are_those_of_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- from (\S+) -->\n((?:\|.*\n)+)", readme)
    assert [path for path, _ in tables] == ["benchmarks/results/forward.md"]
    for path, table in tables:
        results = (ROOT / path).read_text(encoding="utf-8").splitlines()
        rows = table.splitlines()
        assert len(rows) >= 4
        assert [row for row in rows if row not in results] == []

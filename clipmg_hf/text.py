"""Words and tables in texts for people."""

from collections.abc import Iterable, Sequence
from html import escape


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 clip`, `1,200 clips`; `nouns` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: bool = False) -> str:
    """A table in Markdown whose cells show what they hold; with `align`, all columns but the first go to the right."""
    marks = ["---", *["---:" if align else "---"] * (len(header) - 1)]
    lines = [header, marks, *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """A text as a cell of a table: no column ends in it, and no HTML begins."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


__all__ = ["escape_markdown", "markdown_table", "plural"]

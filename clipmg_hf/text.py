"""Words and tables in texts for people."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from clipmg_hf.inference import ClipPrediction
from html import escape


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """`1 clip`, `1,200 clips`; `nouns` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def describe_interval(prediction: "ClipPrediction") -> str:
    """The clip in frames, and in seconds where it has times."""
    frames = f"frames {prediction.start} to {prediction.end - 1}"
    if prediction.start_seconds is None or prediction.end_seconds is None:
        return frames
    return f"{frames}, {prediction.start_seconds:.2f} to {prediction.end_seconds:.2f} s"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], align: bool = False) -> str:
    """A table in Markdown whose cells show what they hold; with `align`, all columns but the first go to the right."""
    marks = ["---", *["---:" if align else "---"] * (len(header) - 1)]
    lines = [header, marks, *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_markdown(text: str) -> str:
    """A text as a cell of a table: no column ends in it, and no HTML begins."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


__all__ = ["describe_interval", "escape_markdown", "markdown_table", "plural"]

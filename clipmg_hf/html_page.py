"""Parts of a page to read offline: one file with its style inside, pictures beside it, and every text escaped."""

import re
import zlib
from collections.abc import Iterable, Sequence
from html import escape


UNKNOWN = "-"
CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.5rem 4rem; background: #fff; color: #1c1e24;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .8rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .6rem; }
.facts { color: #5d626c; margin: .4rem 0 0; }
.notes { background: #fff8e6; border-left: 4px solid #dd9b20; padding: .7rem 1.2rem; margin: 1.6rem 0 0; }
.notes h2 { font-size: 1rem; margin: 0; }
.notes ul { margin: .3rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
figure { margin: 0 0 1.6rem; }
img { max-width: 100%; height: auto; display: block; }
figcaption { color: #5d626c; font-size: .9rem; overflow-wrap: anywhere; }
.strip { border: 1px solid #e1e4e8; border-radius: 6px; padding: .4rem; }
.strip figcaption { padding: .3rem .6rem; }
.unreadable { background: #fdf0f0; border-left: 4px solid #c53030; margin: .4rem .6rem .6rem; padding: .6rem 1rem;
  overflow-wrap: anywhere; }
.missing { background: #f6f7f9; border-left: 4px solid #b9bec7; color: #5d626c; margin: .4rem 0 1rem;
  padding: .6rem 1rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #5d626c; font-size: .9rem; padding-bottom: .4rem; }
th, td { padding: .28rem .8rem; border-bottom: 1px solid #e6e8ec; text-align: right; vertical-align: top; }
thead th { border-bottom: 2px solid #b9bec7; white-space: nowrap; }
th:first-child, td.text, th.text { text-align: left; }
td.text { overflow-wrap: anywhere; }
tbody th { font-weight: 500; }
tbody tr:hover { background: #f6f7f9; }
summary { cursor: pointer; color: #2b6cb0; margin: .4rem 0 .8rem; }
@media print { details > * { display: block; } }
"""


def page(title: str, sections: Iterable[str], head: str = "") -> str:
    """A whole page; empty sections are left out, and `head`, which is HTML, is added to the page's head."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n{head}</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def heading(title: str, facts: Iterable[str]) -> str:
    """The page's title with facts in one line below it."""
    return f'<header>\n<h1>{escape(title)}</h1>\n<p class="facts">{escape(" · ".join(facts))}</p>\n</header>'


def notes(title: str, entries: Sequence[str]) -> str:
    """A box with a list; nothing without an entry."""
    if not entries:
        return ""
    items = "\n".join(f"<li>{escape(entry)}</li>" for entry in entries)
    return f'<section class="notes">\n<h2>{escape(title)}</h2>\n<ul>\n{items}\n</ul>\n</section>'


def section(title: str, *parts: str) -> str:
    """A heading and its parts, which are HTML; empty ones are left out."""
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *(part for part in parts if part), "</section>"])


def subheading(title: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(title)}</h3>"


def paragraph(text: str) -> str:
    """A sentence or more."""
    return f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """What is not there, said where it would be."""
    return f'<p class="missing">{escape(text)}</p>'


def figure(file: str, alt: str, caption: str, width: int | None = None) -> str:
    """A picture with its caption; `file` is relative to the page, `width` in CSS pixels if not its own."""
    return f"<figure>\n{image(file, alt, width)}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def image(file: str, alt: str, width: int | None = None) -> str:
    """A picture; see [`figure`]."""
    size = "" if width is None else f' width="{width}"'
    return f'<img src="{escape(file)}" alt="{escape(alt)}"{size}>'


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], num_text_columns: int = 1) -> str:
    """A table whose first column names the rows; the first `num_text_columns` hold text, the others numbers."""

    def css(column: int) -> str:
        return ' class="text"' if 0 < column < num_text_columns else ""

    lines = ['<div class="scroll">\n<table>', f"<caption>{escape(caption)}</caption>", "<thead>\n<tr>"]
    lines += [f'<th scope="col"{css(column)}>{escape(name)}</th>' for column, name in enumerate(header)]
    lines.append("</tr>\n</thead>\n<tbody>")
    for first, *others in rows:
        cells = "".join(f"<td{css(column)}>{escape(cell)}</td>" for column, cell in enumerate(others, start=1))
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>\n</table>\n</div>"])


def details(summary: str, content: str) -> str:
    """Content, which is HTML, that is shown on request."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{content}\n</details>"


def file_name(clip_id: str) -> str:
    """The clip's id where it can name a file everywhere; else what is left of it with a checksum."""
    if re.fullmatch(r"\w[\w.-]{0,99}", clip_id, re.ASCII):
        return clip_id
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', clip_id)[:80]}_{zlib.crc32(clip_id.encode()):08x}"


def number(value: float | None) -> str:
    """A whole number as it is, others with one digit."""
    return UNKNOWN if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def percent(share: float | None) -> str:
    """A share in [0, 1] in per cent."""
    return UNKNOWN if share is None else f"{100 * share:.1f} %"


__all__ = [
    "UNKNOWN",
    "details",
    "figure",
    "file_name",
    "heading",
    "image",
    "missing",
    "notes",
    "number",
    "page",
    "paragraph",
    "percent",
    "section",
    "subheading",
    "table",
]

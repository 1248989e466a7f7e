"""A timeline as JSON: everything of it, and the one format that is read again.

    write_timeline(timeline, "results", formats=["json"])
    timeline = read_timeline("results/interview.json")

A file is one object: "format" and "version", then the fields of [`Timeline`], a person, window or event in each line.
It is ASCII, so that names with umlauts, odd characters or bytes that are no text come back as they were.
"""

import functools
import json
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import is_dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.timeline.records import Event, Timeline, WindowScores


FORMAT = "clipmg-timeline"
VERSION = 1
# Means of float32 scores may leave [0, 1] by as much.
TOLERANCE = 1e-5
MAX_QUOTED = 60
_RECORDS = ("people", "windows", "events")
_KINDS = {int: "a whole number", float: "a finite number", str: "text", dict: "an object"}


def _encode(value: Any) -> Any:
    """Values that `json` does not know; float32 as its shortest decimal, which reads back as the same float32."""
    if isinstance(value, np.ndarray):
        return [float(str(score)) for score in value.astype(np.float32)]
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} has no form in JSON.")


def _dump(value: Any) -> str:
    return json.dumps(value, default=_encode, allow_nan=False)


def _dump_records(records: Sequence[Any]) -> str:
    lines = ",\n".join(f"    {_dump(vars(record))}" for record in records)
    return f"[\n{lines}\n  ]" if records else "[]"


def render_json(timeline: Timeline) -> str:
    """Everything of a timeline.

    Raises:
        TypeError: `settings` hold a value that is no JSON.
        ValueError: A number is not finite.
    """
    fields = {
        name: _dump_records(value) if name in _RECORDS else _dump(value) for name, value in vars(timeline).items()
    }
    fields = {"format": _dump(FORMAT), "version": _dump(VERSION), **fields}
    return "{\n" + ",\n".join(f'  "{name}": {text}' for name, text in fields.items()) + "\n}\n"


class _Problem(Exception):
    """What is wrong, starting with the name of the field."""


def _quote(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}..."


def _is_kind(value: Any, kind: type) -> bool:
    """Whether a JSON value is of a plain kind; booleans are no numbers, and numbers are finite."""
    if isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _convert_list(value: Any, kind: Any, where: str) -> Any:
    """A JSON list as an array or as a tuple of the annotated kind."""
    if not isinstance(value, list):
        raise _Problem(f"{where} is {_quote(value)}; expected a list.")
    if kind is np.ndarray and all(_is_kind(item, float) for item in value):
        return np.array(value, np.float32)
    kinds = (float, ...) if kind is np.ndarray else typing.get_args(kind)
    if kinds[-1] is not ... and len(value) != len(kinds):
        raise _Problem(f"{where} has {len(value)} values; expected {len(kinds)}.")
    return tuple(_convert(item, kinds[0], f"{where}[{i}]") for i, item in enumerate(value))


def _convert(value: Any, kind: Any, where: str) -> Any:
    """A JSON value as a field of the annotated kind.

    Raises:
        _Problem: It is something else.
    """
    origin = typing.get_origin(kind) or kind
    if origin is types.UnionType:
        return None if value is None else _convert(value, typing.get_args(kind)[0], where)
    if origin in (tuple, np.ndarray):
        return _convert_list(value, kind, where)
    if is_dataclass(kind):
        return _convert_record(value, typing.cast(type, kind), where)
    if not _is_kind(value, origin):
        raise _Problem(f"{where} is {_quote(value)}; expected {_KINDS[origin]}.")
    return float(value) if origin is float else value


_get_kinds = functools.cache(typing.get_type_hints)


def _convert_record(value: Any, kind: type, where: str) -> Any:
    """A JSON object as a dataclass."""
    if not isinstance(value, dict):
        raise _Problem(f"{where} is {_quote(value)}; expected an object.")
    kinds = _get_kinds(kind)
    prefix = f"{where}." if where else ""
    if missing := [name for name in kinds if name not in value]:
        raise _Problem(f"{prefix}{missing[0]} is missing.")
    if unknown := [name for name in value if name not in kinds]:
        raise _Problem(f"{prefix}{unknown[0]} is no field; expected {', '.join(kinds)}.")
    return kind(**{name: _convert(value[name], hint, prefix + name) for name, hint in kinds.items()})


def _check_ranges(record: WindowScores | Event, where: str) -> None:
    """Raise for a window or event with a share outside [0, 1], or an end before its start."""
    for field in ("score", "gate", "pose_share"):
        share = getattr(record, field, None)
        if share is not None and not -TOLERANCE <= share <= 1 + TOLERANCE:
            raise _Problem(f"{where}.{field} is {share}; expected 0 to 1.")
    for field, least in (
        ("person", 0),
        ("start", 0),
        ("start_seconds", 0),
        ("end", record.start),
        ("end_seconds", record.start_seconds),
    ):
        if (value := getattr(record, field)) < least:
            raise _Problem(f"{where}.{field} is {value}; expected at least {least}.")


def _check(timeline: Timeline) -> None:
    """Raise where fields leave their ranges or disagree with the labels."""
    labels = timeline.labels
    for i, window in enumerate(timeline.windows):
        _check_ranges(window, f"windows[{i}]")
        if len(window.scores) != len(labels):
            raise _Problem(f"windows[{i}].scores has {len(window.scores)} values; expected {len(labels)}, as labels.")
        if not (abs(window.scores - 0.5) <= 0.5 + TOLERANCE).all():
            raise _Problem(f"windows[{i}].scores is {_quote(window.scores.tolist())}; expected 0 to 1.")
    for i, event in enumerate(timeline.events):
        _check_ranges(event, f"events[{i}]")
        if not 0 <= event.label_id < len(labels):
            raise _Problem(
                f"events[{i}].label_id is {event.label_id}; expected the place of one of {len(labels)} labels."
            )
        if event.label != (expected := labels[event.label_id]):
            raise _Problem(f"events[{i}].label is {_quote(event.label)}; expected {_quote(expected)}.")


def read_timeline(path: str | PathLike) -> Timeline:
    """Read a timeline that was written as JSON; it equals the written one.

    Args:
        path (`str` or `PathLike`): The file.

    Raises:
        DatasetFormatError: No such file, no JSON, another format or version, or a field that is missing, unknown, of
            another kind, out of its range or in disagreement with others; names the file and the field.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DatasetFormatError(f"{path}: no such file; expected a timeline as JSON.") from error
    except (ValueError, RecursionError) as error:
        raise DatasetFormatError(f"{path}: no JSON ({error}); expected a timeline as JSON.") from error
    try:
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise _Problem(f'"format" is not "{FORMAT}"; expected a timeline as JSON.')
        if (version := document.pop("version", None)) != VERSION or isinstance(version, bool):
            raise _Problem(f"version is {_quote(version)}; expected {VERSION}.")
        timeline = _convert_record(document, Timeline, "")
        _check(timeline)
    except _Problem as problem:
        raise DatasetFormatError(f"{path}: {problem}") from problem
    return timeline


__all__ = ["FORMAT", "VERSION", "read_timeline", "render_json"]

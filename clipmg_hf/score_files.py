"""Scores of an evaluation in a file: written once, then measured, fused with other runs, or submitted.

    write_scores(scores, "run.parquet")
    fused = fuse_scores(["rgb.parquet", "pose.parquet"], weights=[2, 1])
    write_submission(fused, "submission.csv", form="2025")

A file is Parquet, which pandas and `datasets` read too: columns clip_id, video_id, label and logits, a row for each
clip, and the other fields of [`Scores`] as JSON under the key "clipmg_scores" of the schema.
"""

import dataclasses
import itertools
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipmg_hf.data.labels import BACKGROUND_LABEL
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.schema import HIDDEN_LABEL
from clipmg_hf.files import complete_file, write_file
from clipmg_hf.metrics import log_softmax


logger = logging.getLogger(__name__)

METADATA_KEY = b"clipmg_scores"
MAX_NAMED = 5
CLIP_ID = re.compile(r"(.+)_(\d+)", re.ASCII)


def _name_some(clip_ids: Iterable[str]) -> str:
    """Count and first names of clips."""
    clips = list(clip_ids)
    more = ", ..." if len(clips) > MAX_NAMED else ""
    return f"{len(clips)} clips ({', '.join(map(str, clips[:MAX_NAMED]))}{more})"


def _join(values: Iterable[str | None]) -> str | None:
    """The different values in order, or None if there is none."""
    return " + ".join(dict.fromkeys(value for value in values if value is not None)) or None


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of every clip of a split, and where they come from. N is the number of clips, L that of the classes.

    Args:
        clip_ids, video_ids (`list[str]` of length N): Unique clips, and the video of each.
        logits (`numpy.ndarray` of shape `(N, L)`): Kept as float32.
        labels (`numpy.ndarray` of shape `(N,)`): True classes in [0, L - 1], or -1 where they are hidden.
        label_names (`list[str]` of length L): Names of the classes.
        checkpoint (`str`): Folder or Hub name of the model.
        revision (`str`, *optional*): Commit of a model on the Hub.
        data_fingerprint (`str`, *optional*): Fingerprint of the rows.
        split (`str`, *optional*): Name of the split.
        views (`int`, defaults to 1): Views of a clip whose scores were averaged.

    Raises:
        DatasetFormatError: No clip, lengths that disagree, a clip twice, a label out of range, or a score that is
            not finite; names the clips.
    """

    clip_ids: list[str]
    video_ids: list[str]
    logits: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    checkpoint: str
    revision: str | None = None
    data_fingerprint: str | None = None
    split: str | None = None
    views: int = 1

    def __post_init__(self) -> None:
        for name, value in (
            ("clip_ids", list(self.clip_ids)),
            ("video_ids", list(self.video_ids)),
            ("logits", np.asarray(self.logits, np.float32)),
            ("labels", np.asarray(self.labels, np.int64)),
            ("label_names", list(self.label_names)),
        ):
            object.__setattr__(self, name, value)
        num_clips, num_labels = len(self.clip_ids), len(self.label_names)
        shapes = (len(self.video_ids), self.logits.shape, self.labels.shape)
        if not num_clips or shapes != (num_clips, (num_clips, num_labels), (num_clips,)):
            raise DatasetFormatError(
                f"{num_clips} clip_ids, {shapes[0]} video_ids, logits {shapes[1]}, labels {shapes[2]} and "
                f"{num_labels} label_names; expected N, N, (N, L), (N,) and L with N at least 1."
            )
        self._check_values()

    def _check_values(self) -> None:
        num_labels = len(self.label_names)
        clip_ids = np.array(self.clip_ids, object)
        out_of_range = (self.labels < HIDDEN_LABEL) | (self.labels >= num_labels)
        found = {
            "are there more than once": [name for name, count in Counter(self.clip_ids).items() if count > 1],
            f"have labels outside {HIDDEN_LABEL}..{num_labels - 1}": clip_ids[out_of_range],
            "have scores that are not finite": clip_ids[~np.isfinite(self.logits).all(axis=1)],
        }
        if problems := [f"{_name_some(clips)} {problem}." for problem, clips in found.items() if len(clips)]:
            raise DatasetFormatError("Scores: " + " ".join(problems))


def write_scores(scores: Scores, path: str | os.PathLike) -> Path:
    """Write scores as Parquet, all of it or nothing.

    Args:
        scores (`Scores`): What to write.
        path (`str` or `PathLike`): The file; one that is there is replaced, folders are made.
    """
    table = pa.table(
        {
            "clip_id": pa.array(scores.clip_ids, pa.string()),
            "video_id": pa.array(scores.video_ids, pa.string()),
            "label": pa.array(scores.labels, pa.int64()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(scores.logits.reshape(-1)), len(scores.label_names)),
        }
    )
    columns = ("clip_ids", "video_ids", "logits", "labels")
    metadata = {
        field.name: getattr(scores, field.name) for field in dataclasses.fields(scores) if field.name not in columns
    }
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    path = _make_folder(path)
    with complete_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return path


def _make_folder(path: str | os.PathLike) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def read_scores(path: str | os.PathLike) -> Scores:
    """Read scores that [`write_scores`] wrote.

    Raises:
        DatasetFormatError: The file is missing, is no such file, or its contents are wrong; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetFormatError(f"{path}: no such file; expected scores as write_scores writes them.")
    try:
        table = pq.read_table(path)
        metadata = json.loads((table.schema.metadata or {})[METADATA_KEY])
        columns = {name: table[name].combine_chunks() for name in ("clip_id", "video_id", "label", "logits")}
        num_labels = len(metadata["label_names"])
        logits = columns["logits"].flatten().to_numpy(zero_copy_only=False)
        return Scores(
            clip_ids=columns["clip_id"].to_pylist(),
            video_ids=columns["video_id"].to_pylist(),
            labels=columns["label"].to_numpy(zero_copy_only=False),
            logits=logits.reshape(len(table), num_labels),
            **metadata,
        )
    except DatasetFormatError as error:
        raise DatasetFormatError(f"{path}: {error}") from error
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DatasetFormatError(f"{path}: {error!r}; expected scores as write_scores writes them.") from error


def _align(first: Scores, other: Scores, first_name: str, other_name: str) -> list[int]:
    """Where the clips of the first run are in the other one; raises where the two cannot be compared."""
    both = f"{other_name} and {first_name}"
    if other.label_names != first.label_names:
        pairs = itertools.zip_longest(other.label_names, first.label_names)
        index, (name, expected) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        raise DatasetFormatError(
            f"{both} have different classes: {len(other.label_names)} and {len(first.label_names)}, class {index} is "
            f"{name!r} and {expected!r}; expected the same names in the same order."
        )
    position = {clip_id: i for i, clip_id in enumerate(other.clip_ids)}
    only_first = [clip_id for clip_id in first.clip_ids if clip_id not in position]
    only_other = set(position).difference(first.clip_ids)
    if only_first or only_other:
        raise DatasetFormatError(
            f"{both} have different clips: {_name_some(sorted(only_other))} only in the one, "
            f"{_name_some(only_first)} only in the other."
        )
    order = [position[clip_id] for clip_id in first.clip_ids]
    for name, same in (
        ("labels", other.labels[order] == first.labels),
        ("videos", np.array(other.video_ids, object)[order] == np.array(first.video_ids, object)),
    ):
        if not same.all():
            clips = np.array(first.clip_ids, object)[~same]
            raise DatasetFormatError(f"{both} have different {name} of {_name_some(clips)}.")
    return order


def _describe(run: Scores) -> str:
    return run.checkpoint if run.revision is None else f"{run.checkpoint}@{run.revision}"


def fuse_scores(
    files: Sequence[str | os.PathLike | Scores],
    weights: Sequence[float] | None = None,
    kind: Literal["probabilities", "logits"] = "probabilities",
) -> Scores:
    """Average the scores of several runs on the same clips (late fusion).

    Args:
        files (`Sequence` of paths or `Scores`): The runs; clips may be in any order.
        weights (`Sequence[float]`, *optional*): Of the runs, not negative; scaled to sum to 1. Equal by default.
        kind (`str`, defaults to `"probabilities"`): `"probabilities"` averages the softmax of the logits, and the
            result's logits are its logarithm; `"logits"` averages the logits.

    Returns:
        `Scores` in the order of the first run; the other fields list those of the runs that have a weight.

    Raises:
        DatasetFormatError: Runs with other classes or another order of them, other clips, videos or labels; says
            which. A label that one run has and another hides is another label.
        ValueError: No run, weights that do not fit, or another `kind`.
    """
    runs = [file if isinstance(file, Scores) else read_scores(file) for file in files]
    names = [f"run {i}" if isinstance(file, Scores) else str(file) for i, file in enumerate(files)]
    if kind not in ("probabilities", "logits"):
        raise ValueError(f"kind is {kind!r}; expected 'probabilities' or 'logits'.")
    shares = np.ones(len(runs)) if weights is None else np.asarray(weights, np.float64)
    if not runs or shares.shape != (len(runs),) or not np.isfinite(shares).all() or min(shares) < 0 or not any(shares):
        raise ValueError(f"{len(runs)} runs with weights {weights}; expected one for each, not negative, not all 0.")
    first = runs[0]
    orders = [_align(first, run, names[0], name) for run, name in zip(runs, names, strict=True)]
    # A run of weight 0 has no logarithm of its share.
    kept = [
        (run, run.logits[order].astype(np.float64), share)
        for run, order, share in zip(runs, orders, shares / shares.sum(), strict=True)
        if share
    ]
    if kind == "logits":
        fused = np.sum([share * logits for _, logits, share in kept], axis=0)
    else:
        fused = np.logaddexp.reduce([np.log(share) + log_softmax(logits) for _, logits, share in kept])
    return dataclasses.replace(
        first,
        logits=fused,
        checkpoint=" + ".join(f"{share:.4g} x {_describe(run)}" for run, _, share in kept),
        revision=None,
        data_fingerprint=_join(run.data_fingerprint for run, *_ in kept),
        split=_join(run.split for run, *_ in kept),
        views=sum(run.views for run, *_ in kept),
    )


def _leave_out_background(scores: Scores) -> Scores:
    """The clips of gestures, with scores of gestures alone; classes keep their numbers."""
    if BACKGROUND_LABEL not in scores.label_names:
        return scores
    background = scores.label_names.index(BACKGROUND_LABEL)
    kept = np.flatnonzero(scores.labels != background)
    logits = scores.logits[kept]
    logger.warning(
        "The submission has no class %r: %d of %d clips are left out, which were made of gaps, and %d of the others "
        "get their highest gesture in place of it.",
        *(BACKGROUND_LABEL, len(scores.labels) - len(kept), len(scores.labels)),
        int((logits.argmax(axis=1) == background).sum()),
    )
    logits[:, background] = logits.min(initial=0) - 1
    return dataclasses.replace(
        scores,
        clip_ids=[scores.clip_ids[place] for place in kept],
        video_ids=[scores.video_ids[place] for place in kept],
        logits=logits,
        labels=scores.labels[kept],
    )


def write_submission(scores: Scores, path: str | os.PathLike, form: Literal["2023", "2025"] = "2025") -> Path:
    """Write the highest class of every clip as a MiGA challenge submission, all of it or nothing.

    The challenge has no class "Background": clips of it are left out, the others get their highest gesture, and a
    warning says how many there are of either.

    Args:
        scores (`Scores`): Clips named `<video>_<number>`; labels are not used.
        path (`str` or `PathLike`): The csv file; one that is there is replaced, folders are made.
        form (`str`, defaults to `"2025"`): `"2023"`: rows such as `0054_0,30`, no header. `"2025"`: the same rows
            after a header `Id,Target`. Classes count from 0; rows go by video, then by the clip's number.

    Raises:
        DatasetFormatError: Clips without a number.
        ValueError: Another `form`.
    """
    if form not in ("2023", "2025"):
        raise ValueError(f"form is {form!r}; expected '2023' or '2025'.")
    scores = _leave_out_background(scores)
    matches = [CLIP_ID.fullmatch(clip_id) for clip_id in scores.clip_ids]
    if unnumbered := [name for name, match in zip(scores.clip_ids, matches, strict=True) if match is None]:
        raise DatasetFormatError(f"{_name_some(unnumbered)} cannot be ordered; expected <video>_<number>.")
    keys = [(video, int(match[2])) for video, match in zip(scores.video_ids, matches, strict=True) if match]
    classes = scores.logits.argmax(axis=1)
    rows = [f"{scores.clip_ids[i]},{classes[i]}" for i in sorted(range(len(keys)), key=keys.__getitem__)]
    lines = ["Id,Target", *rows] if form == "2025" else rows
    path = _make_folder(path)
    write_file(path, "\n".join(lines) + "\n")
    return path


__all__ = ["Scores", "fuse_scores", "read_scores", "write_scores", "write_submission"]

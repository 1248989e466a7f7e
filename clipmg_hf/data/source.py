"""A data set as it was found on a disk: a table of clips, a table of videos, and what there is to say about them.

Finding a data set reads file names and labels only; `examination.examine` opens the rest. Both tables are Arrow: no
Python object is kept for a clip.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipmg_hf.data.schema import HIDDEN_LABEL


PARTS = ("train", "validation", "test")
# What marks the folder of a synthetic data set, and how the description of its rows says so.
SYNTHETIC_FILE, SYNTHETIC_NOTE = "synthetic.json", "synthetic: made by clipmg_hf.data.synthetic."
NOTE_TITLES = ("findings", "assumptions", "missing", "warnings", "skipped")
DESCRIPTION_HEADER = ("part", "videos", "clips", "no label", "RGB", "skeleton", "subjects")
# `part` is the official split; None for videos that belong to none. `num_frames` of a clip's file is not here: the
# interval is known, or, in trimmed data, filled in by `examine` (end_frame -1 until then).
CLIP_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("video_id", pa.string()),
        ("start_frame", pa.int32()),
        ("end_frame", pa.int32()),
        ("label", pa.int32()),
        ("video", pa.string()),
        ("video_start_frame", pa.int32()),
    ]
)
VIDEO_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("part", pa.string()),
        ("subject", pa.int32()),
        ("emotion", pa.int32()),
        ("gender", pa.string()),
        ("nationality", pa.string()),
        ("video", pa.string()),
        ("skeleton", pa.string()),
        ("skeleton_kind", pa.string()),
        ("num_frames", pa.int32()),
        ("fps", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


Columns: TypeAlias = dict[str, list]


def make_table(columns: Columns, schema: pa.Schema) -> pa.Table:
    """Make a table of `schema`; columns that are not given are empty."""
    size = len(next(iter(columns.values()), []))
    arrays = [pa.array(columns.get(field.name, [None] * size), field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


@dataclass(frozen=True)
class DataSource:
    """A data set on a disk.

    Args:
        name (`str`): `"iMiGUE"`, `"SMG"` or `"MA-52"`.
        layout (`str`): Which of its layouts was found, in words.
        root (`Path`): The folder.
        clips (`pyarrow.Table`): `CLIP_SCHEMA`, sorted by video; labels are canonical, -1 where hidden.
        videos (`pyarrow.Table`): `VIDEO_SCHEMA`; every video of `clips` once, in the same order.
        label_names, label_groups (`tuple[str, ...]`): Name of each class, and name of its group.
        group_names (`tuple[str, ...]`): The groups in order.
        keypoint_layout (`str` or `None`): Layout of the skeletons; `None` without any.
        known_counts (`Mapping`): Published numbers of videos and clips for each part and for `"all"`; `None` where
            unknown.
        findings (`tuple[str, ...]`): What was found out about the files, one sentence each.
        assumptions (`tuple[str, ...]`): What the files do not tell, and what is assumed instead.
        missing (`tuple[str, ...]`): What is not there, one sentence each.
        skipped (`tuple[str, ...]`): Problems whose clips were left out (`on_error="skip"`).
        fingerprint_files (`tuple[str, ...]`): Files whose change changes the data.
    """

    name: str
    layout: str
    root: Path
    clips: pa.Table
    videos: pa.Table
    label_names: tuple[str, ...]
    label_groups: tuple[str, ...]
    group_names: tuple[str, ...]
    keypoint_layout: str | None
    known_counts: Mapping[str, tuple[int | None, int]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    fingerprint_files: tuple[str, ...] = ()

    @property
    def parts(self) -> np.ndarray:
        """(num_clips,) str: the official part of each clip, "" for none."""
        parts = np.array(pc.fill_null(self.videos["part"], "").to_pylist(), dtype=object)
        return parts[self.video_indices]

    @property
    def video_indices(self) -> np.ndarray:
        """(num_clips,) int64: row of `videos` of each clip."""
        return pc.index_in(self.clips["video_id"], value_set=self.videos["video_id"]).to_numpy().astype(np.int64)

    def select_videos(self, keep: np.ndarray) -> "DataSource":
        """Keep the videos where `keep` (num_videos,) bool is true, and their clips."""
        clip_mask = keep[self.video_indices]
        return dataclasses.replace(
            self, videos=self.videos.filter(pa.array(keep)), clips=self.clips.filter(pa.array(clip_mask))
        )

    def describe(self) -> "Description":
        """Count what is there and compare it with the published numbers."""
        return describe(self)


@dataclass(frozen=True)
class PartCounts:
    """Numbers of one part: videos, clips, clips without label, with RGB and with a skeleton, known subjects."""

    name: str
    num_videos: int | None
    num_clips: int
    num_hidden: int
    num_with_video: int
    num_with_skeleton: int
    num_subjects: int
    known_videos: int | None = None
    known_clips: int | None = None


@dataclass(frozen=True)
class Description:
    """What was found, what is missing, and how the counts compare with the published ones; `str()` is a report."""

    name: str
    layout: str
    root: str
    parts: tuple[PartCounts, ...]
    findings: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [list(DESCRIPTION_HEADER), *(describe_counts(part) for part in self.parts)]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines = [f"{self.name}: {self.layout}", self.root, ""]
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
            lines.append("  ".join(cells))
        for title in NOTE_TITLES:
            if entries := getattr(self, title):
                lines += ["", f"{title}:", *(f"  - {entry}" for entry in entries)]
        return "\n".join(lines)


def describe_counts(part: PartCounts) -> list[str]:
    """The cells of one row of the description's table; "20 of 241" is what was found of what was published."""
    totals = ((part.num_videos, part.known_videos), (part.num_clips, part.known_clips))
    counts = (part.num_hidden, part.num_with_video, part.num_with_skeleton, part.num_subjects)
    return [
        part.name,
        *(("?" if found is None else f"{found:,}") + (f" of {known:,}" if known else "") for found, known in totals),
        *(f"{count:,}" if count else "-" for count in counts),
    ]


def describe(source: DataSource) -> Description:
    """See [`DataSource.describe`]."""
    indices, parts, videos = source.video_indices, source.parts, source.videos
    hidden = source.clips["label"].to_numpy() == HIDDEN_LABEL
    has_video = pc.is_valid(source.clips["video"]).to_numpy(zero_copy_only=False)
    has_skeleton = pc.is_valid(videos["skeleton"]).to_numpy(zero_copy_only=False)[indices]
    video_parts = np.array(pc.fill_null(videos["part"], "").to_pylist(), dtype=object)
    subjects = pc.fill_null(videos["subject"], -1).to_numpy()
    names = [part for part in PARTS if part in set(video_parts) or part in source.known_counts]
    rows, warnings = [], []
    for name in [*names, *(["no part"] if "" in set(video_parts) else []), "all"]:
        in_videos = np.ones(len(videos), bool) if name == "all" else video_parts == ("" if name == "no part" else name)
        in_clips = np.ones(len(parts), bool) if name == "all" else parts == ("" if name == "no part" else name)
        known_videos, known_clips = source.known_counts.get(name, (None, None))
        found_videos, found_clips = int(in_videos.sum()), int(in_clips.sum())
        rows.append(
            PartCounts(
                name,
                found_videos,
                found_clips,
                int(hidden[in_clips].sum()),
                int(has_video[in_clips].sum()),
                int(has_skeleton[in_clips].sum()),
                len(set(subjects[in_videos]) - {-1}),
                known_videos,
                known_clips,
            )
        )
        found = {"videos": (found_videos, known_videos), "clips": (found_clips, known_clips)}
        if differing := [what for what, (here, known) in found.items() if known is not None and here != known]:
            counts = " and ".join(f"{found[what][0]:,} {what}" for what in differing)
            known_counts = " and ".join(f"{found[what][1]:,}" for what in differing)
            warnings.append(f"{name}: {counts}; the published data has {known_counts}.")
    return Description(
        source.name,
        source.layout,
        str(source.root),
        tuple(rows),
        source.findings,
        source.assumptions,
        source.missing,
        tuple(warnings),
        source.skipped,
    )


def fingerprint(source: DataSource, version: str) -> str:
    """Digest of the relative paths, sizes and times of every file that the rows depend on, and of a version."""
    digest = hashlib.sha256(version.encode())
    for path in sorted(source.fingerprint_files):
        status = Path(path).stat()
        digest.update(f"{os.path.relpath(path, source.root)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


__all__ = [
    "CLIP_SCHEMA",
    "PARTS",
    "SYNTHETIC_FILE",
    "SYNTHETIC_NOTE",
    "VIDEO_SCHEMA",
    "DataSource",
    "Description",
    "PartCounts",
    "describe",
    "describe_counts",
    "fingerprint",
    "make_table",
]

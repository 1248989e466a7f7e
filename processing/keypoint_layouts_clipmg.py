"""Keypoint layouts: which point of a person stands at which index, how points mirror, and conversion between layouts.

A point has the same name in every layout, so layouts convert by name. Left and right are the person's own; indices
are 0-based. K is the number of points of a layout; keypoints are arrays (..., K, 3): x, y in pixels of the source
frame, then a confidence above 0 and nominally at most 1. A missing point is (0, 0, 0).
"""

import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np


Edges = tuple[tuple[int, int], ...]
NamedEdges = tuple[tuple[str, str], ...]

# Runs of the 68 iBUG face points and OpenPose's two pupils in which the numbers of a point and its mirror image have a
# fixed sum. Points 27 to 30, the bridge of the nose, are their own mirror images.
_FACE_MIRROR_SUMS = (
    (range(0, 17), 16),  # jaw
    (range(17, 27), 43),  # brows
    (range(31, 36), 66),  # nostrils
    ((36, 37, 38, 39, 42, 43, 44, 45), 81),  # upper lids and corners of the eyes
    ((40, 41, 46, 47), 87),  # lower lids
    (range(48, 55), 102),  # outer lips, upper
    (range(55, 60), 114),  # outer lips, lower
    (range(60, 65), 124),  # inner lips, upper
    (range(65, 68), 132),  # inner lips, lower
    ((68, 69), 137),  # pupils
)
_FACE_MIRROR = {f"face_{i}": f"face_{total - i}" for points, total in _FACE_MIRROR_SUMS for i in points}

# The midpoints of two points. OpenPose learned neck and mid_hip from annotations of COCO as such; point 0 of a hand is
# its wrist, hence a point of the body.
_DERIVED_KEYPOINTS = {
    "neck": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
    "left_hand_0": ("left_wrist", "left_wrist"),
    "right_hand_0": ("right_wrist", "right_wrist"),
}


def _mirror_name(name: str) -> str:
    side, _, part = name.partition("_")
    if side in ("left", "right"):
        return f"{'right' if side == 'left' else 'left'}_{part}"
    return _FACE_MIRROR.get(name, name)


@dataclass(frozen=True)
class KeypointLayout:
    """The named points of a person in their order, and the lines that join them in a drawing.

    Args:
        name: Name of the layout, such as "imigue-22".
        keypoints: K unique point names; a "left_" point needs its "right_" one, a face point its mirror image.
        edges: Pairs of different indices into `keypoints`, each in [0, K).

    Raises:
        ValueError: A name comes twice or without its mirror image, or an edge does not join two points.
    """

    name: str
    keypoints: tuple[str, ...]
    edges: Edges

    def __post_init__(self) -> None:
        if repeated := sorted({name for name in self.keypoints if self.keypoints.count(name) > 1}):
            raise ValueError(f"Layout {self.name!r} has keypoints with the same name: {', '.join(repeated)}.")
        if unpaired := [name for name in self.keypoints if _mirror_name(name) not in self.keypoints]:
            raise ValueError(f"Layout {self.name!r} lacks the mirror images of: {', '.join(unpaired)}.")
        for first, second in self.edges:
            if first == second or not {first, second} <= set(range(self.num_keypoints)):
                limit = self.num_keypoints - 1
                raise ValueError(
                    f"Layout {self.name!r}: edge {(first, second)} does not join two of points 0 to {limit}."
                )

    @property
    def num_keypoints(self) -> int:
        """K."""
        return len(self.keypoints)

    @property
    def flip_permutation(self) -> np.ndarray:
        """(K,) int64: `keypoints[..., flip_permutation, :]` gives each point the values of its mirror image.

        Half of a horizontal flip; the other half mirrors x. The permutation is its own inverse.
        """
        indices = {name: index for index, name in enumerate(self.keypoints)}
        return np.array([indices[_mirror_name(name)] for name in self.keypoints], dtype=np.int64)

    @property
    def flip_pairs(self) -> Edges:
        """The pairs of indices that change places in a horizontal flip, smaller index first, in ascending order."""
        return tuple((index, int(other)) for index, other in enumerate(self.flip_permutation) if index < other)

    def index(self, name: str) -> int:
        """The index in [0, K) of the point `name`; a ValueError when the layout lacks it."""
        if name not in self.keypoints:
            known = _summarize_names(self.keypoints)
            raise ValueError(
                f"Layout {self.name!r} has no keypoint {name!r}.{_hint(name, self.keypoints)} Known: {known}."
            )
        return self.keypoints.index(name)


def _hint(name: str, known: Iterable[str]) -> str:
    return "".join(f" Did you mean {match!r}?" for match in difflib.get_close_matches(name, list(known), n=1))


def _summarize_names(names: Iterable[str]) -> str:
    """Names joined by commas; three or more that differ in their final number only become "first..last (count)"."""
    parts: list[str] = []
    for _, group in itertools.groupby(names, key=lambda name: re.sub(r"\d+$", "", name)):
        members = list(group)
        parts += members if len(members) < 3 else [f"{members[0]}..{members[-1]} ({len(members)})"]
    return ", ".join(parts)


def _numbered(stem: str, numbers: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"{stem}_{number}" for number in numbers)


def _chain(*names: str) -> NamedEdges:
    return tuple(itertools.pairwise(names))


def _star(center: str, ends: Iterable[str]) -> NamedEdges:
    return tuple((center, end) for end in ends)


def _layout(name: str, keypoints: tuple[str, ...], edges: NamedEdges) -> KeypointLayout:
    return KeypointLayout(
        name, keypoints, tuple((keypoints.index(start), keypoints.index(end)) for start, end in edges)
    )


# fmt: off
_BODY_25 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)
_COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)
# Kinect v2. Its neck and the base of its spine are not the points that OpenPose calls neck and mid_hip, so they have
# names of their own, and those two are derived.
_KINECT_25 = (
    "spine_base", "spine_mid", "kinect_neck", "head",
    "left_shoulder", "left_elbow", "left_wrist", "left_hand",
    "right_shoulder", "right_elbow", "right_wrist", "right_hand",
    "left_hip", "left_knee", "left_ankle", "left_foot", "right_hip", "right_knee", "right_ankle", "right_foot",
    "spine_shoulder", "left_hand_tip", "left_thumb", "right_hand_tip", "right_thumb",
)
# MediaPipe's pose landmarks. The corners of the eyes and of the mouth are points of the face; its knuckles and the tip
# of its foot are learned as such and are no points of another layout.
_MEDIAPIPE_33 = (
    "nose", "face_42", "left_eye", "face_45", "face_39", "right_eye", "face_36", "left_ear", "right_ear",
    "face_54", "face_48", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_little_knuckle", "right_little_knuckle", "left_index_knuckle", "right_index_knuckle",
    "left_thumb_knuckle", "right_thumb_knuckle", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle", "left_heel", "right_heel", "left_foot_tip", "right_foot_tip",
)
_FEET_6 = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
# fmt: on
_UPPER_BODY_12 = _BODY_25[:8] + _BODY_25[15:19]
_LEFT_HAND, _RIGHT_HAND = _numbered("left_hand", range(21)), _numbered("right_hand", range(21))
# Thumb to little finger; point 0 of a hand is its wrist.
_LEFT_TIPS, _RIGHT_TIPS = _LEFT_HAND[4::4], _RIGHT_HAND[4::4]
_FACE_12 = _numbered("face", (2, 4, 8, 12, 14, 19, 24, 27, 48, 51, 54, 57))

_UPPER_BODY_EDGES = (
    *_chain("nose", "neck", "right_shoulder", "right_elbow", "right_wrist"),
    *_chain("neck", "left_shoulder", "left_elbow", "left_wrist"),
    *_chain("nose", "right_eye", "right_ear"),
    *_chain("nose", "left_eye", "left_ear"),
)
_FEET_EDGES = (
    *_chain("left_heel", "left_ankle", "left_big_toe", "left_small_toe"),
    *_chain("right_heel", "right_ankle", "right_big_toe", "right_small_toe"),
)
_BODY_25_EDGES = (
    *_UPPER_BODY_EDGES,
    *_chain("neck", "mid_hip", "right_hip", "right_knee", "right_ankle"),
    *_chain("mid_hip", "left_hip", "left_knee", "left_ankle"),
    *_FEET_EDGES,
)
_COCO_17_EDGES = (
    *_chain("left_ankle", "left_knee", "left_hip", "right_hip", "right_knee", "right_ankle"),
    *_chain("left_hip", "left_shoulder", "right_shoulder", "right_hip"),
    *_chain("left_shoulder", "left_elbow", "left_wrist"),
    *_chain("right_shoulder", "right_elbow", "right_wrist"),
    *_chain("left_shoulder", "left_ear", "left_eye", "nose", "right_eye", "right_ear", "right_shoulder"),
    ("left_eye", "right_eye"),
)
_KINECT_25_EDGES = (
    *_chain("spine_base", "spine_mid", "spine_shoulder", "kinect_neck", "head"),
    *_chain("spine_shoulder", "left_shoulder", "left_elbow", "left_wrist", "left_hand", "left_hand_tip"),
    *_chain("spine_shoulder", "right_shoulder", "right_elbow", "right_wrist", "right_hand", "right_hand_tip"),
    *_chain("left_wrist", "left_thumb"),
    *_chain("right_wrist", "right_thumb"),
    *_chain("spine_base", "left_hip", "left_knee", "left_ankle", "left_foot"),
    *_chain("spine_base", "right_hip", "right_knee", "right_ankle", "right_foot"),
)
_MEDIAPIPE_33_EDGES = (
    *_chain("right_ear", "face_36", "right_eye", "face_39", "nose", "face_42", "left_eye", "face_45", "left_ear"),
    *_chain("nose", "face_48", "face_54", "nose"),
    ("left_ear", "left_shoulder"),
    ("right_ear", "right_shoulder"),
    *_chain("left_hip", "left_shoulder", "right_shoulder", "right_hip", "left_hip"),
    *_chain("left_shoulder", "left_elbow", "left_wrist", "left_little_knuckle", "left_index_knuckle", "left_wrist"),
    *_chain("left_wrist", "left_thumb_knuckle"),
    *_chain("right_shoulder", "right_elbow", "right_wrist", "right_little_knuckle", "right_index_knuckle"),
    *_chain("right_index_knuckle", "right_wrist", "right_thumb_knuckle"),
    *_chain("left_hip", "left_knee", "left_ankle", "left_heel", "left_foot_tip", "left_ankle"),
    *_chain("right_hip", "right_knee", "right_ankle", "right_heel", "right_foot_tip", "right_ankle"),
)
# Jaw, brows, bridge of the nose, nostrils; then the closed rings: eyes, outer lips, inner lips.
_FACE_RUNS = (range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36))
_FACE_RINGS = tuple((*ring, ring[0]) for ring in (range(36, 42), range(42, 48), range(48, 60), range(60, 68)))
_FACE_EDGES = tuple(edge for run in (*_FACE_RUNS, *_FACE_RINGS) for edge in _chain(*_numbered("face", run)))
_WRIST_EDGES = (("left_wrist", "left_hand_0"), ("right_wrist", "right_hand_0"))
_FINGERS = [(hand[0], *hand[base : base + 4]) for hand in (_LEFT_HAND, _RIGHT_HAND) for base in range(1, 21, 4)]
_HAND_EDGES = _WRIST_EDGES + tuple(edge for finger in _FINGERS for edge in _chain(*finger))
_TIP_EDGES = _star("left_wrist", _LEFT_TIPS) + _star("right_wrist", _RIGHT_TIPS)
_IMIGUE_36_EDGES = (
    *_UPPER_BODY_EDGES,
    *_WRIST_EDGES,
    *_star("left_hand_0", _LEFT_TIPS),
    *_star("right_hand_0", _RIGHT_TIPS),
    *_chain("right_ear", "face_2", "face_4", "face_8", "face_12", "face_14", "left_ear"),
    *_chain("right_eye", "face_19", "face_27", "face_24", "left_eye"),
    *_chain("face_48", "face_51", "face_54", "face_57", "face_48"),
    *_chain("face_27", "nose", "face_51"),
)

_FACE_68, _FACE_70 = _numbered("face", range(68)), _numbered("face", range(70))
_OPENPOSE_EDGES, _WHOLEBODY_EDGES = (
    body + _FACE_EDGES + _HAND_EDGES for body in (_BODY_25_EDGES, _COCO_17_EDGES + _FEET_EDGES)
)
LAYOUTS: dict[str, KeypointLayout] = {
    layout.name: layout
    for layout in (
        _layout("openpose-137", _BODY_25 + _FACE_70 + _LEFT_HAND + _RIGHT_HAND, _OPENPOSE_EDGES),
        _layout("openpose-body25", _BODY_25, _BODY_25_EDGES),
        _layout("imigue-22", _UPPER_BODY_12 + _LEFT_TIPS + _RIGHT_TIPS, _UPPER_BODY_EDGES + _TIP_EDGES),
        _layout("imigue-36", _UPPER_BODY_12 + _FACE_12 + _LEFT_HAND[::4] + _RIGHT_HAND[::4], _IMIGUE_36_EDGES),
        # A row of iMiGUE's `_light_hand.csv`, whose reader has to check which hand comes first.
        _layout("imigue-light-35", _BODY_25 + _LEFT_TIPS + _RIGHT_TIPS, _BODY_25_EDGES + _TIP_EDGES),
        _layout("coco-17", _COCO_17, _COCO_17_EDGES),
        _layout("coco-wholebody-133", _COCO_17 + _FEET_6 + _FACE_68 + _LEFT_HAND + _RIGHT_HAND, _WHOLEBODY_EDGES),
        _layout("mediapipe-33", _MEDIAPIPE_33, _MEDIAPIPE_33_EDGES),
        _layout("kinect-25", _KINECT_25, _KINECT_25_EDGES),
    )
}


def get_layout(name: str) -> KeypointLayout:
    """The layout called `name`; a ValueError that lists the known names when there is none."""
    if name not in LAYOUTS:
        raise ValueError(f"Unknown keypoint layout {name!r}.{_hint(name, LAYOUTS)} Known: {', '.join(LAYOUTS)}.")
    return LAYOUTS[name]


def layout_from_count(num_keypoints: int, preferred: str | None = None) -> KeypointLayout:
    """The layout with `num_keypoints` points.

    Args:
        num_keypoints: K.
        preferred: Name of the layout to take where several have as many points.

    Raises:
        ValueError: No layout has as many points, the message lists the known counts; or several have, the message
            names them, and the preferred one is none of them.
    """
    candidates = {name: layout for name, layout in LAYOUTS.items() if layout.num_keypoints == num_keypoints}
    if not candidates:
        known = ", ".join(f"{layout.num_keypoints} ({name})" for name, layout in LAYOUTS.items())
        raise ValueError(f"No keypoint layout has {num_keypoints} points. Known: {known}.")
    if preferred not in candidates and len(candidates) > 1:
        raise ValueError(
            f"{num_keypoints} points may be those of {' or '.join(candidates)}; expected the layout's name "
            "(source_layout of arrays, keypoint_layout of data sets)."
        )
    return candidates[preferred] if preferred in candidates else next(iter(candidates.values()))


def valid_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """Which points are there: confidence above 0 and not both coordinates 0, as a missing point is (0, 0, 0).

    Args:
        keypoints: (..., K, 3) x, y and confidence, in any unit; the result is (..., K) bool.
    """
    return (keypoints[..., 2] > 0) & (keypoints[..., :2] != 0).any(axis=-1)


def _midpoint(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., 3) x2 -> (..., 3): mean position and smaller confidence; (0, 0, 0) where either point is missing."""
    midpoint = (first + second) / 2
    midpoint[..., 2] = np.minimum(first[..., 2], second[..., 2])
    midpoint[~(valid_keypoints(first) & valid_keypoints(second))] = 0
    return midpoint


def describe_conversion(source: str | KeypointLayout, target: str | KeypointLayout) -> tuple[str, ...]:
    """Names of the points of `target` that `source` neither has nor lets derive, in the order of `target`.

    These are the points that `convert_keypoints` reports, or masks with `missing_keypoints="mask"`.

    Args:
        source: Layout to convert from, or its name.
        target: Layout to convert to, or its name.

    Raises:
        ValueError: Unknown layout.
    """
    source = get_layout(source) if isinstance(source, str) else source
    target = get_layout(target) if isinstance(target, str) else target
    given = set(source.keypoints)
    given |= {name for name, parts in _DERIVED_KEYPOINTS.items() if given.issuperset(parts)}
    return tuple(name for name in target.keypoints if name not in given)


def convert_keypoints(
    keypoints: np.ndarray,
    source: str | KeypointLayout,
    target: str | KeypointLayout,
    *,
    missing_keypoints: Literal["error", "mask"] = "error",
) -> np.ndarray:
    """Pick and reorder points by name, from the layout `source` to the layout `target`.

    Four points are derived where the source lacks them: "neck" is the midpoint of the shoulders, "mid_hip" that of the
    hips; point 0 of a hand is the wrist of the body. A derived point has the smaller confidence of the two and is
    missing when either is.

    Args:
        keypoints: (..., K_source, 3) x, y and confidence, floating point.
        source: Layout of `keypoints`, or its name.
        target: Layout to return, or its name.
        missing_keypoints: "error", or "mask" to return points that the source cannot give as missing, (0, 0, 0).

    Returns:
        (..., K_target, 3), a new array with the type and unit of `keypoints`.

    Raises:
        ValueError: Unknown layout, wrong shape or type; under "error", points that the source cannot give.
    """
    source = get_layout(source) if isinstance(source, str) else source
    target = get_layout(target) if isinstance(target, str) else target
    if missing_keypoints not in ("error", "mask"):
        raise ValueError(f"missing_keypoints is {missing_keypoints!r}, expected 'error' or 'mask'.")
    if keypoints.shape[-2:] != (source.num_keypoints, 3) or not np.issubdtype(keypoints.dtype, np.floating):
        needed = f"layout {source.name!r} needs floating point values of shape (..., {source.num_keypoints}, 3)"
        raise ValueError(f"keypoints are {keypoints.dtype} of shape {keypoints.shape}; {needed}.")

    columns = {name: keypoints[..., index, :] for index, name in enumerate(source.keypoints)}
    for name, (first, second) in _DERIVED_KEYPOINTS.items():
        if name in target.keypoints and name not in columns and first in columns and second in columns:
            columns[name] = _midpoint(columns[first], columns[second])

    absent = describe_conversion(source, target)
    if absent and missing_keypoints == "error":
        raise ValueError(
            f"Layout {target.name!r} has {len(absent)} keypoints that {source.name!r} lacks: "
            f"{_summarize_names(absent)}. With missing_keypoints='mask' they become missing points."
        )
    nothing = np.zeros((*keypoints.shape[:-2], 3), dtype=keypoints.dtype)
    return np.stack([columns.get(name, nothing) for name in target.keypoints], axis=-2)


__all__ = [
    "LAYOUTS",
    "KeypointLayout",
    "convert_keypoints",
    "describe_conversion",
    "get_layout",
    "layout_from_count",
    "valid_keypoints",
]

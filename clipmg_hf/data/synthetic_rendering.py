"""Draws the interview scenes of the synthetic data set with numpy alone.

Shapes are given by signed distances (negative inside, in pixels), evaluated only inside their bounding box, so edges
are anti-aliased and a 320 x 180 frame takes about 2 ms on one core. Pictures are planar while they are drawn: float32
(3, height, width), red, green, blue in [0, 255]. Coordinates are x, y in pixels, integers at pixel centres. Sizes
are written in units (`unit` pixels each): one pixel of a 320 x 180 frame at camera zoom 1.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


Color = tuple[float, float, float]
Array = NDArray[Any]

# Indices of openpose-137 that the drawing uses.
NECK = 1
SHOULDERS, ELBOWS, WRISTS, HIPS = (2, 5), (3, 6), (4, 7), (9, 12)  # right, left
FACE, HANDS = 25, (116, 95)  # first face point; first point of the right, left hand

# The camera moves in steps of 1 / SHAKE_STEPS pixel: the backdrop is resampled once per step, not per frame.
SHAKE_STEPS = 4
MARGIN = 32  # pixels of backdrop beyond each border, the room for camera shake

SKIN_COLORS: tuple[Color, ...] = (
    (236, 196, 168),
    (222, 174, 140),
    (198, 146, 110),
    (160, 110, 78),
    (122, 80, 56),
    (94, 62, 46),
)
HAIR_COLORS: tuple[Color, ...] = (
    (38, 30, 28),
    (74, 50, 36),
    (122, 84, 48),
    (176, 138, 80),
    (134, 130, 128),
    (112, 52, 36),
)
CLOTH_COLORS: tuple[Color, ...] = (
    (58, 82, 128),
    (120, 52, 60),
    (64, 104, 84),
    (84, 84, 96),
    (206, 204, 196),
    (134, 104, 148),
    (186, 148, 86),
    (40, 50, 66),
)
WALL_COLORS: tuple[Color, ...] = (
    (170, 178, 188),
    (188, 176, 160),
    (134, 152, 164),
    (154, 168, 150),
    (110, 118, 136),
    (178, 160, 168),
)
# One colour for all hats and one for all objects, in nothing else: a small model without pre-training must learn from
# a few hundred clips to see them, and cannot learn the many looks that a pre-trained CLIP knows.
HAT_COLOR: Color = (120, 230, 40)
PROP_COLOR: Color = (240, 30, 200)
PROP_SCALE = 1.35  # units of an object for one of the body
PROP_KINDS = ("bottle", "phone", "pen")
PATTERNS = ("panels", "logos", "shelf", "frames")


@dataclass(frozen=True)
class PersonStyle:
    """What a subject looks like; the proportions of the body come with the keypoints."""

    skin: Color
    hair: Color
    cloth: Color
    shirt: Color
    hat: Color
    long_hair: bool
    beard: bool
    brim_side: int  # -1, 1: a cap turned to a side; 0: a brim all around
    sleeve: float  # share of the forearm that is covered

    @classmethod
    def random(cls, rng: np.random.Generator) -> "PersonStyle":
        """Draw a subject."""
        cloth, shirt = rng.permutation(len(CLOTH_COLORS))[:2]
        return cls(
            skin=_vary(SKIN_COLORS[rng.integers(len(SKIN_COLORS))], 8, rng),
            hair=_vary(HAIR_COLORS[rng.integers(len(HAIR_COLORS))], 8, rng),
            cloth=_vary(CLOTH_COLORS[cloth], 12, rng),
            shirt=_vary(CLOTH_COLORS[shirt], 12, rng),
            hat=_vary(HAT_COLOR, 8, rng),
            long_hair=bool(rng.random() < 0.45),
            beard=bool(rng.random() < 0.25),
            brim_side=int(rng.integers(-1, 2)),
            sleeve=float(rng.choice((0.0, 0.7))),
        )


@dataclass(frozen=True)
class SceneStyle:
    """The room of one video: backdrop, furniture and what moves behind the subject."""

    wall: Color
    accent: Color
    pattern: str
    desk: Color
    chair: Color
    chair_x: float  # pixels
    desk_top: float  # pixels from the upper border
    microphone: float | None  # x in pixels
    lamp: tuple[float, float] | None  # x in pixels, swings per second
    walkers: tuple[tuple[float, float, float, Color], ...]  # start x, span, crossings per second, colour
    seed: int = 0  # of the backdrop's details

    @classmethod
    def random(
        cls, rng: np.random.Generator, width: int, unit: float, desk_top: float, subject_x: float
    ) -> "SceneStyle":
        """Draw a room around a subject at `subject_x`, for a frame that is `width` pixels wide."""
        side = float(rng.choice((-1, 1)))
        walkers = [
            (
                float(rng.uniform(0.0, 1.0) * width),
                float(rng.uniform(0.2, 0.6) * width),
                float(rng.uniform(0.05, 0.25)),
                _vary(CLOTH_COLORS[rng.integers(len(CLOTH_COLORS))], 20, rng),
            )
            for _ in range(rng.choice(3, p=(0.4, 0.45, 0.15)))
        ]
        return cls(
            wall=_vary(WALL_COLORS[rng.integers(len(WALL_COLORS))], 14, rng),
            accent=_vary(CLOTH_COLORS[rng.integers(len(CLOTH_COLORS))], 20, rng),
            pattern=PATTERNS[rng.integers(len(PATTERNS))],
            desk=_vary((132, 98, 70), 18, rng),
            chair=_vary((70, 66, 72), 16, rng),
            chair_x=subject_x + float(rng.uniform(-10, 10)) * unit,
            desk_top=desk_top,
            microphone=subject_x + side * float(rng.uniform(44, 60)) * unit if rng.random() < 0.6 else None,
            lamp=(width / 2 - side * 0.36 * width, float(rng.uniform(0.3, 0.8))) if rng.random() < 0.5 else None,
            walkers=tuple(walkers),
            seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class Prop:
    """A small saturated object."""

    kind: str
    color: Color
    angle: float  # radians from upright, clockwise

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Prop":
        """Draw an object."""
        return cls(PROP_KINDS[rng.integers(len(PROP_KINDS))], PROP_COLOR, float(rng.uniform(-0.5, 0.5)))


@dataclass(frozen=True)
class ClipStyle:
    """What changes from clip to clip: worn and present objects."""

    hat: bool
    held: Prop | None
    on_desk: tuple[tuple[float, Prop], ...]  # x in pixels


class Canvas:
    """A planar picture in which every shape is blended over what is already there.

    Shapes work on flat lists of the P pixels in their box: at these sizes numpy spends its time on starting rows.
    """

    def __init__(self, pixels: Array) -> None:
        self.pixels = pixels  # (3, height, width)
        self.gain = 1.0  # lighting, multiplies every colour
        self.height, self.width = pixels.shape[1:]
        grid = np.meshgrid(np.arange(self.width), np.arange(self.height))
        self._grid = np.stack([*grid, np.ones_like(grid[0])]).astype(np.float32)  # (3, height, width): x, y, 1

    def _box(self, points: Array, margin: float) -> tuple[slice, slice] | None:
        """The visible rows and columns around `points` (K, 2); None when nothing of them is visible."""
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        rows = slice(max(math.floor(top - margin), 0), min(math.ceil(bottom + margin) + 1, self.height))
        columns = slice(max(math.floor(left - margin), 0), min(math.ceil(right + margin) + 1, self.width))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def _lines(self, box: tuple[slice, slice], normals: Array, origins: Array) -> Array:
        """Signed distances (K, P) of the pixels from K lines, given by unit normals (K, 2) and points (K, 2)."""
        offsets = -(normals * origins).sum(1, keepdims=True)
        return np.concatenate([normals, offsets], 1) @ self._grid[:, box[0], box[1]].reshape(3, -1)

    def _blend(self, box: tuple[slice, slice], distance: Array, color: Color, rim: float, rim_shade: float) -> None:
        """Paint where `distance` (P,) is negative; the colour darkens to `rim_shade` over the outer `rim` pixels."""
        alpha = 0.5 - distance
        np.minimum(np.maximum(alpha, 0.0, out=alpha), 1.0, out=alpha)
        region = self.pixels[:, box[0], box[1]]
        paint = region.reshape(3, -1)
        paint *= 1.0 - alpha
        if rim > 0:
            distance *= -(1.0 - rim_shade) / rim
            distance += rim_shade
            alpha *= np.minimum(np.maximum(distance, rim_shade, out=distance), 1.0, out=distance)
        paint += np.array([[value * self.gain] for value in color], dtype=np.float32) * alpha
        region[...] = paint.reshape(region.shape)

    def capsules(
        self, segments: ArrayLike, radii: ArrayLike, color: Color, rim: float = 0.0, rim_shade: float = 0.6
    ) -> None:
        """Draw the union of tapered capsules: `segments` (K, 2, 2) end points, `radii` (K, 2) at the two ends."""
        ends, radius = np.asarray(segments, dtype=np.float32), np.asarray(radii, dtype=np.float32)
        box = self._box(ends.reshape(-1, 2), float(radius.max()) + 1)
        if box is None:
            return
        start, axis = ends[:, 0], ends[:, 1] - ends[:, 0]
        axis[:, 0] += np.float32(1e-3)  # a capsule without length still has a direction
        length = np.sqrt((axis * axis).sum(1, keepdims=True))  # (K, 1)
        axis /= length
        normal = np.stack([-axis[:, 1], axis[:, 0]], 1)
        both = self._lines(box, np.concatenate([axis, normal]), np.concatenate([start, start]))
        along, across = both[: len(ends)], both[len(ends) :]
        inside = np.minimum(np.maximum(along, 0.0), length)
        along -= inside
        along *= along
        across *= across
        across += along
        np.sqrt(across, out=across)
        inside *= (radius[:, :1] - radius[:, 1:]) / length
        across += inside
        across -= radius[:, :1]
        self._blend(box, _union(across), color, rim, rim_shade)

    def ellipses(
        self,
        centers: ArrayLike,
        radii: tuple[float, float],
        color: Color,
        roll: float = 0.0,
        rim: float = 0.0,
        keep_above: float | None = None,
    ) -> None:
        """Draw equal ellipses at `centers` (K, 2), turned by `roll`; `keep_above`: only the part above that height.

        `keep_above` is measured from the centre along the ellipse's own downward axis, in pixels.
        """
        center = np.asarray(centers, dtype=np.float32)
        box = self._box(center, max(radii) + 1)
        if box is None:
            return
        scale = np.array([[1 / radii[0]], [1 / radii[1]]], dtype=np.float32).repeat(len(center), 0)
        axes = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]], dtype=np.float32)
        both = self._lines(box, axes.repeat(len(center), 0) * scale, np.concatenate([center, center]))
        squares = both * both
        distance = np.sqrt(squares[: len(center)] + squares[len(center) :])
        distance -= 1.0
        distance *= min(radii)
        if keep_above is not None:
            np.maximum(distance, both[len(center) :] * radii[1] - keep_above, out=distance)
        self._blend(box, _union(distance), color, rim, 0.72)

    def polygon(self, vertices: ArrayLike, color: Color, rim: float = 0.0, radius: float = 0.0) -> None:
        """Draw a convex polygon, given clockwise on the screen as (V, 2) and grown by `radius`."""
        corner = np.asarray(vertices, dtype=np.float32)
        box = self._box(corner, radius + 1)
        if box is None:
            return
        edge = corner[[*range(1, len(corner)), 0]] - corner
        normal = np.stack([edge[:, 1], -edge[:, 0]], 1) / np.sqrt((edge * edge).sum(1, keepdims=True))
        distance = self._lines(box, normal, corner).max(0)
        distance -= np.float32(radius)
        self._blend(box, distance, color, rim, 0.72)


@dataclass
class SceneRenderer:
    """Renders the frames of one video."""

    width: int
    height: int
    unit: float  # pixels
    person: PersonStyle
    scene: SceneStyle
    _phases: NDArray[np.uint8] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._phases = _shifted_backdrops(_backdrop(self))
        self._canvas = Canvas(np.empty((3, self.height, self.width), dtype=np.float32))

    def render(self, points: Array, clip: ClipStyle, shake: Array, gain: float, seconds: float) -> NDArray[np.uint8]:
        """One frame, (height, width, 3) uint8 RGB.

        `points`: noise-free keypoints (137, 2), camera shake included; `shake`: the camera's offset (2,), pixels, a
        multiple of 1 / SHAKE_STEPS; `gain`: lighting; `seconds`: time, moves what is behind the subject.
        """
        whole = np.floor(shake).astype(int)
        phase = np.rint((shake - whole) * SHAKE_STEPS).astype(int)
        rows = slice(MARGIN - whole[1], MARGIN - whole[1] + self.height)
        columns = slice(MARGIN - whole[0], MARGIN - whole[0] + self.width)
        canvas = self._canvas
        canvas.gain = gain
        np.multiply(self._phases[phase[1], phase[0], :, rows, columns], np.float32(gain), out=canvas.pixels)
        self._draw_behind(canvas, points, shake, seconds)
        self._draw_trunk(canvas, points, self.scene.desk_top + float(shake[1]) + 2)
        self._draw_head(canvas, points, clip.hat)
        self._draw_desk(canvas, clip, shake)
        self._draw_arms(canvas, points, clip.held)
        frame = np.empty((self.height, self.width, 3), dtype=np.uint8)
        for channel, values in enumerate(canvas.pixels.astype(np.uint8)):
            frame[..., channel] = values
        return frame

    def _draw_behind(self, canvas: Canvas, points: Array, shake: Array, seconds: float) -> None:
        unit, floor = self.unit, self.scene.desk_top + shake[1]
        for start, span, rate, color in self.scene.walkers:
            x = start + span * math.sin(2 * math.pi * rate * seconds) + shake[0]
            head = (x, floor - 78 * unit + 1.5 * unit * math.sin(9 * rate * seconds))
            canvas.ellipses([head], (9 * unit, 12 * unit), (150, 124, 108), rim=3 * unit)
            canvas.capsules([[[x, floor - 50 * unit], [x, floor]]], [[14 * unit, 18 * unit]], color, rim=5 * unit)
        if self.scene.lamp is not None:
            x, rate = self.scene.lamp
            swing = 10 * unit * math.sin(2 * math.pi * rate * seconds)
            bulb = (x + shake[0] + swing, 30 * unit + shake[1])
            canvas.capsules([[[x + shake[0], -4.0], bulb]], [[0.8 * unit, 0.8 * unit]], (60, 56, 54))
            canvas.ellipses([bulb], (10 * unit, 7 * unit), (238, 222, 170), rim=4 * unit)

    def _draw_trunk(self, canvas: Canvas, points: Array, floor: float) -> None:
        unit, style = self.unit, self.person
        neck, right, left = points[NECK], points[SHOULDERS[0]], points[SHOULDERS[1]]
        # The desk hides what is below its top.
        share = (floor - neck[1]) / (points[HIPS[0], 1] - neck[1])
        waist = right + share * (points[HIPS[0]] - right), left + share * (points[HIPS[1]] - left)
        outline = [
            right + np.array([-5, -8]) * unit,
            neck + np.array([-9, -13]) * unit,
            neck + np.array([9, -13]) * unit,
            left + np.array([5, -8]) * unit,
            waist[1] + np.array([10, 0]) * unit,
            waist[0] + np.array([-10, 0]) * unit,
        ]
        face = points[FACE + 8]
        if style.long_hair:
            crown = (points[FACE] + points[FACE + 16]) / 2
            canvas.capsules([[crown, neck + np.array([0, 2]) * unit]], [[18 * unit, 17 * unit]], style.hair, 5 * unit)
        canvas.polygon(outline, style.cloth, rim=6 * unit)
        collar = [
            neck + np.array([-8, -13]) * unit,
            neck + np.array([8, -13]) * unit,
            neck + np.array([0, 22]) * unit,
        ]
        canvas.polygon(collar, style.shirt, rim=2 * unit, radius=1.5 * unit)
        throat = neck + np.array([0, -6]) * unit
        canvas.capsules(
            [[(face + neck) / 2 + np.array([0, -6]) * unit, throat]], [[7.5 * unit, 8 * unit]], style.skin, 5 * unit
        )

    def _draw_head(self, canvas: Canvas, points: Array, hat: bool) -> None:
        style, face = self.person, points[FACE : FACE + 70]
        temples = face[16] - face[0]
        half = float(np.hypot(*temples)) / 2
        roll = math.atan2(float(temples[1]), float(temples[0]))
        right, down = np.array((math.cos(roll), math.sin(roll))), np.array((-math.sin(roll), math.cos(roll)))
        center, shade = (face[0] + face[16]) / 2, _scale(style.skin, 0.72)
        canvas.ellipses(
            center - 0.12 * half * down[None], (1.13 * half, 1.38 * half), style.hair, roll, rim=0.25 * half
        )
        canvas.ellipses([face[0], face[16]], (0.2 * half, 0.32 * half), shade, roll)
        canvas.ellipses(center[None], (half, 1.33 * half), style.skin, roll, rim=0.35 * half)
        if style.beard:
            chin = center + 0.72 * half * down
            canvas.ellipses(chin[None], (0.66 * half, 0.6 * half), _scale(style.hair, 1.15), roll, rim=0.3 * half)
        self._draw_face(canvas, face, half, roll)
        hairline = -0.62 * half
        crown = center - 0.1 * half * down
        canvas.ellipses(crown[None], (1.12 * half, 1.38 * half), style.hair, roll, 0.25 * half, hairline)
        if hat:
            top = center - 0.3 * half * down
            canvas.ellipses(top[None], (1.2 * half, 1.42 * half), style.hat, roll, 0.3 * half, -0.28 * half)
            reach = (1.2 + 0.6 * max(-style.brim_side, 0), 1.2 + 0.6 * max(style.brim_side, 0))
            if style.brim_side == 0:
                reach = (1.75, 1.75)
            band = center - 0.55 * half * down
            ends = [[band - reach[0] * half * right, band + reach[1] * half * right]]
            canvas.capsules(ends, [[0.13 * half, 0.13 * half]], _scale(style.hat, 0.7))

    def _draw_face(self, canvas: Canvas, face: Array, half: float, roll: float) -> None:
        style = self.person
        eyes = np.stack([face[36:42].mean(0), face[42:48].mean(0)])
        opening = float(np.abs(face[[41, 40]] - face[[37, 38]]).sum()) / 2
        canvas.ellipses(
            eyes, (0.24 * half, max(0.5 * opening, 0.5)), (238, 236, 230) if opening > 1 else style.hair, roll
        )
        if opening > 1:
            canvas.ellipses(face[68:70], (0.115 * half, min(0.13 * half, 0.5 * opening)), (44, 34, 30), roll)
        brows = face[[[17, 20], [26, 23]]]
        canvas.capsules(brows, [[0.05 * half, 0.08 * half]] * 2, _scale(style.hair, 0.9))
        nose = np.stack([face[[28, 30]], face[[32, 34]]])
        canvas.capsules(nose, [[0.04 * half, 0.09 * half], [0.07 * half, 0.07 * half]], _scale(style.skin, 0.78))
        mouth = face[48:60]
        width, height = math.dist(mouth[6], mouth[0]), math.dist(mouth[9], mouth[3])
        lips = (0.82 * style.skin[0], 0.55 * style.skin[1], 0.56 * style.skin[2])
        canvas.ellipses(mouth.mean(0)[None], (0.5 * width, max(0.5 * height, 0.5)), lips, roll)
        gap = math.dist(face[66], face[62])
        inner = face[60:68].mean(0)[None]
        canvas.ellipses(inner, (0.4 * width, max(0.5 * gap, 0.4)), _scale(lips, 0.45), roll)

    def _draw_desk(self, canvas: Canvas, clip: ClipStyle, shake: Array) -> None:
        unit, top = self.unit, self.scene.desk_top + float(shake[1])
        first = min(max(math.ceil(top), 0), self.height)
        desk = np.array(self.scene.desk, dtype=np.float32)[:, None, None] * np.float32(canvas.gain)
        canvas.pixels[:, first:] = desk
        canvas.pixels[:, first : first + max(round(2 * unit), 1)] *= np.float32(1.25)
        if self.scene.microphone is not None:
            x = self.scene.microphone + float(shake[0])
            foot, head = top + 9 * unit, top - 24 * unit
            parts = [
                [[x, foot], [x, head]],
                [[x - 6 * unit, foot], [x + 6 * unit, foot]],
                [[x, head], [x, head - 7 * unit]],
            ]
            canvas.capsules(parts, np.array([(1.5, 1.5), (1.5, 1.5), (4.0, 4.5)]) * unit, (52, 52, 57), unit)
        for x, prop in clip.on_desk:
            self._draw_prop(canvas, prop, *place_on_desk(prop, x + shake[0], top, unit))

    def _draw_arms(self, canvas: Canvas, points: Array, held: Prop | None) -> None:
        unit, style = self.unit, self.person
        for side in (1, 0):
            shoulder, elbow, wrist = (points[joint[side]] for joint in (SHOULDERS, ELBOWS, WRISTS))
            cuff = elbow + style.sleeve * (wrist - elbow)
            width = 6.4 - 2.0 * style.sleeve
            canvas.capsules([[cuff, wrist]], [[width * unit, 4.4 * unit]], style.skin, 3.5 * unit)
            sleeve = [[shoulder, elbow], [elbow, cuff]]
            taper = 6.8 - 1.2 * style.sleeve
            canvas.capsules(sleeve, [[10 * unit, 7.4 * unit], [7.4 * unit, taper * unit]], style.cloth, 5 * unit, 0.55)
            if held is not None and side == 0:
                self._draw_prop(canvas, held, place_in_hands(points, unit), held.angle)
            self._draw_hand(canvas, points[HANDS[side] : HANDS[side] + 21])

    def _draw_hand(self, canvas: Canvas, hand: Array) -> None:
        chains = [(0, 5), (0, 9), (0, 13), (0, 17), (0, 2), (2, 4)]
        chains += [pair for knuckle in (5, 9, 13, 17) for pair in ((knuckle, knuckle + 1), (knuckle + 1, knuckle + 3))]
        radii = [(3.8, 2.4)] * 4 + [(3.2, 2.2), (2.2, 1.7)] + [(2.2, 1.9), (1.9, 1.5)] * 4
        canvas.capsules(hand[np.array(chains)], np.array(radii) * self.unit, self.person.skin, 2.2 * self.unit, 0.62)

    def _draw_prop(self, canvas: Canvas, prop: Prop, at: Array, angle: float) -> None:
        unit = PROP_SCALE * self.unit
        up = np.array((math.sin(angle), -math.cos(angle))) * unit
        side = np.array((-up[1], up[0]))
        if prop.kind == "bottle":
            canvas.capsules([[at - 10 * up, at + 9 * up]], [[5.5 * unit, 5.0 * unit]], prop.color, 2.5 * unit)
            canvas.capsules([[at + 12 * up, at + 17 * up]], [[2.4 * unit, 2.4 * unit]], _scale(prop.color, 0.6))
            canvas.capsules(
                [[at - 3 * up - 3 * side, at - 3 * up + 3 * side]], [[2 * unit, 2 * unit]], (236, 236, 230)
            )
        elif prop.kind == "phone":
            corners = [
                at + 12 * up - 6 * side,
                at + 12 * up + 6 * side,
                at - 12 * up + 6 * side,
                at - 12 * up - 6 * side,
            ]
            canvas.polygon(corners, prop.color, radius=unit)
            canvas.polygon([at + 0.75 * (corner - at) for corner in corners], _scale(prop.color, 0.45))
        else:
            canvas.capsules([[at - 13 * up, at + 16 * up]], [[2.8 * unit, 2.8 * unit]], prop.color, unit)
            canvas.capsules([[at + 16 * up, at + 20 * up]], [[2.2 * unit, 0.6 * unit]], (52, 50, 52))


def place_in_hands(points: Array, unit: float) -> Array:
    """The middle (2,) of a held object, in pixels: above the middle knuckles of both hands."""
    return (points[HANDS[0] + 9] + points[HANDS[1] + 9]) / 2 - np.array([0, 7]) * unit


def place_on_desk(prop: Prop, x: float, edge: float, unit: float) -> tuple[Array, float]:
    """The middle (2,) in pixels and the angle of an object on a desk whose upper edge is at `edge`: bottles stand."""
    upright = prop.kind == "bottle"
    height = -10 * unit if upright else 6 * unit
    return np.array((x, edge + height)), 0.0 if upright else 1.35 + prop.angle / 4


def _union(distances: Array) -> Array:
    return distances[0] if len(distances) == 1 else distances.min(0)


def _vary(color: Color, amount: float, rng: np.random.Generator) -> Color:
    """A colour near the given one, bright at most so that lighting cannot clip it."""
    red, green, blue = np.clip(np.array(color) + rng.uniform(-amount, amount, 3), 12, 240).tolist()
    return red, green, blue


def _scale(color: Color, factor: float) -> Color:
    red, green, blue = (min(value * factor, 240.0) for value in color)
    return red, green, blue


def _backdrop(renderer: SceneRenderer) -> Array:
    """The static wall with its pattern, (3, height + 2 MARGIN, width + 2 MARGIN)."""
    scene, unit = renderer.scene, renderer.unit
    rng = np.random.default_rng(scene.seed)
    shape = (3, renderer.height + 2 * MARGIN, renderer.width + 2 * MARGIN)
    light = np.linspace(1.08, 0.86, shape[1], dtype=np.float32)[:, None] * np.linspace(
        0.95, 1.04, shape[2], dtype=np.float32
    )
    pixels = np.asarray(scene.wall, dtype=np.float32)[:, None, None] * np.ones(shape, dtype=np.float32)
    canvas, bottom = Canvas(pixels), scene.desk_top + MARGIN
    draw = {"panels": _panels, "logos": _logos, "shelf": _shelf, "frames": _frames}[scene.pattern]
    draw(canvas, scene, unit, bottom, rng)
    middle = MARGIN + scene.chair_x
    back = [[middle - 24 * unit, bottom - 62 * unit], [middle + 24 * unit, bottom - 62 * unit]]
    back += [[middle + 28 * unit, bottom + 4], [middle - 28 * unit, bottom + 4]]
    canvas.polygon(back, scene.chair, rim=4 * unit, radius=10 * unit)
    return np.minimum(pixels * light, 236)


def _panels(canvas: Canvas, scene: SceneStyle, unit: float, bottom: float, rng: np.random.Generator) -> None:
    step = rng.uniform(24, 44) * unit
    for index, left in enumerate(np.arange(0, canvas.width, step)):
        tone = _scale(scene.wall, 0.93 if index % 2 else 1.05)
        canvas.polygon(
            [[left, -4], [left + step - 2, -4], [left + step - 2, bottom], [left, bottom]], tone, rim=3 * unit
        )


def _logos(canvas: Canvas, scene: SceneStyle, unit: float, bottom: float, rng: np.random.Generator) -> None:
    step = rng.uniform(34, 46) * unit
    for row, y in enumerate(np.arange(0.5 * step, bottom, 0.7 * step)):
        for column, x in enumerate(np.arange((0.5 + 0.5 * (row % 2)) * step, canvas.width, step)):
            if (row + column) % 2:
                canvas.ellipses([(x, y)], (7 * unit, 7 * unit), scene.accent)
                canvas.ellipses([(x, y)], (3 * unit, 3 * unit), scene.wall)
            else:
                bars = [[[x - 10 * unit, y - 3 * unit], [x + 10 * unit, y - 3 * unit]]]
                bars += [[[x - 10 * unit, y + 3 * unit], [x + 4 * unit, y + 3 * unit]]]
                canvas.capsules(bars, np.full((2, 2), 1.6 * unit), _scale(scene.accent, 0.8))


def _shelf(canvas: Canvas, scene: SceneStyle, unit: float, bottom: float, rng: np.random.Generator) -> None:
    for floor in np.arange(44 * unit, bottom + 44 * unit, 44 * unit):
        x = 4.0
        while x < canvas.width:
            thickness, tall = rng.uniform(4, 9) * unit, rng.uniform(22, 34) * unit
            color = _scale(_vary(CLOTH_COLORS[rng.integers(len(CLOTH_COLORS))], 20, rng), 0.8)
            book = [[x, floor - tall], [x + thickness, floor - tall], [x + thickness, floor], [x, floor]]
            canvas.polygon(book, color, rim=1.5 * unit)
            x += thickness + (rng.uniform(8, 26) * unit if rng.random() < 0.15 else 0.6)
        canvas.polygon(
            [[-4, floor], [canvas.width + 4, floor], [canvas.width + 4, floor + 4 * unit], [-4, floor + 4 * unit]],
            (96, 74, 56),
        )


def _frames(canvas: Canvas, scene: SceneStyle, unit: float, bottom: float, rng: np.random.Generator) -> None:
    for x in np.arange(0.12, 1.0, 0.25) * canvas.width + rng.uniform(-8, 8) * unit:
        wide, tall, y = *(rng.uniform(14, 24, 2) * unit), rng.uniform(36, 64) * unit
        corners = np.array([[x - wide, y - tall], [x + wide, y - tall], [x + wide, y + tall], [x - wide, y + tall]])
        canvas.polygon(corners, (58, 50, 46), rim=2 * unit, radius=2.5 * unit)
        canvas.polygon(corners, _vary(scene.accent, 40, rng))
        canvas.ellipses([(x, y)], (0.5 * wide, 0.5 * tall), _vary(scene.wall, 40, rng))
    canvas.polygon(
        [[-4, 0.8 * bottom], [canvas.width + 4, 0.8 * bottom], [canvas.width + 4, bottom], [-4, bottom]],
        _scale(scene.wall, 0.8),
    )


def _shifted_backdrops(backdrop: Array) -> NDArray[np.uint8]:
    """The backdrop moved right and down by every sub-pixel step: (y steps, x steps, 3, rows, columns) uint8."""
    shares = np.arange(SHAKE_STEPS, dtype=np.float32) / SHAKE_STEPS
    left, up = np.roll(backdrop, 1, axis=2), np.roll(backdrop, 1, axis=1)
    corner = np.roll(left, 1, axis=1)
    rows = [
        [(1 - v) * ((1 - h) * backdrop + h * left) + v * ((1 - h) * up + h * corner) for h in shares] for v in shares
    ]
    return np.rint(np.array(rows)).astype(np.uint8)


__all__ = [
    "PROP_SCALE",
    "SHAKE_STEPS",
    "Canvas",
    "ClipStyle",
    "PersonStyle",
    "Prop",
    "SceneRenderer",
    "SceneStyle",
    "place_in_hands",
    "place_on_desk",
]

"""How the subjects of the synthetic data set move: idle movement, gestures, and the 137 keypoints that follow.

Symbols: N frames of a video, n frames of a clip. A body unit is a pixel of a 320 x 180 frame at camera zoom 1; body
coordinates are x right, y down from the middle between the shoulders at rest. Side 0 is the subject's right (left in
the picture), side 1 the left.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


Array = NDArray[Any]

_OUTWARD = np.array([-1.0, 1.0], dtype=np.float32)  # x direction away from the body, right and left side


@dataclass(frozen=True)
class Body:
    """Proportions of a subject and where the camera puts it: body units, except `unit` and `origin` in pixels."""

    shoulder: float  # half the width
    upper_arm: float
    forearm: float
    neck: float  # shoulder line to chin
    head: float  # half the width between the temples
    hand: float
    trunk: float
    rest: float  # half the distance between the resting wrists
    unit: float
    origin: tuple[float, float]

    @classmethod
    def random(cls, rng: np.random.Generator, camera: np.random.Generator, width: int, height: int) -> "Body":
        """Proportions from `rng`, the position in a frame of width x height pixels from `camera`."""
        scale = min(width / 320, height / 180)
        size = rng.uniform(0.94, 1.06)
        zoom = camera.uniform(0.92, 1.1)
        return cls(
            shoulder=size * rng.uniform(35, 41),
            upper_arm=size * rng.uniform(46, 51),
            forearm=size * rng.uniform(41, 46),
            neck=size * rng.uniform(12, 15),
            head=size * rng.uniform(14.5, 16.5),
            hand=size * rng.uniform(20, 23),
            trunk=size * 92,
            rest=rng.uniform(20, 28),
            unit=scale * zoom,
            origin=(
                width / 2 + scale * camera.uniform(-16, 16),
                0.49 * height + scale * camera.uniform(-3, 7),
            ),
        )


@dataclass(frozen=True)
class Motion:
    """What a subject does, frame by frame; gestures change their own frames in place."""

    lean: Array  # (N,) shoulders to the side
    lift: Array  # (N, 2) each shoulder upwards
    head: Array  # (N, 2) offset of the head
    roll: Array  # (N,) radians
    yaw: Array  # (N,) -1..1, positive turns to the right of the picture
    lids: Array  # (N,) opening of the eyes, 0..1
    talk: Array  # (N,) opening of the mouth, 0..1
    press: Array  # (N,) compression of the lips, 0..1
    wrists: Array  # (N, 2, 2) per side
    aims: Array  # (N, 2, 2) where the fingers point to ...
    aim_weight: Array  # (N, 2) ... against along the forearm, 0..1
    curl: Array  # (N, 2) of the fingers, 0..1


@dataclass(frozen=True)
class _Gesture:
    """The frames of one clip with its own random numbers."""

    rows: slice
    seconds: Array  # (n,)
    envelope: Array  # (n,) onset, hold, offset: 0..1
    rng: np.random.Generator

    def wave(self, low: float, high: float) -> Array:
        """A sine of a random frequency between two, in Hz."""
        frequency, phase = self.rng.uniform(low, high), self.rng.uniform(0, 2 * math.pi)
        return np.sin(2 * math.pi * frequency * self.seconds + phase)


def wander(rng: np.random.Generator, num_frames: int, period: float) -> Array:
    """A smooth aperiodic signal in [-1, 1] that changes over about `period` frames."""
    rate = rng.uniform(0.6, 1.6, (3, 1)) / period
    phase = rng.uniform(0, 1, (3, 1))
    return np.sin(2 * math.pi * (rate * np.arange(num_frames) + phase)).mean(0).astype(np.float32)


def animate(
    body: Body,
    labels: list[tuple[int, int, int]],
    num_frames: int,
    fps: int,
    idle: np.random.Generator,
    gestures: Sequence[np.random.Generator],
) -> Motion:
    """Idle movement with the gestures of all clips (class, first, last frame) laid over it.

    `gestures`: one generator per clip. A class draws the same numbers as the one that it shares its movement with.
    """
    motion = _idle_motion(body, num_frames, fps, idle)
    for (label, start, end), rng in zip(labels, gestures, strict=True):
        num = end - start + 1
        ramp = rng.integers(5, 8)
        rise = np.clip(np.minimum(np.arange(1, num + 1), np.arange(num, 0, -1)) / ramp, 0, 1)
        clip = _Gesture(slice(start, end + 1), np.arange(num) / fps, rise * rise * (3 - 2 * rise), rng)
        talks = rng.random() < (0.8 if label == 31 else 0.45)
        speech = np.abs(clip.wave(1.6, 2.4) * clip.wave(0.5, 0.9))
        tension = max(rng.uniform(-1.0, 0.95), 0.0)
        if talks and label != 28:
            motion.talk[clip.rows] = clip.envelope * speech
        elif label != 28:
            # Tight lips that keep still: one frame must not give class 28 away.
            motion.press[clip.rows] = clip.envelope * tension
        _GESTURES[label](motion, body, clip)
    return motion


def _idle_motion(body: Body, num_frames: int, fps: int, rng: np.random.Generator) -> Motion:
    """Breathing, swaying, blinking and resting hands that never keep still."""

    def drift(seconds: float, amplitude: float) -> Array:
        return amplitude * wander(rng, num_frames, seconds * fps)

    breath = 0.5 * np.sin(2 * math.pi * rng.uniform(0.25, 0.4) * np.arange(num_frames) / fps + rng.uniform(0, 6))
    lids = np.ones(num_frames, dtype=np.float32)
    for blink in np.flatnonzero(rng.random(num_frames) < 0.35 / fps):
        lids[blink : blink + 4] = 0.1
    wrists = np.empty((num_frames, 2, 2), dtype=np.float32)
    for side in range(2):
        wrists[:, side, 0] = _OUTWARD[side] * body.rest + drift(7, 6) + drift(1.2, 1.5)
        wrists[:, side, 1] = 68 + drift(7, 3) + drift(1.2, 1.0)
    return Motion(
        lean=drift(5, 2.5),
        lift=np.stack([breath, breath], 1).astype(np.float32) + np.stack([drift(6, 1.2), drift(6, 1.2)], 1),
        head=np.stack([drift(2.5, 2.5), drift(2.5, 1.5)], 1),
        roll=drift(4, 0.08),
        yaw=np.float32(rng.uniform(-0.25, 0.25)) + drift(4, 0.55),
        lids=lids,
        talk=np.zeros(num_frames, dtype=np.float32),
        press=np.zeros(num_frames, dtype=np.float32),
        wrists=wrists,
        aims=np.zeros((num_frames, 2, 2), dtype=np.float32),
        aim_weight=np.zeros((num_frames, 2), dtype=np.float32),
        curl=np.stack([0.35 + drift(3, 0.3), 0.35 + drift(3, 0.3)], 1),
    )


def _reach(
    motion: Motion, clip: _Gesture, side: int, target: Array, aim: Array | None = None, curl: float | None = None
) -> None:
    """Move one hand to `target` (n, 2) with the fingers towards `aim` (n, 2) while the clip lasts."""
    wrist = motion.wrists[clip.rows, side]
    wrist += clip.envelope[:, None] * (target - wrist)
    if aim is not None:
        motion.aims[clip.rows, side] = aim
        motion.aim_weight[clip.rows, side] = clip.envelope
    if curl is not None:
        motion.curl[clip.rows, side] += clip.envelope * (curl - motion.curl[clip.rows, side])


def _touch_head(motion: Motion, body: Body, clip: _Gesture) -> None:
    rng, side = clip.rng, int(clip.rng.integers(2))
    out, center = _OUTWARD[side], _head_center(motion, body)[clip.rows]
    scratch = 2.4 * clip.wave(1.8, 3.0)
    place = body.head * np.array((out * rng.uniform(1.1, 1.5), -rng.uniform(0.5, 1.0)))
    target = center + place + np.stack([scratch, 0.4 * scratch], 1)
    aim = center + body.head * np.array((out * 0.4, -1.4)) + np.stack([scratch, 0 * scratch], 1)
    _reach(motion, clip, side, target, aim, rng.uniform(0.0, 0.3))


def _touch_neck(motion: Motion, body: Body, clip: _Gesture) -> None:
    rng, side = clip.rng, int(clip.rng.integers(2))
    out, center = _OUTWARD[side], _head_center(motion, body)[clip.rows]
    rub = 2.2 * clip.wave(1.2, 2.4)
    throat = center + np.array((out * 0.35, 1.75)) * body.head
    target = throat + np.array((out * rng.uniform(14, 18), rng.uniform(9, 13))) + np.stack([0.3 * rub, rub], 1)
    _reach(motion, clip, side, target, throat + np.stack([0 * rub, rub], 1), rng.uniform(0.1, 0.4))


def _fold_arms(motion: Motion, body: Body, clip: _Gesture) -> None:
    upper = int(clip.rng.integers(2))
    height = clip.rng.uniform(34, 42)
    for side in range(2):
        x = -_OUTWARD[side] * clip.rng.uniform(10, 15)
        y = height + (0 if side == upper else 9)
        target = np.stack([x + motion.lean[clip.rows], np.full_like(clip.seconds, y)], 1)
        aim = target + np.array((-_OUTWARD[side] * 20, -5 if side == upper else 2))
        _reach(motion, clip, side, target, aim, 0.3)


def _move_torso(motion: Motion, body: Body, clip: _Gesture) -> None:
    sway = clip.envelope * clip.rng.uniform(8, 12) * clip.wave(0.5, 0.9)
    motion.lean[clip.rows] += sway
    motion.roll[clip.rows] += 0.006 * sway
    motion.wrists[clip.rows, :, 0] += 0.3 * sway[:, None]


def _join_hands(motion: Motion, body: Body, clip: _Gesture) -> None:
    rng = clip.rng
    middle = np.array((rng.uniform(-5, 5), rng.uniform(38, 46)))
    rub, turn = 2.6 * clip.wave(1.0, 2.0), 2.0 * clip.wave(0.5, 1.2)
    for side in range(2):
        out = _OUTWARD[side]
        offset = np.array((out * 17, 9.0)) + np.stack([0 * rub, out * rub], 1) + np.stack([turn, 0 * turn], 1)
        _reach(motion, clip, side, middle + offset, middle + np.stack([turn, out * rub], 1), 0.55)


def _press_lips(motion: Motion, body: Body, clip: _Gesture) -> None:
    motion.press[clip.rows] = clip.envelope * (0.6 + 0.4 * clip.wave(1.2, 2.0))


def _shake_shoulders(motion: Motion, body: Body, clip: _Gesture) -> None:
    shake = clip.envelope * clip.rng.uniform(2.6, 3.4) * clip.wave(3.0, 4.8)
    sides = (1.0, -1.0) if clip.rng.random() < 0.25 else (1.0, 1.0)
    motion.lift[clip.rows] += shake[:, None] * np.array(sides)


def _illustrate(motion: Motion, body: Body, clip: _Gesture) -> None:
    rng, num = clip.rng, len(clip.seconds)
    active = ((0,), (1,), (0, 1), (0, 1))[rng.integers(4)]
    num_knots = num // int(rng.integers(7, 11)) + 3
    mirrored = rng.random() < 0.4
    knots = np.stack([rng.uniform(16, 66, num_knots), rng.uniform(2, 54, num_knots)], 1)
    for side in active:
        own = knots if mirrored else np.stack([rng.uniform(16, 66, num_knots), rng.uniform(2, 54, num_knots)], 1)
        aims = np.stack([rng.uniform(-14, 18, num_knots), rng.uniform(-24, 4, num_knots)], 1)
        sign = np.array((_OUTWARD[side], 1.0))
        target = _through(own, num) * sign
        _reach(motion, clip, side, target, target + _through(aims, num) * sign, rng.uniform(0.0, 0.4))
    motion.head[clip.rows, 1] += clip.envelope * 1.8 * clip.wave(0.8, 1.6)
    motion.yaw[clip.rows] += clip.envelope * 0.4 * clip.wave(0.3, 0.8)


_GESTURES: dict[int, Callable[[Motion, Body, _Gesture], None]] = {
    2: _touch_head,
    3: _touch_head,
    11: _touch_neck,
    16: _fold_arms,
    19: _move_torso,
    22: _join_hands,
    25: _join_hands,
    28: _press_lips,
    30: _shake_shoulders,
    31: _illustrate,
}


def _through(knots: Array, num: int) -> Array:
    """A smooth path of `num` points (num, 2) with a stop at every knot (K, 2)."""
    place = np.linspace(0, len(knots) - 1.001, num)
    before = place.astype(int)
    share = (place - before)[:, None]
    share = share * share * (3 - 2 * share)
    return (1 - share) * knots[before] + share * knots[before + 1]


def _head_center(motion: Motion, body: Body) -> Array:
    """The middle between the temples, (N, 2)."""
    x = 1.1 * motion.lean + motion.head[:, 0]
    y = motion.head[:, 1] - body.neck - 1.33 * body.head
    return np.stack([x, y], 1)


def pose_keypoints(motion: Motion, body: Body) -> Array:
    """Noise-free keypoints (N, 137, 2) in pixels without camera shake."""
    num_frames = len(motion.lean)
    points = np.zeros((num_frames, 137, 2))
    face = _face_points(motion, body)
    points[:, 25:95] = face
    roll = motion.roll
    points[:, [0, 15, 16]] = face[:, [30, 68, 69]]
    down = np.stack([-np.sin(roll), np.cos(roll)], 1)[:, None]
    points[:, [17, 18]] = face[:, [0, 16]] + 0.05 * body.head * down
    points[:, 1] = np.stack([motion.lean, -2 - 0.35 * motion.lift.mean(1)], 1)
    for side, (shoulder, elbow, wrist, hip, hand) in enumerate(((2, 3, 4, 9, 116), (5, 6, 7, 12, 95))):
        out = _OUTWARD[side]
        points[:, shoulder] = np.stack([motion.lean + out * body.shoulder, -motion.lift[:, side]], 1)
        points[:, elbow], points[:, wrist] = _bend_arm(points[:, shoulder], motion.wrists[:, side], body, out)
        points[:, hand : hand + 21] = _hand_points(points[:, elbow], points[:, wrist], motion, body, side)
        points[:, hip] = (out * 0.62 * body.shoulder, body.trunk)
        points[:, hip + 1], points[:, hip + 2] = points[:, hip] + (0, 60), points[:, hip] + (0, 120)
    points[:, 8] = (0, body.trunk)
    points[:, 19:22], points[:, 22:25] = points[:, [14]], points[:, [11]]
    return (np.array(body.origin) + body.unit * points).astype(np.float32)


def _bend_arm(shoulder: Array, target: Array, body: Body, out: float) -> tuple[Array, Array]:
    """Elbow and wrist (N, 2) of a two-bone arm whose hand is 14 units in front of the shoulders."""
    reach = np.concatenate([target - shoulder, np.full((len(target), 1), 14.0)], 1)  # (N, 3): x, y, towards the camera
    length = np.linalg.norm(reach, axis=1, keepdims=True)
    direction = reach / length
    length = np.clip(length, abs(body.upper_arm - body.forearm) + 2, 0.985 * (body.upper_arm + body.forearm))
    along = (length**2 + body.upper_arm**2 - body.forearm**2) / (2 * length)
    across = np.sqrt(np.maximum(body.upper_arm**2 - along**2, 0))
    # Elbows hang outwards, down and a little forward.
    pole = np.array((0.7 * out, 0.6, 0.38))
    bend = pole - (direction @ pole)[:, None] * direction
    bend /= np.linalg.norm(bend, axis=1, keepdims=True)
    elbow = along * direction + across * bend
    return shoulder + elbow[:, :2], shoulder + (length * direction)[:, :2]


def _hand_points(elbow: Array, wrist: Array, motion: Motion, body: Body, side: int) -> Array:
    """The 21 points of a hand (N, 21, 2)."""
    forearm = wrist - elbow
    forearm /= np.linalg.norm(forearm, axis=1, keepdims=True) + 1e-6
    aim = motion.aims[:, side] - wrist
    aim /= np.linalg.norm(aim, axis=1, keepdims=True) + 1e-6
    weight = motion.aim_weight[:, side, None]
    ahead = (1 - weight) * forearm + weight * aim
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-6
    thumbward = np.stack([ahead[:, 1], -ahead[:, 0]], 1) * -_OUTWARD[side]
    knuckle = np.repeat(_HAND[[0, 1, 5, 9, 13, 17]], (1, 4, 4, 4, 4, 4), axis=0)
    stretch = 1 - 0.7 * motion.curl[:, side, None, None]
    local = body.hand * (knuckle + stretch * (_HAND - knuckle))  # (N, 21, 2): ahead, thumbward
    return wrist[:, None] + local[..., :1] * ahead[:, None] + local[..., 1:] * thumbward[:, None]


def _hand_template() -> Array:
    """An open hand (21, 2): ahead and thumbward in hand lengths."""
    points = [(0.0, 0.0), (0.16, 0.18), (0.34, 0.32), (0.48, 0.40), (0.60, 0.46)]
    knuckles = np.array([(0.50, 0.20), (0.53, 0.06), (0.50, -0.08), (0.45, -0.20)])
    tips = np.array([(0.92, 0.28), (1.00, 0.08), (0.93, -0.11), (0.78, -0.28)])
    joints = np.array([0.0, 0.42, 0.73, 1.0])[:, None]
    return np.concatenate(
        [points, *(knuckle + joints * (tip - knuckle) for knuckle, tip in zip(knuckles, tips, strict=True))]
    )


def _face_template() -> Array:
    """The 70 face points at rest (70, 3): x, y in half head widths from between the temples, and depth 0..1."""
    angle = np.pi * (1 - np.arange(17) / 16)
    jaw = np.stack([np.cos(angle), 1.33 * np.sin(angle), 0.55 * np.sin(angle)], 1)
    x = np.linspace(-0.68, -0.2, 5)
    brow = np.stack([x, -0.42 - 0.08 * np.sin(np.linspace(0.3, 2.6, 5)), np.full(5, 0.75)], 1)
    bridge = np.stack([np.zeros(4), np.linspace(-0.18, 0.28, 4), np.linspace(0.85, 1.1, 4)], 1)
    x = np.linspace(-0.2, 0.2, 5)
    nostrils = np.stack([x, 0.38 + 0.05 * np.cos(7 * x), np.full(5, 0.95)], 1)
    lids = [(-0.6, -0.16), (-0.48, -0.27), (-0.3, -0.27), (-0.18, -0.16), (-0.3, -0.05), (-0.48, -0.05)]
    eye = np.column_stack([lids, np.full(6, 0.75)])
    outer, inner = (np.pi - np.arange(num) / num * 2 * np.pi for num in (12, 8))
    mouth = np.stack([0.44 * np.cos(outer), 0.74 - 0.3 * np.sin(outer), np.full(12, 0.85)], 1)
    closed = np.stack([0.36 * np.cos(inner), np.full(8, 0.74), np.full(8, 0.85)], 1)
    flip = np.array((-1.0, 1.0, 1.0))
    other_brow, other_eye = (brow * flip)[::-1], (eye * flip)[[3, 2, 1, 0, 5, 4]]
    pupils = np.array([(-0.39, -0.16, 0.75), (0.39, -0.16, 0.75)])
    return np.concatenate([jaw, brow, other_brow, bridge, nostrils, eye, other_eye, mouth, closed, pupils])


_HAND, _FACE = _hand_template(), _face_template()


def _face_points(motion: Motion, body: Body) -> Array:
    """The 70 face points (N, 70, 2)."""
    face = np.repeat(_FACE[None, :, :2], len(motion.lean), axis=0)
    lids, mouth, press, talk = slice(36, 48), slice(48, 68), motion.press[:, None], motion.talk[:, None]
    face[:, lids, 1] = -0.16 + (face[:, lids, 1] + 0.16) * motion.lids[:, None]
    face[:, mouth, 0] *= 1 - 0.25 * press - 0.1 * talk
    face[:, mouth, 1] = 0.74 + (face[:, mouth, 1] - 0.74) * (1 - 0.9 * press)
    face[:, 55:60, 1] += 0.3 * talk
    face[:, 65:68, 1] += 0.3 * talk
    face[:, 6:11, 1] += 0.15 * talk - 0.08 * press
    face[..., 0] += 0.4 * motion.yaw[:, None] * _FACE[:, 2]
    cosine, sine = np.cos(motion.roll)[:, None], np.sin(motion.roll)[:, None]
    turned = np.stack([cosine * face[..., 0] - sine * face[..., 1], sine * face[..., 0] + cosine * face[..., 1]], -1)
    return _head_center(motion, body)[:, None] + body.head * turned


__all__ = ["Body", "Motion", "animate", "pose_keypoints", "wander"]

"""Videos with a coloured disc at every keypoint, and a search for the discs in what the processor returns.

N is the number of frames. The discs of the person's left are red, of the right green, of the middle blue; all move by
several pixels per frame, so a swap of sides or an error of one frame shows as a misplaced disc.
"""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from torch.utils.data import Dataset

from clipmg_hf.processing import get_layout
from clipmg_hf.processing.video_processing_clipmg import denormalize_pixels


WIDTH, HEIGHT, NUM_FRAMES, RADIUS = 640, 480, 48, 11
LAYOUT = get_layout("imigue-22")
# x and y at rest; every other point of the layout is missing.
PLACES = {
    "nose": (320, 110),
    "neck": (320, 190),
    "right_shoulder": (250, 200),
    "left_shoulder": (390, 205),
    "right_elbow": (215, 285),
    "left_elbow": (425, 290),
    "right_wrist": (255, 360),
    "left_wrist": (395, 365),
}


def real_data(name: str) -> Path:
    """A real file; the test is skipped where there is none."""
    root = Path(__file__).parents[2].parent / "shared" / "realdata"
    path = Path(os.environ.get("CLIPMG_REALDATA", root)) / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def disc_keypoints() -> np.ndarray:
    """(N, 22, 3) pixels; 5 to 9 pixels of movement per frame."""
    keypoints = np.zeros((NUM_FRAMES, LAYOUT.num_keypoints, 3))
    angle = np.arange(NUM_FRAMES) * 2 * np.pi / 12
    for name, place in PLACES.items():
        keypoints[:, LAYOUT.index(name), 0] = place[0] + 14.25 * np.cos(angle)
        keypoints[:, LAYOUT.index(name), 1] = place[1] + 14.25 * np.sin(angle) + np.arange(NUM_FRAMES) / 2
        keypoints[:, LAYOUT.index(name), 2] = 0.9
    return keypoints


def draw_discs(keypoints: np.ndarray) -> np.ndarray:
    """(N, HEIGHT, WIDTH, 3) uint8: antialiased discs on black."""
    frames = np.zeros((len(keypoints), HEIGHT, WIDTH, 3), dtype=np.float32)
    for frame, points in zip(frames, keypoints, strict=True):
        for index, (x, y, confidence) in enumerate(points):
            if confidence > 0:
                left, top = int(x) - 2 * RADIUS, int(y) - 2 * RADIUS
                rows, columns = np.mgrid[top : top + 4 * RADIUS, left : left + 4 * RADIUS]
                disc = np.clip(RADIUS + 0.5 - np.hypot(columns - x, rows - y), 0, 1)
                frame[top : top + 4 * RADIUS, left : left + 4 * RADIUS, channel_of(index)] += 255 * disc
    return frames.clip(0, 255).round().astype(np.uint8)


def channel_of(index: int) -> int:
    side = LAYOUT.keypoints[index].partition("_")[0]
    return {"left": 0, "right": 1}.get(side, 2)


def write_video(path: Path, frames: np.ndarray, quarter_turns: int = 0) -> Path:
    """Encode at 25 frames per second; stored turned, with a display matrix that makes the frames upright again."""
    stored = np.rot90(frames, quarter_turns, axes=(1, 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4", "preset": "veryfast", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = stored.shape[2], stored.shape[1], "yuv420p"
        stream.time_base = Fraction(1, 25)
        for image in stored:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if quarter_turns:
        # The matrix stands 40 bytes behind the name of the track header box: a, b, u, c, d, v, x, y, w.
        content = bytearray(path.read_bytes())
        start = content.index(b"tkhd") + 44
        cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarter_turns]
        values = np.array([cosine, sine, 0, -sine, cosine, 0, 0, 0, 2**14]) * 2**16
        content[start : start + 36] = values.astype(">i4").tobytes()
        path.write_bytes(content)
    return path


def disc_errors(pixels: np.ndarray, keypoints: np.ndarray, flipped: bool) -> dict[int, float]:
    """Distance in pixels from each keypoint of one processed frame to the disc that is found around it.

    Args:
        pixels: uint8 (3, size, size).
        keypoints: (22, 3), x and y in [0, 1]; those whose disc may touch the border are left out.
        flipped: Whether the frame is mirrored, which makes a left wrist of the disc drawn for the right one.
    """
    size = pixels.shape[-1]
    reach, errors = 14, {}
    centres = np.arange(size) + 0.5
    for index, (x, y, confidence) in enumerate(keypoints):
        x, y = x * size, y * size
        if confidence == 0 or not (reach < x < size - reach and reach < y < size - reach):
            continue
        drawn_for = LAYOUT.flip_permutation[index] if flipped else index
        weights = pixels[channel_of(drawn_for)].astype(np.float64)
        weights[weights < 40] = 0
        weights[np.hypot(centres - x, centres[:, None] - y) > reach] = 0
        if not weights.any():
            errors[index] = float("inf")
            continue
        found = (weights.sum(0) @ centres, weights.sum(1) @ centres) / weights.sum()
        errors[index] = float(np.hypot(found[0] - x, found[1] - y))
    return errors


def find_discs(processor, seed, **inputs):
    """Errors of all discs of a clip in pixels of the processed frame, and its metadata."""
    output = processor(augment=seed is not None, seeds=seed, return_metadata=True, **inputs)
    clip = output["clips"][0]
    video_processor = processor.video_processor
    pixels = denormalize_pixels(output["pixel_values"][0], video_processor.image_mean, video_processor.image_std)
    groups = clip.pose_frame_indices.reshape(len(clip.frame_indices), -1)
    errors = []
    for index, (frame_index, group) in enumerate(zip(clip.frame_indices, groups, strict=True)):
        row = index * groups.shape[1] + int(np.flatnonzero(group == frame_index)[0])
        errors += disc_errors(pixels[index].numpy(), output["keypoints"][0, row].numpy(), clip.crop.flipped).values()
    return errors, clip


class Clips(Dataset):
    """Four augmented clips of one video; here, and not in the test, so that spawned workers import little."""

    def __init__(self, processor, path, keypoints):
        self.processor, self.path, self.keypoints = processor, path, keypoints

    def __len__(self):
        return 4

    def __getitem__(self, index):
        features = self.processor(self.path, self.keypoints, augment=True, seeds=[index])
        return {name: tensor[0] for name, tensor in features.items()} | {"labels": index}

"""Classify a clip with an exported model: numpy, PyAV and ONNX Runtime, no torch, transformers or this package.

Command:  python hub_scripts/predict_onnx.py clip.mp4 --model runs/full_onnx --keypoints openpose_json/
          python hub_scripts/predict_onnx.py long.mp4 --model runs/full_onnx --start 300 --end 360      # frames
Cost:     the video is decoded twice: to count its frames, and to the last sampled one.
Expected: labels and probabilities, those of `clipmg predict` to 1e-3: resizing inside the graph rounds less than 1 %
          of the pixels to a neighbouring value.

Copy this file and change it: it is an example of everything that has to happen to a video and its keypoints. Keypoints
are OpenPose JSON, a file for every frame of the video in the order of their names; of several people the one with the
largest box is taken, in each frame by itself. Whatever else the package reads and checks is left out.
"""

import argparse
import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime


OPENPOSE_FIELDS = {
    "pose_keypoints_2d": 25,
    "face_keypoints_2d": 70,
    "hand_left_keypoints_2d": 21,
    "hand_right_keypoints_2d": 21,
}
Model = tuple[onnxruntime.InferenceSession, dict]


def load(folder: Path) -> Model:
    """The graph that takes source frames, and what `preprocessing.json` says of it."""
    description = json.loads((folder / "preprocessing.json").read_text(encoding="utf-8"))
    graph = str(folder / "model_with_preprocessing.onnx")
    return onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]), description


def sample_frames(num_available: int, num_frames: int, pose_frames_per_frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (T,) of images and (T_p,) of keypoints in a clip of `num_available` frames: middles of equal parts."""
    num_parts = num_frames * pose_frames_per_frame
    pose = np.floor((np.arange(num_parts) + 0.5) * num_available / num_parts).astype(np.int64)
    return pose[pose_frames_per_frame // 2 :: pose_frames_per_frame], pose


def count_frames(video: Path) -> int:
    """Number of frames of a video; decodes all of them."""
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return sum(1 for _ in container.decode(video=0))


def read_frames(video: Path, indices: np.ndarray) -> np.ndarray:
    """Upright RGB frames, uint8 (T, H, W, 3), of ascending indices, some of which may be equal."""
    frames = {}
    with av.open(str(video)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            if index == indices[-1]:
                break
    return np.stack([frames[index] for index in indices.tolist()])


def read_openpose(folder: Path) -> np.ndarray:
    """Keypoints (frames, 137, 3) in pixels of the largest person of each frame; zeros without one."""
    files = sorted(folder.glob("*_keypoints.json"))
    keypoints = np.zeros((len(files), 137, 3), np.float32)
    for row, path in zip(keypoints, files, strict=True):
        people = []
        for person in json.loads(path.read_bytes())["people"]:
            fields = [person.get(name) or [0] * 3 * count for name, count in OPENPOSE_FIELDS.items()]
            people.append(np.concatenate(fields).astype(np.float32).reshape(137, 3))
        if people:
            row[:] = max(people, key=box_area)
    return keypoints


def is_valid(points: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...): a missing point has confidence 0 or is (0, 0, 0)."""
    return (points[..., 2] > 0) & (points[..., :2] != 0).any(axis=-1)


def box_area(person: np.ndarray) -> float:
    """Area of the box around the valid points."""
    points = person[is_valid(person), :2].astype(np.float64)
    return float(np.ptp(points, axis=0).prod()) if len(points) else 0.0


def convert(keypoints: np.ndarray, sources: list[list[int]]) -> np.ndarray:
    """OpenPose's points to those of the model: each is one of them, the middle of two, or missing."""
    converted = np.zeros((len(keypoints), len(sources), 3))
    for index, points in enumerate(sources):
        if points:
            parts = keypoints[:, points].astype(np.float64)
            mean = np.append(parts[..., :2].mean(axis=1), parts[..., 2:].min(axis=1), axis=-1)
            converted[:, index] = np.where(np.all(is_valid(parts), axis=1)[:, None], mean, 0)
    return converted


def choose_crop(keypoints: np.ndarray | None, width: int, height: int, rule: dict) -> list[int]:
    """Left, top and side of the square around the person in all frames of the clip, else around the frame."""
    side = max(width, height)
    whole = [(width - side) // 2, (height - side) // 2, side]
    if keypoints is None:
        return whole
    points = keypoints[is_valid(keypoints), :2]
    if len(points) < rule["min_points"]:
        return whole
    low, high = np.clip([points.min(axis=0), points.max(axis=0)], 0, (width - 1, height - 1))
    if (box_side := float((high - low).max())) < rule["min_size"]:
        return whole
    side = round(box_side * (1 + 2 * rule["padding"]))
    left, top = np.round((low + high - side + 1) / 2).astype(int)
    return [int(left), int(top), side]


def predict(
    model: Model, video: Path, keypoints: np.ndarray | None, start: int = 0, end: int | None = None
) -> np.ndarray:
    """Probabilities (labels,) of the clip [start, end) of a video, with OpenPose keypoints of all of its frames."""
    session, description = model
    total = count_frames(video)
    if keypoints is not None and len(keypoints) != total:
        raise ValueError(f"{len(keypoints)} keypoint files for {total} frames; expected one for each.")
    end = total if end is None else end
    if not 0 <= start < end <= total:
        raise ValueError(
            f"start is {start} and end is {end}; expected 0 <= start < end <= {total}, the frames of {video}."
        )
    images, poses = sample_frames(end - start, description["num_frames"], description["pose_frames_per_frame"])
    frames = read_frames(video, start + images)
    points = None
    if keypoints is not None:
        points = convert(keypoints[start:end], description["keypoint_sources"]["openpose-137"])
    crop = choose_crop(points, frames.shape[2], frames.shape[1], description["crop"])
    pose = np.zeros((len(poses), len(description["keypoints"]), 3)) if points is None else points[poses]
    inputs = {
        "crops": np.array([crop], np.int64),
        "frames": frames[None],
        "frame_mask": np.ones((1, len(frames)), bool),
        "source_keypoints": pose[None].astype(np.float32),
    }
    # A model of one stream has no inputs of the other.
    names = [entry.name for entry in session.get_inputs()]
    logits = session.run(["logits"], {name: inputs[name] for name in names})[0][0]
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def main() -> None:
    """Parse the command line, predict and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="Folder that export.py has written.")
    parser.add_argument("--keypoints", type=Path, help="Folder of OpenPose JSON, a file for each frame.")
    parser.add_argument("--start", type=int, default=0, help="First frame of the clip.")
    parser.add_argument("--end", type=int, help="Frame after its last one.")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="Print all probabilities as one JSON object.")
    args = parser.parse_args()
    model = load(args.model)
    keypoints = None if args.keypoints is None else read_openpose(args.keypoints)
    scores = predict(model, args.video, keypoints, args.start, args.end)
    labels = model[1]["labels"]
    if args.json:
        print(json.dumps(dict(zip(labels, scores.tolist(), strict=True))))
        return
    for index in np.argsort(-scores, kind="stable")[: args.top]:
        print(f"{scores[index]:.3f}  {labels[index]}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")

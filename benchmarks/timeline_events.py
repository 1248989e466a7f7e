"""How well a trained model finds the events of long synthetic videos.

    python -m benchmarks timeline_events --model demo_output/checkpoint
    python -m benchmarks timeline_events --model demo_output/checkpoint --others NAME=FOLDER NAME=FOLDER

Cost: 6 minutes on one core, 2 more for each of the others, and trained models.

The model is one that learnt from `clipmg_hf.data.synthetic` with seed 0 (`make demo`, or the configuration
`synthetic.yaml`); the videos have other seeds, so other people, scenes and movements, but the same kind of drawing.
Each lasts about 5 minutes and is written as H.264 with the keypoints of the simulated detector. The defaults of
`predict_timeline` and `EventDecoding` are the first rows of each table; they were chosen on videos of the seeds 77 to
79.

Three kinds of video: gestures 3 to 6 frames apart in the long tail that the generator makes of a long video, where
one often follows another of its own class and the two become one event; the same with the classes of the training
videos, where that is rare; and idle gaps of seconds, which the model takes for a gesture, since it has no class for
them and was trained on gestures alone.

The cure are clips of the gaps as a further class. The gaps of the demo's training videos are too short for them:

    python -m clipmg_hf.data.synthetic --output rests --seed 0 --max-gap-frames 125
    python hub_scripts/train.py hub_scripts/configs/synthetic.yaml --data_dir rests --max_steps 726 \\
        --eval_strategy no --do_eval true --save_strategy no --load_best_model_at_end false \\
        --output_dir runs/gestures                                          # and, with clips of the gaps:
    ... --output_dir runs/background --background_share 0.1
"""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.measuring import run_benchmark
from clipmg_hf import CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data.labels import BACKGROUND_LABEL
from clipmg_hf.data.synthetic import SYNTHETIC_CLASSES, SyntheticConfig, generate_video, plan_clips, write_mp4
from clipmg_hf.inference import load_model, predict_timeline
from clipmg_hf.processing import VideoReader
from clipmg_hf.timeline.event_metrics import MIGA_IOU, EventEvaluation, LabelledSpan, TrueEvent, evaluate_events
from clipmg_hf.timeline.events import NON_ILLUSTRATIVE_FILTER, EventDecoding, decode_events


DENSE, TRAINING_MIX, IDLE = "dense", "dense, classes as in training", "idle gaps of 2 to 5 seconds"
KINDS = (DENSE, TRAINING_MIX, IDLE)
ORACLE = "true limits"


@dataclass
class Settings:
    """What is measured."""

    model: str = field(metadata={"help": "Folder of a trained checkpoint, or its name on the Hub."})
    others: list[str] = field(
        default_factory=list,
        metadata={"help": "Other checkpoints, as NAME=FOLDER, to compare at the first of the windows."},
    )
    seeds: list[int] = field(default_factory=lambda: [80, 81, 82], metadata={"help": "Seeds of the videos."})
    windows: list[int] = field(default_factory=lambda: [32, 24, 16], metadata={"help": "Lengths of windows, frames."})
    stride: int = field(default=8, metadata={"help": "Frames from one window to the next."})
    minutes: float = field(default=5.0, metadata={"help": "Length of each video."})

    def __post_init__(self) -> None:
        for other in self.others:
            if not all(other.partition("=")):
                raise ValueError(f"others has {other!r}; expected NAME=FOLDER.")


@dataclass(frozen=True, eq=False)
class LongVideo:
    """A video with known events. `keypoints` (N, 137, 3) are x, y in pixels and confidence."""

    path: Path
    keypoints: np.ndarray
    events: tuple[TrueEvent, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """Events of one video: of the default decoding, and of one in which illustrative gestures are events, too."""

    events: tuple[LabelledSpan, ...]
    with_illustrative: tuple[LabelledSpan, ...]


def make_video(folder: Path, kind: str, seed: int, minutes: float) -> LongVideo:
    """Draw and encode a video of one person; its number of gestures is the one that comes nearest to the length."""
    config = SyntheticConfig(seed=seed)
    if kind == IDLE:
        config = dataclasses.replace(config, min_gap_frames=2 * config.fps, max_gap_frames=5 * config.fps)
    config = fit_length(config, round(minutes * 60 * config.fps))
    classes = training_classes(config) if kind == TRAINING_MIX else None
    video = generate_video(config, 1, "1", classes)
    path = folder / f"{KINDS.index(kind)}_{seed}.mp4"
    write_mp4(path, video.frames(), config)
    events = tuple(TrueEvent.from_inclusive(SYNTHETIC_CLASSES[label], *clip) for label, *clip in video.labels)
    return LongVideo(path, video.keypoints, events)


def fit_length(config: SyntheticConfig, num_frames: int) -> SyntheticConfig:
    """The number of gestures with which the video comes nearest to a length."""
    longest = 2 * num_frames // (config.min_clip_frames + config.min_gap_frames)
    candidates = (dataclasses.replace(config, clips_per_video=number) for number in range(6, max(7, longest)))
    return min(candidates, key=lambda candidate: abs(plan_clips(candidate, 1)[1] - num_frames))


def training_classes(config: SyntheticConfig) -> list[int]:
    """Classes of the gestures of one long video, as those of as many training videos as it takes."""
    short = dataclasses.replace(config, clips_per_video=SyntheticConfig().clips_per_video)
    num_videos = -(-config.clips_per_video // short.clips_per_video)
    clips = [clip for video in range(1, num_videos + 1) for clip in plan_clips(short, video)[0]]
    return [label for label, _, _ in clips[: config.clips_per_video]]


def find_events(
    model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, video: LongVideo, window: int, stride: int
) -> Found:
    """The timeline of a video."""
    timeline = predict_timeline(
        video.path, model=model, processor=processor, keypoints=video.keypoints, window=window, stride=stride
    )
    both = decode_events(timeline.windows, timeline.labels, EventDecoding(ignored_labels=()))
    return Found(timeline.events, both)


@torch.inference_mode()
def name_true_events(
    model: CLIPMGForMicroGestureClassification, processor: CLIPMGProcessor, video: LongVideo
) -> Found:
    """What the classifier makes of each gesture by itself when somebody tells it where the gesture is.

    A gesture that it takes for background is not found.
    """
    found = []
    with VideoReader(video.path) as reader:
        for event in video.events:
            interval = (int(event.start), int(event.end))
            inputs = processor(reader, video.keypoints[slice(*interval)], intervals=interval)
            label = model.config.id2label[int(model(**inputs).logits[0].argmax())]
            if label != BACKGROUND_LABEL:
                found.append(TrueEvent(label, event.start, event.end))
    return Found(tuple(found), tuple(found))


def score(found: Mapping[int, Found], videos: Mapping[int, LongVideo]) -> dict[str, Any]:
    """Numbers of the videos of one kind, by seed, as one pool."""
    true: dict[Hashable, Iterable[LabelledSpan]] = {seed: videos[seed].events for seed in found}
    filtered = evaluate_events(
        {seed: one.events for seed, one in found.items()}, true, ignored_labels=NON_ILLUSTRATIVE_FILTER
    )
    everything = evaluate_events({seed: one.with_illustrative for seed, one in found.items()}, true)
    idle_frames = sum(len(videos[seed].keypoints) - count_gesture_frames(videos[seed].events) for seed in found)
    return {
        "filtered": summarize(filtered),
        "with_illustrative": summarize(everything),
        "in_idle": sum(count_in_idle(one.events, videos[seed].events) for seed, one in found.items()),
        "idle_frames": int(idle_frames),
        "frames": sum(len(videos[seed].keypoints) for seed in found),
    }


def summarize(evaluation: EventEvaluation) -> dict[str, Any]:
    """JSON values of an evaluation."""
    at = evaluation.by_threshold[MIGA_IOU]
    return {
        "f1": at.f1,
        "precision": at.precision,
        "recall": at.recall,
        "mean_f1": evaluation.mean_f1,
        "num_predicted": at.num_predicted,
        "num_true": at.num_true,
        "num_matched": at.num_matched,
        "f1_by_iou": {str(threshold): scores.f1 for threshold, scores in evaluation.by_threshold.items()},
        "by_class": {
            label: [scores.num_true, scores.num_predicted, scores.num_matched]
            for label, scores in evaluation.by_class[MIGA_IOU].items()
        },
    }


def count_gesture_frames(events: Iterable[LabelledSpan]) -> int:
    """Frames of gestures that do not overlap."""
    return int(sum(event.end - event.start for event in events))


def count_in_idle(found: Iterable[LabelledSpan], true: Iterable[LabelledSpan]) -> int:
    """Found events of which more than half lies outside every true one; the true ones do not overlap."""
    spans = [(event.start, event.end) for event in true]
    covered = (
        sum(max(0, min(event.end, end) - max(event.start, start)) / (event.end - event.start) for start, end in spans)
        for event in found
    )
    return sum(share < 0.5 for share in covered)


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """The model, and the numbers of its events."""
    torch.set_num_threads(1)
    places = {"": settings.model, **dict(other.split("=", 1) for other in settings.others)}
    models = {name: load_model(place, device="cpu") for name, place in places.items()}
    # Where a model lies is nobody's business.
    settings.model, *others = (describe_model(model) for model, _ in models.values())
    settings.others = [f"{name}: {words}" for name, words in zip(list(models)[1:], others, strict=True)]
    return measure_kinds(models, settings, folder)


def describe_model(model: CLIPMGForMicroGestureClassification) -> str:
    """A model in words."""
    return (
        f"{model.num_parameters():,} parameters, {model.config.num_frames} frames in a window, fusion "
        f"{model.config.fusion}, {model.config.keypoint_layout}, {model.config.num_labels} classes"
    )


def measure_kinds(
    models: Mapping[str, tuple[CLIPMGForMicroGestureClassification, CLIPMGProcessor]], settings: Settings, folder: Path
) -> dict[str, dict[str, dict[str, Any]]]:
    """By kind of video and way to find events: the numbers of each seed, and of all as one pool.

    Models are named as in the tables, that of all windows "".
    """
    results = {}
    with tqdm(total=len(KINDS) * len(settings.seeds), unit="video") as bar:
        for kind in KINDS:
            videos: dict[int, LongVideo] = {}
            found: dict[str, dict[int, Found]] = {}
            for seed in settings.seeds:
                video = videos[seed] = make_video(folder, kind, seed, settings.minutes)
                for name, (model, processor) in models.items():
                    suffix = f", {name}" if name else ""
                    for window in settings.windows[: 1 if name else None]:
                        events = find_events(model, processor, video, window, settings.stride)
                        found.setdefault(f"window {window}{suffix}", {})[seed] = events
                    found.setdefault(f"{ORACLE}{suffix}", {})[seed] = name_true_events(model, processor, video)
                video.path.unlink()
                bar.update()
            results[kind] = {
                way: {
                    **{str(seed): score({seed: events}, videos) for seed, events in by_seed.items()},
                    "all": score(by_seed, videos),
                }
                for way, by_seed in found.items()
            }
    return results


def format_tables(report: dict[str, Any]) -> str:
    """Tables of each kind of video and of the classes."""
    settings = report["settings"]
    models = " ".join(f"{name}." for name in (f"Model: {settings['model']}", *settings["others"]))
    lines = [
        f"{models} Videos of about {settings['minutes']:g} minutes, data seeds "
        f"{', '.join(map(str, settings['seeds']))}; the model learnt from seed 0. Stride of {settings['stride']} "
        f"frames, default decoding. F1 counts events of the right class at IoU > {MIGA_IOU:g}; the mean is that over "
        f'IoU > 0.1, 0.2, ... 0.9. Without illustrative gestures on both sides, or with them. "{ORACLE}" is no '
        "timeline: the classifier is told where each gesture is, and names it. Idle time lies outside all gestures, "
        "illustrative ones included; events count as in it with more than half of their frames.",
    ]
    for kind, ways in report["results"].items():
        lines += ["", f"## {kind.capitalize()}", "", *_format_kind(ways)]
    default = f"window {settings['windows'][0]}"
    lines += ["", f"## Classes, {default}, all seeds", ""]
    lines += _format_classes({kind: ways[default]["all"] for kind, ways in report["results"].items()})
    return "\n".join(lines) + "\n"


def _format_kind(ways: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "| way | seed | frames | true | found | F1 | precision | recall | mean F1 | with illustrative: F1 | mean F1 "
        "| in idle time (per idle minute) |",
        "|" + "---|" * 12,
    ]
    for way, seeds in ways.items():
        for seed, values in seeds.items():
            filtered, everything = values["filtered"], values["with_illustrative"]
            idle_minutes = values["idle_frames"] / SyntheticConfig().fps / 60
            idle = "" if way.startswith(ORACLE) else f"{values['in_idle']} ({values['in_idle'] / idle_minutes:.1f})"
            numbers = [filtered["f1"], filtered["precision"], filtered["recall"], filtered["mean_f1"]]
            numbers += [everything["f1"], everything["mean_f1"]]
            cells = [way, seed, *(str(values["frames"]), str(filtered["num_true"]), str(filtered["num_predicted"]))]
            lines.append("| " + " | ".join([*cells, *map(_format_number, numbers), idle]) + " |")
    return lines


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _format_classes(by_kind: dict[str, dict[str, Any]]) -> list[str]:
    """True, found and matched events, and F1, of each class; for each kind of video."""
    lines = [
        "Each cell: F1 (true, found, matched).",
        "",
        "| class | " + " | ".join(by_kind) + " |",
        "|" + "---|" * (1 + len(by_kind)),
    ]
    for label in sorted({label for values in by_kind.values() for label in values["with_illustrative"]["by_class"]}):
        cells = []
        for values in by_kind.values():
            part = "with_illustrative" if label in NON_ILLUSTRATIVE_FILTER else "filtered"
            true, found, matched = values[part]["by_class"].get(label, (0, 0, 0))
            cells.append(f"{2 * matched / max(true + found, 1):.2f} ({true}, {found}, {matched})")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    run_benchmark(
        "timeline_events", Settings, measure, format_tables, doc=__doc__ or "", packages=["av"], arguments=arguments
    )


if __name__ == "__main__":
    main()

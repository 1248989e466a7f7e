"""Memory of processes: one clip, timelines, and the workers of a loader.

    python -m benchmarks memory

Cost: about 4 minutes on one core, and 1.5 GB of memory.

Expected: below 1,200 MB for one clip and 1,500 MB for a streamed timeline, both full-size in float32; below 400 MB for
a worker; and a timeline of 20 minutes needs what one of 5 minutes does, apart from the keypoints that it is given.
Every number is the peak of the resident memory of a process of its own, as Linux tells it: PyTorch, transformers, code
and weights are part of it. A worker is a fork of the process that trains and shares with it what neither changes:
that is in the memory of the machine once, but counts for each, so the table also says what a worker has alone. Weights
are random. The video of 20 minutes is that of 5 four times over, the same packets.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.data_loading import BATCH_SIZE, make_forms
from benchmarks.data_loading import Settings as LoadingSettings
from benchmarks.measuring import format_table, run_benchmark
from benchmarks.timeline import DEMO, FULL, SEED, STRIDE, WINDOW, build
from benchmarks.timeline_events import DENSE, make_video
from clipmg_hf import CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.inference import predict_clip, predict_timeline
from clipmg_hf.processing import VideoReader


LIMITS = {"one clip": 1200, "streamed timeline": 1500, "worker of a loader": 400}
MEGABYTE = 1024**2
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass
class Settings:
    """What is measured."""

    minutes: float = field(default=5.0, metadata={"help": "Length of the shorter video."})
    repeats: int = field(default=4, metadata={"help": "How many times as long the longer one is."})
    full_size_seconds: float = field(default=10.0, metadata={"help": "Length of the full-size timeline."})


def read_peak(process: int | str = "self") -> float:
    """Peak memory of a process so far, in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def run_apart(function: str, *arguments: Any) -> dict[str, Any]:
    """What a function of this module returns in a process of its own."""
    code = f"import json; from benchmarks import memory; print(json.dumps(memory.{function}(*{arguments!r})))"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
    ).stdout
    return json.loads(output.splitlines()[-1])


def classify_clip(path: str, keypoints: str) -> dict[str, float]:
    """Peak after one clip of the full-size model, and before it, when the model is there."""
    model, processor = build(FULL)
    before = read_peak()
    points = np.load(keypoints, mmap_mode="r")
    predict_clip(model, processor, path, points[:WINDOW], start=0, end=WINDOW)
    return {"before": before, "after": read_peak()}


def make_timeline(name: str, path: str, keypoints: str | None, seconds: float | None) -> dict[str, Any]:
    """Peak after the timeline of 2 seconds, and after that of all."""
    model, processor = build(name)
    with VideoReader(path) as reader:
        num_frames, rate = reader.info.num_frames, reader.info.average_rate
    common: dict[str, Any] = {"model": model, "processor": processor, "window": WINDOW, "stride": STRIDE}
    end = num_frames if seconds is None else min(num_frames, round(seconds * rate))
    points = None if keypoints is None else np.load(keypoints, mmap_mode="r")[:end]
    short = round(2 * rate)
    predict_timeline(path, keypoints=None if points is None else points[:short], end=short, **common)
    before = read_peak()
    timeline = predict_timeline(path, keypoints=points, end=end, **common)
    given = 0.0 if points is None else points.nbytes / MEGABYTE
    minutes = end / rate / 60
    return {
        "minutes": minutes,
        "windows": len(timeline.windows),
        "given": given,
        "before": before,
        "after": read_peak(),
    }


def load_clips(rows: datasets.Dataset) -> dict[str, float]:
    """Largest peak of two workers after two epochs; they share what they only read with the parent."""
    dataset = ClipDataset(rows, CLIPMGProcessor(CLIPMGVideoProcessor(), keypoint_layout="openpose-137"))
    before = read_peak()
    loader: DataLoader = DataLoader(
        dataset, BATCH_SIZE, num_workers=2, collate_fn=collate_clips, persistent_workers=True
    )
    for _ in range(2):
        list(loader)
    workers: Any = loader._iterator
    processes = [worker.pid for worker in workers._workers]
    return {
        "before": before,
        "after": max(map(read_peak, processes)),
        "own": max(read_mapped(process, "Private_") for process in processes),
        "share": max(read_mapped(process, "Pss:") for process in processes),
    }


def read_mapped(process: int, kind: str) -> float:
    """Memory of a process in MB: of its own, "Private_", or with its part of what several processes share, "Pss:"."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def load_form(folder: str, form: str) -> dict[str, float]:
    """Memory of workers that read a form of clips that was saved."""
    torch.set_num_threads(1)
    return load_clips(datasets.Dataset.load_from_disk(str(Path(folder, form))))


def repeat_video(source: Path, target: Path, repeats: int) -> None:
    """Put a video behind itself, packet by packet and without decoding."""
    with av.open(str(target), "w", format="mp4") as output:
        stream: Any = None
        offset = 0
        for _ in range(repeats):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                stream = stream or output.add_stream_from_template(video)
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, stream
                    output.mux(packet)
                offset += video.duration or 0


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """All processes, one after the other."""
    video = make_video(folder, DENSE, SEED, settings.minutes)
    results: dict[str, Any] = {"timelines": [], "workers": {}}
    for repeats in (1, settings.repeats):
        path, points = folder / f"{repeats}.mp4", folder / f"{repeats}.npy"
        repeat_video(video.path, path, repeats)
        np.save(points, np.tile(video.keypoints, (repeats, 1, 1)).astype(np.float32))
        if repeats == 1:
            results["clip"] = run_apart("classify_clip", str(path), str(points))
            results["streamed"] = run_apart("make_timeline", FULL, str(path), str(points), settings.full_size_seconds)
        for keypoints in (None, str(points)):
            row = run_apart("make_timeline", DEMO, str(path), keypoints, None)
            results["timelines"].append({"keypoints": keypoints is not None, **row})
    forms = make_forms(folder, LoadingSettings(num_videos=1))
    for form, rows in forms.items():
        rows.save_to_disk(str(folder / "saved" / form))
        results["workers"][form] = run_apart("load_form", str(folder / "saved"), form)
    return results


def format_tables(report: dict[str, Any]) -> str:
    """Markdown of a report."""
    results = report["results"]
    clip, streamed, workers = results["clip"], results["streamed"], results["workers"]
    rows = [
        ["one clip", f"{clip['after']:.0f}", LIMITS["one clip"], f"{clip['before']:.0f} with the model alone"],
        [
            "streamed timeline",
            f"{streamed['after']:.0f}",
            LIMITS["streamed timeline"],
            f"{streamed['minutes'] * 60:.0f} seconds of video with keypoints",
        ],
    ]
    rows += [
        [
            f"worker of a loader: {form}",
            f"{values['after']:.0f}",
            LIMITS["worker of a loader"],
            f"{values['before']:.0f} in the process that starts it; {values['own']:.0f} that it shares with no other; "
            f"{values['share']:.0f} with its part of what it shares",
        ]
        for form, values in workers.items()
    ]
    text = "Full-size model in float32, one thread.\n\n" + format_table(["process", "peak MB", "limit", "note"], rows)
    text += "\nTimelines with the model of the demo, keypoints as a memory map of 137 points:\n\n"
    headers = ["minutes", "windows", "MB after 2 seconds", "MB at the end", "more", "of which given keypoints"]
    return text + format_table(
        headers,
        [
            [
                f"{row['minutes']:.1f}",
                row["windows"],
                f"{row['before']:.0f}",
                f"{row['after']:.0f}",
                f"{row['after'] - row['before']:.0f}",
                f"{row['given']:.0f}" if row["keypoints"] else "none given",
            ]
            for row in results["timelines"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure and write."""
    run_benchmark(
        "memory", Settings, measure, format_tables, doc=__doc__ or "", packages=["av", "datasets"], arguments=arguments
    )


if __name__ == "__main__":
    main()

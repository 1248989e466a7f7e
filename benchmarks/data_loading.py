"""Clips per second that a DataLoader gives, for each form in which clips are stored.

    python -m benchmarks.data_loading

Takes 2.5 minutes on 2 cores, and writes `benchmarks/results/data_loading.json` and
`.md`. The clips are 60 frames of synthetic 1280 x 720 videos with a key frame every 250 frames, read as 8 frames of
224 x 224 with 137 keypoints. The limit beside each form is PyAV decoding the same bytes in as many workers, from the
key frame before the clip to the clip's end, and doing nothing with the frames. [`ClipDataset`] may beat it: it skips
frames that no other needs. Loader and limit take turns, so that other work on the machine disturbs both alike.
"""

import argparse
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipmg_hf import CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.prepare import PrepareConfig, load_prepared, prepare_dataset
from clipmg_hf.data.schema import clip_features
from clipmg_hf.files import write_file


WIDTH, HEIGHT, RATE, KEY_FRAME_INTERVAL = 1280, 720, 25, 250
CLIP_FRAMES, CLIP_DISTANCE = 60, 90
BATCH_SIZE = 4
WORKERS = (1, 2)


@dataclass(frozen=True)
class Settings:
    """What is measured: the clips are `num_videos * clips_per_video`."""

    num_videos: int = 2
    clips_per_video: int = 8
    repetitions: int = 5


def write_video(path: Path, num_frames: int, seed: int) -> None:
    """Encode a textured background with noise and a brighter square that moves, about 3 Mbit/s of H.264."""
    generator = np.random.default_rng(seed)
    spots = torch.from_numpy(generator.uniform(40, 160, (1, 1, HEIGHT // 8, WIDTH // 8)))
    texture = torch.nn.functional.interpolate(spots, (HEIGHT, WIDTH), mode="bilinear")[0, 0].numpy().astype(np.uint8)
    noises = generator.integers(0, 20, (16, HEIGHT, WIDTH), np.uint8)
    options = {"preset": "veryfast", "g": str(KEY_FRAME_INTERVAL), "sc_threshold": "0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(num_frames):
            picture = texture + noises[index % len(noises)]
            left = square_left(index)
            picture[200:520, left : left + 320] += 60
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode())


def square_left(frame: int | np.ndarray) -> Any:
    """Left column of the moving square."""
    return (480 + 200 * np.sin(np.asarray(frame) / 20)).astype(int)


def write_raw_rows(folder: Path, settings: Settings) -> datasets.Dataset:
    """Untrimmed videos and the rows of their clips, with keypoints inside the square."""
    generator = np.random.default_rng(0)
    rows = []
    for number in tqdm(range(settings.num_videos), desc="Write videos", unit="video"):
        path = folder / f"{number:04d}.mp4"
        write_video(path, settings.clips_per_video * CLIP_DISTANCE, seed=number)
        for index in range(settings.clips_per_video):
            start = index * CLIP_DISTANCE
            points = generator.uniform((0, 200, 0.3), (320, 520, 1), (CLIP_FRAMES, 137, 3)).astype(np.float32)
            points[..., 0] += square_left(np.arange(start, start + CLIP_FRAMES))[:, None]
            row = {
                "clip_id": f"{number:04d}_{index}",
                "video_id": f"{number:04d}",
                "start_frame": start,
                "end_frame": start + CLIP_FRAMES - 1,
                "fps": RATE,
                "label": 0,
                "group": 0,
                "width": WIDTH,
                "height": HEIGHT,
                "video": str(path),
                "video_start_frame": 0,
                "keypoints": points,
                "keypoints_valid": np.ones(points.shape[:2], bool),
                "keypoint_layout": "openpose-137",
            }
            rows.append(dict.fromkeys(clip_features(["all"], ["all"], "openpose-137")) | row)
    return datasets.Dataset.from_list(rows, features=clip_features(["all"], ["all"], "openpose-137"))


def make_forms(folder: Path, settings: Settings) -> dict[str, datasets.Dataset]:
    """The same clips in every form, by the name of the form."""
    raw = write_raw_rows(folder, settings)
    forms = {"raw mp4 and interval": raw}
    for codec, name in (("h264", "prepared, H.264"), ("mjpeg", "prepared, JPEG frames")):
        config = PrepareConfig(short_side=256, codec=codec, storage="parquet")  # type: ignore[arg-type]
        prepare_dataset(datasets.DatasetDict(train=raw), folder / codec, config)
        prepared = load_prepared(folder / codec, cache_dir=folder / "cache")
        assert isinstance(prepared, datasets.DatasetDict)
        forms[name] = prepared["train"]
    return forms


class PlainDecode(Dataset):
    """Decodes the frames of a clip with PyAV and counts them: what no loader of the same bytes can save.

    Args:
        rows (`datasets.Dataset`): As [`ClipDataset`].
    """

    def __init__(self, rows: datasets.Dataset):
        columns = ["video", "start_frame", "end_frame", "video_start_frame"]
        self.rows = rows.select_columns(columns).with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> int:
        row = self.rows[index].to_pylist()[0]
        video = row["video"]
        first, last = (row[name] - row["video_start_frame"] for name in ("start_frame", "end_frame"))
        source = video if isinstance(video, str) else io.BytesIO(video["bytes"])
        return sum(number >= first for number in _decode_until(source, first, last))


def _decode_until(source: Any, first: int, last: int) -> Iterator[int]:
    """Numbers of the frames from the key frame before `first` to `last`."""
    with av.open(source) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.time_base is not None and stream.average_rate is not None
        frame_ticks = 1 / (stream.time_base * stream.average_rate)
        if first:
            container.seek(int(first * frame_ticks), stream=stream)
        for frame in container.decode(stream):
            number = round((frame.pts or 0) / frame_ticks)
            yield number
            if number >= last:
                return


def make_loader(dataset: Dataset, num_workers: int) -> DataLoader:
    """A loader whose workers are there, and have read every clip once."""
    is_plain = isinstance(dataset, PlainDecode)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        num_workers=num_workers,
        collate_fn=None if is_plain else collate_clips,
        persistent_workers=True,
    )
    counts = list(loader)
    if is_plain:
        assert all((count == CLIP_FRAMES).all() for count in counts)
    return loader


def time_epoch(loader: DataLoader) -> float:
    """Seconds of one epoch."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def measure(forms: dict[str, datasets.Dataset], settings: Settings) -> list[dict[str, Any]]:
    """Time every form with every number of workers, taking turns."""
    processor = CLIPMGProcessor(CLIPMGVideoProcessor(), keypoint_layout="openpose-137")
    loaders = {
        (name, num_workers): (
            make_loader(ClipDataset(rows, processor), num_workers),
            make_loader(PlainDecode(rows), num_workers),
        )
        for name, rows in forms.items()
        for num_workers in WORKERS
    }
    times: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in loaders}
    for _ in tqdm(range(settings.repetitions), desc="Measure", unit="repetition"):
        for key, (clips, plain) in loaders.items():
            times[key].append((time_epoch(clips), time_epoch(plain)))
    return [
        summarize(
            name, num_workers, pairs, settings.num_videos * settings.clips_per_video, bytes_per_clip(forms[name])
        )
        for (name, num_workers), pairs in times.items()
    ]


def summarize(
    form: str, num_workers: int, pairs: list[tuple[float, float]], num_clips: int, size: float
) -> dict[str, Any]:
    """Medians over the repetitions; the ratio is that of the two times of one repetition."""
    return {
        "form": form,
        "workers": num_workers,
        "clips_per_second": statistics.median(num_clips / loader for loader, _ in pairs),
        "decode_clips_per_second": statistics.median(num_clips / plain for _, plain in pairs),
        "time_over_decode_time": statistics.median(loader / plain for loader, plain in pairs),
        "kilobytes_per_clip": size / 1000,
        "seconds": pairs,
    }


def bytes_per_clip(rows: datasets.Dataset) -> float:
    """Bytes of video in each clip; those of untrimmed files are shared out by their frames."""
    videos = rows.select_columns(["video"]).with_format("arrow")[:]["video"].to_pylist()
    if isinstance(videos[0], str):
        total = sum(Path(path).stat().st_size for path in set(videos))
        return total / len(videos) * CLIP_FRAMES / CLIP_DISTANCE
    return statistics.mean(len(video["bytes"]) for video in videos)


def describe_machine() -> str:
    """Processor, cores and versions, in one line."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, PyAV {av.__version__}"
    return f"{name}, {os.cpu_count()} cores, {versions}, datasets {datasets.__version__}"


def format_table(report: dict[str, Any]) -> str:
    """Markdown of a report."""
    lines = [
        f"Measured {report['date']} on {report['machine']}: medians of {report['settings']['repetitions']} "
        "repetitions, `python -m benchmarks.data_loading`.",
        "",
        "| form | workers | clips/s | decoding alone, clips/s | time / decoding time | kB of video per clip |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['form']} | {row['workers']} | {row['clips_per_second']:.1f} | {row['decode_clips_per_second']:.1f} "
        f"| {row['time_over_decode_time']:.2f} | {row['kilobytes_per_clip']:.0f} |"
        for row in report["results"]
    ]
    return "\n".join(lines) + "\n"


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Write the report as JSON and as a table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("data_loading.json", json.dumps(report, indent=2) + "\n"),
        ("data_loading.md", format_table(report)),
    ):
        write_file(folder / name, text)


def main() -> None:
    """Parse the command line, measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    for name, default in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    values = vars(parser.parse_args())
    output = values.pop("output")
    settings = Settings(**values)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(make_forms(Path(folder), settings), settings)
    report = {
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "settings": asdict(settings),
        "results": results,
    }
    write_report(report, output)
    print(format_table(report))


if __name__ == "__main__":
    main()

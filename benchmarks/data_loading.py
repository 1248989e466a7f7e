"""Clips per second that a DataLoader gives, for each form in which clips are stored.

    python -m benchmarks data_loading

Cost: 2.5 minutes on 2 cores.

The clips are 60 frames of synthetic 1280 x 720 videos with a key frame every 250 frames, read as 8 frames of
224 x 224 with 137 keypoints. The limit beside each form is PyAV decoding the same bytes in as many workers, from the
key frame before the clip to the clip's end, and doing nothing with the frames. [`ClipDataset`] may beat it: it skips
frames that no other needs. Loader and limit take turns, so that other work on the machine disturbs both alike.
"""

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from benchmarks.measuring import Spread, format_table, run_benchmark
from clipmg_hf import CLIPMGProcessor, CLIPMGVideoProcessor
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.prepare import PrepareConfig, load_prepared, prepare_dataset
from clipmg_hf.data.schema import clip_features


WIDTH, HEIGHT, RATE, KEY_FRAME_INTERVAL = 1280, 720, 25, 250
CLIP_FRAMES, CLIP_DISTANCE = 60, 90
BATCH_SIZE = 4
WORKERS = (1, 2)


@dataclass
class Settings:
    """What is measured: the clips are `num_videos * clips_per_video`."""

    num_videos: int = field(default=2, metadata={"help": "Long videos."})
    clips_per_video: int = field(default=8, metadata={"help": "Clips cut from each."})
    repetitions: int = field(default=5, metadata={"help": "Epochs of each loader."})


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


def measure(settings: Settings, folder: Path) -> dict[str, Any]:
    """Time every form with every number of workers, taking turns."""
    datasets.disable_progress_bars()
    forms = make_forms(folder, settings)
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
    num_clips = settings.num_videos * settings.clips_per_video
    rows = [
        summarize(name, num_workers, pairs, num_clips, bytes_per_clip(forms[name]))
        for (name, num_workers), pairs in times.items()
    ]
    return {"forms": rows}


def summarize(
    form: str, num_workers: int, pairs: list[tuple[float, float]], num_clips: int, size: float
) -> dict[str, Any]:
    """Medians over the repetitions."""
    return {
        "form": form,
        "workers": num_workers,
        "clips_per_second": statistics.median(num_clips / loader for loader, _ in pairs),
        "decode_clips_per_second": statistics.median(num_clips / plain for _, plain in pairs),
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


def format_tables(report: dict[str, Any]) -> str:
    """One table."""
    headers = ["form", "workers", "clips/s", "decoding alone, clips/s", "time / decoding time", "kB of video per clip"]
    rows = [
        [
            row["form"],
            row["workers"],
            f"{row['clips_per_second']:.1f}",
            f"{row['decode_clips_per_second']:.1f}",
            Spread.of([loader / plain for loader, plain in row["seconds"]]).format(),
            f"{row['kilobytes_per_clip']:.0f}",
        ]
        for row in report["results"]["forms"]
    ]
    return f"Medians of {report['settings']['repetitions']} repetitions.\n\n{format_table(headers, rows)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    packages = ["av", "datasets"]
    run_benchmark(
        "data_loading", Settings, measure, format_tables, doc=__doc__ or "", packages=packages, arguments=arguments
    )


if __name__ == "__main__":
    main()

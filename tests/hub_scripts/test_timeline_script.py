"""Timelines on several processes: each video on one of them, and a kill in the middle costs that video alone."""

import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from tiny_models import TINY

from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor


ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "hub_scripts" / "timeline.py"
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0",
    "--config_file", str(ROOT / "hub_scripts" / "configs" / "accelerate_ddp_cpu.yaml"),
]  # fmt: skip
OPTIONS = ["--window", "4", "--stride", "2", "--formats", "csv", "--device", "cpu"]
# Kills itself, as nothing else could be sure to do, when all windows of d.mp4 are classified.
KILLED = """
import os, runpy, signal, sys
from clipmg_hf import timeline_job

write_timeline = timeline_job.write_timeline

def write(timeline, *rest, **options):
    if timeline.video == "d.mp4":
        os.kill(os.getpid(), signal.SIGKILL)
    return write_timeline(timeline, *rest, **options)

timeline_job.write_timeline = write
script = sys.argv.pop(1)
runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny model, and four videos of the same size."""
    root = tmp_path_factory.mktemp("timeline")
    config = CLIPMGConfig(**TINY)
    torch.manual_seed(0)
    CLIPMGForMicroGestureClassification(config).save_pretrained(root / "model")
    CLIPMGProcessor.from_model_config(config).save_pretrained(root / "model")
    (root / "videos").mkdir()
    with av.open(str(root / "videos" / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for index in range(12):
            picture = np.full((64, 64, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    for name in ("b.mp4", "c.mp4", "d.mp4"):
        shutil.copy(root / "videos" / "a.mp4", root / "videos" / name)
    return root


def test_a_killed_process_costs_its_video_alone(root, tmp_path, run_command):
    words = ["--videos", str(root / "videos"), "--model", str(root / "model"), "--output_dir", str(tmp_path / "out")]
    killed = tmp_path / "killed.py"
    killed.write_text(KILLED)
    done = run_command([*LAUNCH, str(killed), str(SCRIPT), *words, *OPTIONS], expected=1)
    assert "process 1: b.mp4 done" in done.stderr and "d.mp4" not in done.stderr.split("Traceback")[0]
    begun = {path.name for path in (tmp_path / "out" / "d").iterdir()}
    assert {".settings.json", ".windows.jsonl"} <= begun and "settings.json" not in begun
    finished = (tmp_path / "out" / "b" / "settings.json").stat().st_mtime_ns

    done = run_command([*LAUNCH, str(SCRIPT), *words, *OPTIONS, "--as_json"])
    videos = json.loads(done.stdout)["videos"]
    assert [Path(video["video"]).name for video in videos] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    statuses = [video["status"] for video in videos]
    assert statuses[1] == "skipped" and statuses[3] == "done" and set(statuses) <= {"skipped", "done"}
    assert (tmp_path / "out" / "b" / "settings.json").stat().st_mtime_ns == finished
    # Each video was somebody's, and nobody else's.
    for name, process in zip("abcd", (0, 1, 0, 1), strict=True):
        assert [line for line in done.stderr.splitlines() if f"{name}.mp4" in line] == [
            f"process {process}: {name}.mp4 {statuses['abcd'.index(name)]}"
        ]
        names = {path.name for path in (tmp_path / "out" / name).iterdir()}
        assert names == {".lock", f"{name}.csv", f"{name}.json", "settings.json"}


def test_unusable_input_is_one_line(root, tmp_path, run_command):
    words = ["--videos", str(tmp_path), "--model", str(root / "model"), "--output_dir", str(tmp_path / "out")]
    done = run_command([sys.executable, str(SCRIPT), *words], expected=1)
    assert done.stderr.startswith(f"error: {tmp_path}: no video; expected files") and done.stderr.count("\n") == 1

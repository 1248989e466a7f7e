"""Every benchmark runs at a tiny size and writes its tables; no test looks at times."""

import json
import math
import sys

import av
import numpy as np
import pytest
import torch
from tiny_models import TINY

from benchmarks import __main__ as entry_point
from benchmarks import (
    data_index,
    data_loading,
    decoding,
    feature_cache,
    forward,
    heatmaps,
    measuring,
    peer_models,
    skeleton_readers,
    timeline_events,
)
from clipmg_hf import CLIPMGConfig
from clipmg_hf.modeling.heatmaps_clipmg import draw_heatmaps


@pytest.fixture(autouse=True)
def keep_settings():
    """Benchmarks choose threads and memory for themselves."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(module, tmp_path, *options):
    """Tables and report of a benchmark."""
    output = tmp_path / "results" / "table.md"
    module.main([*map(str, options), "--output", str(output)])
    return output.read_text(encoding="utf-8"), json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))


def test_list_names_costs(capsys):
    entry_point.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(entry_point.find_benchmarks())
    assert {"forward", "heatmaps", "decoding", "peer_models", "timeline"} <= set(entry_point.find_benchmarks())
    assert all("Cost: " in line and "unknown" not in line for line in lines)


def test_docstrings_name_their_command():
    for name, doc in entry_point.find_benchmarks().items():
        assert f"    python -m benchmarks {name}" in doc or f"    python -m benchmarks.{name}" in doc


def test_unknown_name():
    with pytest.raises(SystemExit, match=r"No benchmark forwards; expected some of .*forward"):
        entry_point.main(["forwards"])


def test_ways_take_turns():
    order, ticks = [], iter(range(100))
    ways = {name: (lambda name=name: order.append(name)) for name in "ab"} | {"c": lambda: 7.5}
    seconds = measuring.take_turns(ways, 2, clock=lambda: float(next(ticks)), warm_up=1)
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [7.5, 7.5]}


def test_ratios_are_those_of_a_round():
    seconds = {"one": [1.0, 10.0, 2.0], "two": [2.0, 20.0, 4.0]}
    assert measuring.ratio(seconds, "two", "one") == measuring.Spread(2.0, 2.0, 2.0)
    table = measuring.format_ratios(seconds, "one", 1, "s", more={"GFLOP": {"two": 5}})
    assert table.splitlines()[0] == "| way | median s | quartiles | / one | GFLOP |"
    assert table.splitlines()[-1] == "| two | 4 | 3 to 12 | 2.00 (2.00 to 2.00) | 5 |"


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(forward, "make_config", lambda: CLIPMGConfig(**TINY))


def test_forward(tiny, tmp_path):
    text, report = run(forward, tmp_path, "--rounds", 2, "--compiled", "false")
    assert text.count("| full model |") == 2 and report["command"] == "python -m benchmarks forward"
    counts = report["results"]["operations"]
    assert counts[forward.TOWER] + counts[forward.POSE] < counts[forward.MODEL]
    seconds = report["results"]["seconds"]["float32"]
    assert all(len(values) == 2 and min(values) > 0 for values in seconds.values())
    assert any(forward.UNFOLDED in way for way in seconds)


def test_forms_of_the_pose_encoder_agree(tiny):
    torch.manual_seed(0)
    model = forward.CLIPMGForMicroGestureClassification(forward.make_config()).eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm3d):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    encode = forward.make_ways(model, forward.make_inputs(model.config, 2, "cpu", torch.float32))[forward.POSE]
    with torch.inference_mode():
        expected = encode()
        for form in (forward.CONTIGUOUS, forward.CONV3D, forward.UNFOLDED):
            torch.testing.assert_close(forward.in_form(form, encode)(), expected, atol=1e-5, rtol=1e-4)


def test_operations_of_the_tower_are_those_counted_by_hand(tiny):
    """The tower's matrix products: what a counter that missed the attention would not find."""
    width, mlp, layers, patches, patch_pixels, frames = 32, 64, 2, 16, 3 * 8 * 8, TINY["num_frames"]
    tokens = patches + 1
    per_layer = 4 * tokens * width**2 + 2 * tokens * width * mlp + 2 * tokens**2 * width
    expected = 2 * frames * (patches * patch_pixels * width + layers * per_layer)
    assert forward.count_operations(1)[forward.TOWER] * 1e9 == pytest.approx(expected)


def test_heatmaps(tmp_path):
    options = ["--rounds", 2, "--frames", 3, "--keypoints", 4, "--size", 16, "--compiled", "false"]
    text, report = run(heatmaps, tmp_path, *options)
    assert f"| {heatmaps.LOOP} |" in text
    assert max(report["results"]["differences"].values()) < 1e-5
    assert report["results"]["bytes"] == {"keypoints": 3 * 4 * 3 * 4, "heatmaps": 4 * 3 * 16 * 16 * 4}


def test_loop_over_keypoints_takes_the_larger_of_two_people():
    points = np.array([[[[3.2, 4.9, 0.9]]], [[[4.0, 4.0, 0.5]]]], np.float32)
    drawn = heatmaps.loop_over_keypoints(points, 9, 0.6)
    normalised = torch.from_numpy(np.add(points, (0.5, 0.5, 0)) / (9, 9, 1))
    expected = draw_heatmaps(normalised, 9, 0.6).amax(dim=0)
    torch.testing.assert_close(torch.from_numpy(drawn), expected.transpose(0, 1).float(), atol=1e-6, rtol=0)


def test_peer_models(tiny, tmp_path, monkeypatch):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"image_size": 32, "patch_size": 8}
    peers = {
        name: peer._replace(fields=peer.fields | small | sizes | {"num_frames": peer.num_frames})
        for name, peer in peer_models.PEERS.items()
        if not name.startswith("V-JEPA")
    }
    monkeypatch.setattr(peer_models, "PEERS", peers)
    _, report = run(peer_models, tmp_path, "--rounds", 1, "--peers", *peers)
    assert set(report["results"]["seconds"]) == {peer_models.OURS, peer_models.FRAMES_ALONE, peer_models.TOWER, *peers}
    assert all(math.isfinite(count) and count > 0 for count in report["results"]["operations"].values())


@pytest.fixture
def small_video(monkeypatch):
    """Videos of 160 x 90 pixels instead of 1280 x 720, without the texture."""

    def write_video(path, num_frames, seed):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=data_loading.RATE, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = data_loading.WIDTH, data_loading.HEIGHT, "yuv420p"
            for index in range(num_frames):
                picture = np.full((data_loading.HEIGHT, data_loading.WIDTH), (index * 2) % 256, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
            container.mux(stream.encode())

    monkeypatch.setattr(data_loading, "write_video", write_video)
    monkeypatch.setattr(data_loading, "WIDTH", 160)
    monkeypatch.setattr(data_loading, "HEIGHT", 90)


def test_decoding(small_video, tmp_path):
    text, report = run(decoding, tmp_path, "--rounds", 1, "--clips", 2, "--peers", "false")
    assert text.count(f"| {decoding.PROCESSOR} |") == 3
    assert {len(values) for form in report["results"].values() for values in form.values()} == {1}


def test_plain_decoding_finds_the_frames_of_the_processor(small_video, tmp_path):
    rows = data_loading.write_raw_rows(tmp_path, data_loading.Settings(num_videos=1, clips_per_video=2))
    for row in rows.select_columns(decoding.CLIP_COLUMNS).to_list():
        clip = decoding.Clip.from_row(row)
        assert decoding.decode(clip, skip=False) == decoding.decode(clip, skip=True) == decoding.NUM_FRAMES


def test_skeleton_readers(tmp_path):
    text, report = run(skeleton_readers, tmp_path, "--rows", 3, "--repeats", 1)
    assert f"| {skeleton_readers.REFERENCE} |" in text and report["results"]["bytes"] > 0


def test_feature_cache_table():
    seconds = {feature_cache.FRAMES: [2.0, 2.2], feature_cache.FEATURES: [1.0, 1.1]}
    results = {"seconds": seconds, "computed": 1.5, "bytes": 2.43e6}
    text = feature_cache.format_tables({"settings": {"rounds": 2, "batch_size": 4}, "results": results})
    assert "| frames | 2.1 | 2.05 to 2.15 | 2.00 (2.00 to 2.00) |" in text and "2.43 MB" in text


def test_data_index_table():
    results = {name: [1.0, 2.0, 3.0] for name in (data_index.FIND, data_index.SPLIT, data_index.PEAK)}
    text = data_index.format_tables({"settings": {"rounds": 3}, "results": results})
    assert f"| {data_index.FIND} | 2.00 (1.50 to 2.50) |" in text


def test_model_of_timeline_events_is_required(capsys):
    with pytest.raises(SystemExit):
        timeline_events.main([])
    assert "--model" in capsys.readouterr().err


def test_other_models_of_timeline_events_have_names():
    with pytest.raises(ValueError, match="others has 'runs/background'; expected NAME=FOLDER"):
        timeline_events.main(["--model", "m", "--others", "a=b", "runs/background"])


def test_peers_answer_line_by_line(tmp_path, monkeypatch):
    """The protocol of the process that decodes, with a decoder that is there."""
    from benchmarks import peers

    script = tmp_path / "decode.py"
    script.write_text(
        "import json, sys\nfor line in sys.stdin:\n    print(len(json.loads(line)) / 4, flush=True)\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    monkeypatch.setattr(peers, "find_peer_python", lambda: sys.executable)
    with peers.PeerDecoder("opencv", [{"path": "a", "indices": [1]}] * 2) as decoder:
        assert [decoder.run(), decoder.run()] == [0.5, 0.5]

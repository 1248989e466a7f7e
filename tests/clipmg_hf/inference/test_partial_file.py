"""The file of finished windows: exact, cut short, of something else."""

import numpy as np
import pytest

from clipmg_hf.inference.partial_file import PartialFile, digest_arrays
from clipmg_hf.timeline.records import WindowScores


IDENTITY = {"video": {"name": "a.mp4", "size": 3}, "window": 32, "crops": [(1, 2)]}


def window(start, gate=0.25):
    scores = np.random.default_rng(start).dirichlet(np.ones(5)).astype(np.float32)
    return WindowScores(start, start + 32, start / 30, (start + 32) / 30, 0, scores, gate, 0.5)


def assert_equal(windows, expected):
    assert len(windows) == len(expected)
    for one, other in zip(windows, expected, strict=True):
        assert {**vars(one), "scores": one.scores.tolist()} == {**vars(other), "scores": other.scores.tolist()}
        assert one.scores.dtype == np.float32


def test_windows_come_back_exactly(tmp_path):
    path = tmp_path / "partial.jsonl"
    windows = [window(0), window(8, gate=None), window(16)]
    with PartialFile(path, IDENTITY) as partial:
        assert partial.windows == []
        partial.append(windows[:2])
    with PartialFile(path, IDENTITY) as partial:
        assert_equal(partial.windows, windows[:2])
        partial.append(windows[2:])
    with PartialFile(path, IDENTITY) as partial:
        assert_equal(partial.windows, windows)


def test_a_line_counts_when_it_is_whole(tmp_path):
    path = tmp_path / "partial.jsonl"
    windows = [window(0), window(8), window(16)]
    with PartialFile(path, IDENTITY) as partial:
        partial.append(windows[:2])
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    ends = [len(b"".join(lines[:count])) + shift for count in range(1, len(lines) + 1) for shift in (-1, 0)]
    for length in (*range(0, len(content), 50), *ends):
        path.write_bytes(content[:length])
        with PartialFile(path, IDENTITY) as partial:
            num_windows = max(content[:length].count(b"\n") - 1, 0)
            assert_equal(partial.windows, windows[:num_windows])
            partial.append(windows[num_windows:])
        assert path.read_bytes().startswith(content)
        assert path.read_bytes().count(b"\n") == len(lines) + 1


def test_what_was_written_is_there_before_the_file_is_closed(tmp_path):
    path = tmp_path / "partial.jsonl"
    with PartialFile(path, IDENTITY) as partial:
        partial.append([window(0)])
        assert path.read_bytes().count(b"\n") == 2


def test_windows_of_something_else_are_refused(tmp_path):
    path = tmp_path / "partial.jsonl"
    with PartialFile(path, IDENTITY) as partial:
        partial.append([window(0)])
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"jsonl holds windows of something else: window 32 there and 16 here"):
        PartialFile(path, {**IDENTITY, "window": 16})
    assert path.read_bytes() == content
    for other in (b"label,start\n1,2\n", b"{}\n", b"[1]\n"):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"partial.jsonl is no file of windows"):
            PartialFile(path, IDENTITY)
        assert path.read_bytes() == other


def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        PartialFile(tmp_path / "nowhere" / "partial.jsonl", IDENTITY)


def test_digests_tell_values_apart():
    assert digest_arrays([np.zeros(3)]) != digest_arrays([np.zeros(4)])
    assert digest_arrays([np.zeros(3)]) == digest_arrays([np.zeros(3)])

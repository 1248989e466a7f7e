"""Files that are there as a whole or not at all."""

import errno
import os

import pytest

from clipmg_hf.files import complete_file, write_file


def test_files_are_there_when_they_are_complete(tmp_path):
    write_file(tmp_path / "a.txt", "é")
    with complete_file(tmp_path / "b.bin", ".bin") as partial:
        partial.write_bytes(b"b")
        assert not (tmp_path / "b.bin").exists()
    assert (tmp_path / "a.txt").read_bytes() == "é".encode()
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "b.bin"}


@pytest.mark.parametrize("has_name", [False, True])
def test_a_full_disk_names_the_file(tmp_path, has_name):
    # Opening names the file, writing none.
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        complete_file(tmp_path / "a.png") as partial,
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *[str(partial)] * has_name)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, complete_file(tmp_path / "a.png"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")
    with pytest.raises(ValueError, match="no error of files"), complete_file(tmp_path / "a.png"):
        raise ValueError("no error of files")


def test_wrong_places(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_file(tmp_path / "nowhere" / "a.txt", "")
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.txt")
    with pytest.raises(FileNotFoundError, match="does not exist"), complete_file(tmp_path / "nowhere" / "a.txt"):
        pass
    with pytest.raises(ValueError, match=r"ends in \.png"), complete_file(tmp_path / "a.txt", ".png"):
        pass

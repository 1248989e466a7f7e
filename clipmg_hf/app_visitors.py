"""What visitors of the app give and get: each has a folder of their own, which is gone when they leave.

Names of files that are shown are the visitor's own; no message names a place on the server. Results are found by a
secret of 256 random bits, which is in the addresses that their visitor gets and nowhere else.
"""

import math
import re
import secrets
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import monotonic, time

import av
from av.error import FFmpegError

from clipmg_hf.processing import VideoDecodingError, VideoInfo, VideoReader
from clipmg_hf.processing.video_decoding_clipmg import FILE_OPTIONS
from clipmg_hf.timeline.formats import make_stem


MAX_PIXELS = 4096 * 2304
# Frames per second that the length in minutes stands for.
MAX_RATE = 60
MAX_KEYPOINT_FILE = 5 * 2**20  # bytes
MAX_AGE = 3600.0  # seconds since a visitor's last action
_MEGABYTE = 2**20
_SOMEWHERE = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\:'\"]+[/\\])+")


class VisitorError(ValueError):
    """Something that a visitor can change; the message names no place on the server."""


class CancelledError(Exception):
    """The visitor has cancelled the work, or has left."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may give.

    Args:
        max_upload_mb (`int`, defaults to 200): Megabytes of the video, and of all keypoint files together.
        max_minutes (`float`, defaults to 10): Length of the video.

    Raises:
        ValueError: A value that is not above 0.
    """

    max_upload_mb: int = 200
    max_minutes: float = 10

    def __post_init__(self) -> None:
        for name in ("max_upload_mb", "max_minutes"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} is {value}; expected a finite number above 0.")

    @property
    def max_upload(self) -> int:
        """Bytes."""
        return int(self.max_upload_mb * _MEGABYTE)

    @property
    def max_frames(self) -> int:
        """Frames of a video, and files of keypoints."""
        return round(self.max_minutes * 60 * MAX_RATE)


class Visitor:
    """The files of one visitor, and whether work on them goes on.

    Args:
        folder (`Path`): Made here; removed by [`Visitor.leave`].
    """

    def __init__(self, folder: Path):
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.video: Path | None = None
        self.info: VideoInfo | None = None
        self.keypoints: Path | None = None
        self.results: dict[str, Path] = {}
        self.secret = ""
        self.last_action = monotonic()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._is_busy = self._has_left = False

    @contextmanager
    def working(self) -> Iterator[None]:
        """A block in which the files do not change; whoever leaves meanwhile has them removed at its end.

        Raises:
            VisitorError: Other work goes on, or the visitor has left.
        """
        with self._lock:
            if self._has_left:
                raise VisitorError("Your files were removed. Please load the page again.")
            if self._is_busy:
                raise VisitorError("Your video is being analysed. Please wait, or cancel it first.")
            self._is_busy = True
            self._cancelled.clear()
        try:
            yield
        finally:
            with self._lock:
                self._is_busy, self.last_action = False, monotonic()
                if self._has_left:
                    self._remove()

    def cancel(self) -> None:
        """Stop the work at its next frame."""
        self._cancelled.set()

    def check_cancelled(self) -> None:
        """Raise a CancelledError if the work is to stop."""
        if self._cancelled.is_set():
            raise CancelledError("Cancelled.")

    def leave(self) -> None:
        """Remove everything, now or when the work has stopped."""
        with self._lock:
            self._has_left = True
            self._cancelled.set()
            if not self._is_busy:
                self._remove()

    def is_idle_since(self, seconds: float) -> bool:
        """Whether nothing has been done for so long."""
        return not self._is_busy and monotonic() - self.last_action > seconds

    def start_over(self) -> None:
        """Forget the uploads and the results."""
        with self.working():
            for path in self.folder.iterdir():
                shutil.rmtree(path)
            self._forget()

    def take_video(self, upload: Path, limits: Limits) -> None:
        """Move an uploaded video into the folder if it can be used; keypoints of one before it are dropped.

        Raises:
            VisitorError: It is too large, too long, or no video.
        """
        with self.working():
            if self.video is not None:
                shutil.rmtree(self.folder / "keypoints", ignore_errors=True)
                self.video = self.info = self.keypoints = None
            folder = self._new_folder("video")
            try:
                _check_size([upload], limits)
                suffix = upload.suffix if upload.suffix[1:].isalnum() else ""
                path = folder / f"{make_stem(upload.name)}{suffix}"
                shutil.move(upload, path)
                self.info = check_video(path, limits)
                self.video = path
            finally:
                upload.unlink(missing_ok=True)
                if self.video is None:
                    shutil.rmtree(folder)

    def take_keypoints(self, uploads: Sequence[Path], limits: Limits) -> None:
        """Move uploaded keypoints into the folder: JSON files, or one zip of them.

        Raises:
            VisitorError: Other files, too many or too large ones, or a zip that cannot be trusted.
        """
        with self.working():
            folder = self._new_folder("keypoints")
            self.keypoints = None
            try:
                _check_size(uploads, limits)
                if len(uploads) == 1 and uploads[0].suffix.lower() == ".zip":
                    unpack_keypoints(uploads[0], folder, limits)
                else:
                    _take_json(uploads, folder, limits)
            except BaseException:
                shutil.rmtree(folder)
                raise
            finally:
                for upload in uploads:
                    upload.unlink(missing_ok=True)
            self.keypoints = folder

    def new_results(self) -> Path:
        """Forget earlier results, and make an empty folder for new ones; within [`Visitor.working`]."""
        self.results, self.secret = {}, secrets.token_urlsafe(32)
        return self._new_folder("results")

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _forget(self) -> None:
        self.video = self.info = self.keypoints = None
        self.results = {}

    def _remove(self) -> None:
        self._forget()
        shutil.rmtree(self.folder, ignore_errors=True)


class Visitors:
    """Everybody who has the page open.

    Args:
        root (`Path`): An empty folder of this process.
    """

    def __init__(self, root: Path):
        self.root = root
        self.uploads = root / "uploads"
        self.uploads.mkdir()
        self._visitors: dict[str, Visitor] = {}
        self._lock = threading.Lock()

    def find(self, session: str) -> Visitor:
        """The visitor of a session, who may be new."""
        with self._lock:
            if session not in self._visitors:
                self._visitors[session] = Visitor(self.root / secrets.token_hex(16))
            return self._visitors[session]

    def find_result(self, secret: str, name: str) -> Path | None:
        """A file of somebody's results."""
        with self._lock:
            for visitor in self._visitors.values():
                if visitor.results and secrets.compare_digest(visitor.secret.encode(), secret.encode()):
                    return visitor.results.get(name)
        return None

    def leave(self, session: str) -> None:
        """Remove what there is of a session."""
        with self._lock:
            visitor = self._visitors.pop(session, None)
        if visitor is not None:
            visitor.leave()

    def remove_old(self, max_age: float = MAX_AGE) -> None:
        """Remove what nobody has used for `max_age` seconds, and uploads that nobody took."""
        with self._lock:
            old = [session for session, visitor in self._visitors.items() if visitor.is_idle_since(max_age)]
        for session in old:
            self.leave(session)
        for path in self.uploads.iterdir():
            # Others take, add and remove uploads meanwhile; what could not be removed is tried again.
            with suppress(OSError):
                if time() - path.stat().st_mtime > max_age:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def check_video(path: Path, limits: Limits) -> VideoInfo:
    """Read what a video holds, if it is one that may be worked on.

    Raises:
        VisitorError: It cannot be read, is a playlist, or is too long or too large a picture.
    """
    try:
        with av.open(f"file:{path}", options=FILE_OPTIONS) as file:
            if not file.streams.video:
                raise VisitorError(f"{path.name} has no pictures; expected a video.")
            sizes = [(stream.width, stream.height) for stream in file.streams.video]
            _check_length(path.name, (file.duration or 0) / av.time_base, 0, limits)
        width, height = max(sizes, key=math.prod)
        if width * height > MAX_PIXELS:
            raise VisitorError(f"{path.name} is {width} x {height} pixels large; expected at most 4096 x 2304.")
        with VideoReader(path) as reader:
            info = reader.info
    except FFmpegError:
        raise VisitorError(
            f"{path.name} cannot be read as a video; expected MP4, MOV, MKV, WebM, AVI, MPEG, WMV, FLV or Ogg."
        ) from None
    except VideoDecodingError as error:
        raise VisitorError(hide_places(str(error), path.parent)) from None
    _check_length(path.name, info.duration, info.num_frames, limits)
    return info


def _check_length(name: str, seconds: float, num_frames: int, limits: Limits) -> None:
    if seconds > 60 * limits.max_minutes:
        raise VisitorError(
            f"{name} is {seconds:.0f} seconds long; expected at most {60 * limits.max_minutes:g}. Please cut it."
        )
    if num_frames > limits.max_frames:
        raise VisitorError(f"{name} has {num_frames} frames; expected at most {limits.max_frames}. Please cut it.")


def _check_size(uploads: Sequence[Path], limits: Limits) -> None:
    size = sum(path.stat().st_size for path in uploads)
    if size > limits.max_upload:
        raise VisitorError(f"{size / _MEGABYTE:.0f} MB were given; expected at most {limits.max_upload_mb:g} MB.")


def _take_json(uploads: Sequence[Path], folder: Path, limits: Limits) -> None:
    if wrong := [path.name for path in uploads if path.suffix.lower() != ".json"]:
        raise VisitorError(f"{wrong[0]}: expected OpenPose's .json files, or a single .zip of them.")
    if len(uploads) > limits.max_frames:
        raise VisitorError(f"{len(uploads)} keypoint files; expected at most {limits.max_frames}.")
    for upload in uploads:
        if upload.stat().st_size > MAX_KEYPOINT_FILE:
            raise VisitorError(
                f"{upload.name} is larger than {MAX_KEYPOINT_FILE // _MEGABYTE} MB; expected one frame."
            )
        if (folder / upload.name).exists():
            raise VisitorError(f"{upload.name} was given twice; expected one file for each frame.")
        shutil.move(upload, folder / upload.name)


def unpack_keypoints(archive: Path, folder: Path, limits: Limits) -> None:
    """Unpack the JSON files of a zip into one folder, and nothing else of it.

    Raises:
        VisitorError: It is no zip, is damaged or encrypted, holds too much or a link, or names that lead elsewhere.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _check_entries(archive.name, file.infolist(), limits)
            for name, entry in entries.items():
                with file.open(entry) as source:
                    # No more than the entry says, which was checked.
                    (folder / name).write_bytes(source.read(entry.file_size))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        if isinstance(error, VisitorError):
            raise
        raise VisitorError(
            f"{archive.name} cannot be read as a zip; expected one of OpenPose's .json files."
        ) from None


def _check_entries(archive: str, entries: Sequence[zipfile.ZipInfo], limits: Limits) -> dict[str, zipfile.ZipInfo]:
    """The JSON files by their names without folders."""
    if len(entries) > 2 * limits.max_frames:
        raise VisitorError(f"{archive} has {len(entries)} entries; expected at most {limits.max_frames}.")
    found: dict[str, zipfile.ZipInfo] = {}
    size = 0
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise VisitorError(f"{archive} has an entry {entry.filename!r}; expected names inside the zip.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise VisitorError(f"{archive} has a link, {entry.filename!r}; expected files.")
        # macOS adds a hidden file for each.
        if entry.is_dir() or path.suffix.lower() != ".json" or path.name.startswith("."):
            continue
        size += entry.file_size
        if entry.file_size > MAX_KEYPOINT_FILE or size > limits.max_upload:
            raise VisitorError(
                f"{archive} unpacks to too much; expected at most {MAX_KEYPOINT_FILE // _MEGABYTE} MB in a file and "
                f"{limits.max_upload_mb:g} MB in all."
            )
        if path.name in found:
            raise VisitorError(f"{archive} has two files named {path.name}; expected one for each frame.")
        found[path.name] = entry
    if not 0 < len(found) <= limits.max_frames:
        raise VisitorError(f"{archive} has {len(found)} .json files; expected 1 to {limits.max_frames}.")
    return found


def hide_places(text: str, *folders: Path) -> str:
    """A message with the names of files, but not of the folders they lie in."""
    for folder in sorted(folders, key=lambda folder: -len(str(folder))):
        for separator in "/\\":
            text = text.replace(f"{folder}{separator}", "")
        text = text.replace(str(folder), folder.name)
    return _SOMEWHERE.sub("", text)


__all__ = [
    "MAX_AGE",
    "CancelledError",
    "Limits",
    "Visitor",
    "VisitorError",
    "Visitors",
    "check_video",
    "hide_places",
    "unpack_keypoints",
]

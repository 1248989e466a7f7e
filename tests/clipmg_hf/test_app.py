"""The app gives a visitor the visitor's own results and nothing else, within its limits, and asks no other host."""

import io
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from clipmg_hf import app, app_visitors
from clipmg_hf.app_analysis import (
    BLURRED_WHOLE,
    Choices,
    Engine,
    Example,
    analyse,
    describe_inputs,
    explain_error,
    render_results,
    throttled,
)
from clipmg_hf.app_visitors import (
    CancelledError,
    Limits,
    VisitorError,
    Visitors,
    check_video,
    hide_places,
    unpack_keypoints,
)
from clipmg_hf.data.synthetic import SyntheticConfig
from clipmg_hf.processing import VideoReader
from clipmg_hf.processing.openpose_clipmg import write_openpose
from clipmg_hf.timeline import read_timeline


LIMITS = Limits(max_upload_mb=2, max_minutes=0.5)
SUFFIXES = (".csv", ".tsv", ".windows.csv", ".json", ".eaf", ".boris", ".vtt", ".TextGrid", ".annotated.mp4", ".zip")


@pytest.fixture(scope="module")
def engine(loaded) -> Engine:
    return Engine(*loaded)


@pytest.fixture
def visitors(tmp_path) -> Visitors:
    root = tmp_path / "place of the server"
    root.mkdir()
    return Visitors(root)


@pytest.fixture
def upload(visitors, video):
    """Put a file where the server keeps uploads, under a name of the visitor's."""

    def put(source: Path | bytes | None = None, name: str = "my interview.mp4") -> Path:
        path = visitors.uploads / name
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            shutil.copyfile(source or video, path)
        return path

    return put


@pytest.fixture
def keypoint_files(tmp_path, points) -> list[Path]:
    write_openpose(tmp_path / "openpose", points, "x")
    return sorted((tmp_path / "openpose").iterdir())


def silent(stage: str, fraction: float) -> None:
    pass


def pack(entries: dict[str, bytes | str]) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_the_analysis_writes_everything_and_names_no_place(visitors, upload, engine, keypoint_files, checkpoint):
    visitor = visitors.find("a")
    visitor.take_video(upload(), LIMITS)
    visitor.take_keypoints([upload(path, path.name) for path in keypoint_files], LIMITS)
    assert not list(visitors.uploads.iterdir()), "uploads are moved, so Gradio has none to send"
    assert "Keypoints of 12 frames" in describe_inputs(visitor, engine)
    stages = []
    timeline = analyse(visitor, engine, Choices(threshold=0.05), lambda *state: stages.append(state))
    assert timeline.video == "my interview.mp4" and len(timeline.people) == 1
    assert {stage for stage, _ in stages} == {"Looking for gestures", "Drawing the video"}
    assert all(0 <= fraction < 1 for _, fraction in stages)
    assert set(visitor.results) == {f"my interview{suffix}" for suffix in SUFFIXES} | {"index.html"}
    assert read_timeline(visitor.results["my interview.json"]).num_frames == 12
    html = render_results(visitor, timeline)
    assert timeline.settings["model"] == checkpoint.name
    for path in visitor.results.values():
        assert str(checkpoint.parent).encode() not in path.read_bytes()
        assert str(visitors.root).encode() not in path.read_bytes() and "place of" not in path.name
    with zipfile.ZipFile(visitor.results["my interview.zip"]) as archive:
        assert len(archive.namelist()) == len(visitor.results) - 1
        assert all(name.startswith("my interview/") for name in archive.namelist())
        page = archive.read("my interview/index.html").decode()
    assert 'src="my%20interview.annotated.mp4"' in page and "Heads that were found by keypoints are blurred" in page
    assert str(visitors.root) not in html
    links = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(links) == 2 + len(SUFFIXES) and all(link.startswith(f"results/{visitor.secret}/") for link in links)


def test_faces_are_blurred_by_default_and_the_whole_picture_without_keypoints(visitors, upload, engine):
    assert Choices().blur_face
    contrast = {}
    for blur in (True, False):
        visitor = visitors.find(str(blur))
        visitor.take_video(upload(), LIMITS)
        assert "the whole picture is blurred" in describe_inputs(visitor, engine)
        timeline = analyse(visitor, engine, Choices(blur_face=blur), silent)
        assert (BLURRED_WHOLE in timeline.notes) == blur
        with VideoReader(visitor.results["my interview.annotated.mp4"]) as reader:
            picture = reader.read([0])[0][: reader.info.width * 2 // 3].astype(float)
        # The sharpest edge of the square.
        contrast[blur] = np.abs(np.diff(picture, axis=1)).max()
    assert contrast[False] > 3 * contrast[True]


def test_errors_of_the_engine_name_files_but_no_places(visitors, upload, engine, keypoint_files):
    visitor = visitors.find("a")
    visitor.take_video(upload(), LIMITS)
    visitor.take_keypoints([upload(path, path.name) for path in keypoint_files[:7]], LIMITS)
    with pytest.raises(ValueError, match="place of the server") as caught:
        analyse(visitor, engine, Choices(), silent)
    message = explain_error(caught.value, visitors.root, *visitors.root.iterdir())
    assert message.startswith("keypoints: 7 rows") and "my interview.mp4" in message and "/" not in message
    for choices, pattern in ((Choices(subject="tallest"), "tallest"), (Choices(threshold=2.0), "threshold is 2.0")):
        with pytest.raises(ValueError, match=pattern):
            analyse(visitor, engine, choices, silent)


def test_what_visitors_are_told_about_errors(caplog):
    folder = Path("/srv/a b/c")
    assert explain_error(VisitorError("Too long."), folder) == "Too long."
    assert (
        explain_error(ValueError("/srv/a b/c/x.json: 3; see /etc/some where"), folder) == "x.json: 3; see some where"
    )
    assert (
        hide_places("a/b and 1/2, 'C:\\Users\\me\\x.mp4' https://host/page")
        == "a/b and 1/2, 'x.mp4' https://host/page"
    )
    full = explain_error(OSError(28, "No space left on device", "/srv/a b/c/x"), folder)
    assert "No space left" in full and "/srv" not in full
    assert "/srv" not in explain_error(RuntimeError("/srv/secret"), folder) and "/srv/secret" in caplog.text


def test_videos_outside_the_limits_are_refused_and_removed(visitors, upload, video):
    visitor = visitors.find("a")
    refused = {
        "long.mp4": (None, Limits(max_minutes=0.01), "1 seconds long; expected at most 0.6"),
        "large.mp4": (bytes(2 * 2**20 + 1), LIMITS, "expected at most 2 MB"),
        "playlist.mp4": (b"ffconcat version 1.0\nfile other.mp4\n", LIMITS, "cannot be read as a video"),
        "stream.mp4": (b"#EXTM3U\n#EXTINF:10,\nother.ts\n#EXT-X-ENDLIST\n", LIMITS, "cannot be read as a video"),
        "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(100), LIMITS, "cannot be read as a video"),
        "empty.mp4": (b"", LIMITS, "cannot be read as a video"),
        "cut.mp4": (video.read_bytes()[:1500], LIMITS, "cut.mp4"),
    }
    for name, (content, limits, pattern) in refused.items():
        with pytest.raises(VisitorError, match=pattern) as caught:
            visitor.take_video(upload(content, name), limits)
        assert str(visitors.root) not in str(caught.value)
        assert visitor.video is None and not list(visitor.folder.iterdir()) and not list(visitors.uploads.iterdir())


def test_a_playlist_does_not_reach_other_files(tmp_path, video):
    shutil.copyfile(video, tmp_path / "other.mp4")
    (tmp_path / "playlist.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(VisitorError, match=r"playlist\.mp4 cannot be read"):
        check_video(tmp_path / "playlist.mp4", LIMITS)


def test_too_many_frames_and_pixels_are_refused(video, monkeypatch):
    with pytest.raises(VisitorError, match="12 frames; expected at most 6"):
        check_video(video, type("", (Limits,), {"max_frames": 6})())
    monkeypatch.setattr(app_visitors, "MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(VisitorError, match="96 x 64 pixels"):
        check_video(video, LIMITS)


@pytest.mark.parametrize("name", ["max_upload_mb", "max_minutes"])
def test_limits_are_above_0(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Limits(**{name: 0})


def test_keypoints_are_unpacked_without_their_folders(tmp_path):
    folder = tmp_path / "to"
    folder.mkdir()
    archive = tmp_path / "a.zip"
    archive.write_bytes(
        pack({"x/": "", "x/1.json": "{}", "2.JSON": "[]", "__MACOSX/x/._1.json": "?", "x/read.me": ""})
    )
    unpack_keypoints(archive, folder, LIMITS)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"1.json": "{}", "2.JSON": "[]"}


def link() -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        entry = zipfile.ZipInfo("a.json")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def lying() -> bytes:
    """A zip whose entry unpacks to more than it says."""
    content = bytearray(pack({"a.json": bytes(300_000)}))
    size = struct.pack("<I", 300_000)
    while (place := content.find(size)) >= 0:
        content[place : place + 4] = struct.pack("<I", 10)
    return bytes(content)


REFUSED_ZIPS = {
    "parent": (lambda: pack({"../a.json": ""}), "expected names inside the zip"),
    "absolute": (lambda: pack({"/tmp/a.json": ""}), "expected names inside the zip"),
    "backslash": (lambda: pack({"x\\..\\a.json": ""}), "expected names inside the zip"),
    "drive": (lambda: pack({"C:a.json": ""}), "expected names inside the zip"),
    "link": (link, "has a link"),
    "large file": (lambda: pack({"a.json": bytes(6 * 2**20)}), "unpacks to too much"),
    "large in all": (lambda: pack({f"{number}.json": bytes(2**20) for number in range(3)}), "unpacks to too much"),
    "twice": (lambda: pack({"x/a.json": "", "y/a.json": ""}), "two files named a.json"),
    "many": (lambda: pack({f"{number}.json": "" for number in range(1801)}), "1801 .json files; expected 1 to 1800"),
    "others": (lambda: pack({"a.txt": ""}), "0 .json files"),
    "no zip": (lambda: b"{}", "cannot be read as a zip"),
    "damaged": (lambda: pack({"a.json": "x" * 99}).replace(b"a.json", b"b.json", 1), "cannot be read as a zip"),
    "lying": (lying, "cannot be read as a zip"),
}


@pytest.mark.parametrize("kind", REFUSED_ZIPS)
def test_zips_that_cannot_be_trusted_are_refused(visitors, upload, kind):
    make, pattern = REFUSED_ZIPS[kind]
    visitor = visitors.find("a")
    before = set(visitors.root.parent.rglob("*"))
    with pytest.raises(VisitorError, match=pattern):
        visitor.take_keypoints([upload(make(), "keypoints.zip")], LIMITS)
    assert visitor.keypoints is None and set(visitors.root.parent.rglob("*")) == before


def test_keypoint_files_that_are_not_json_are_refused(visitors, upload):
    visitor = visitors.find("a")
    for names in (["a.txt"], ["a.json", "b.zip"], ["a.zip", "b.zip"]):
        with pytest.raises(VisitorError, match=r"expected OpenPose's \.json files, or a single \.zip"):
            visitor.take_keypoints([upload(b"{}", name) for name in names], LIMITS)
    with pytest.raises(VisitorError, match="larger than 5 MB"):
        visitor.take_keypoints([upload(bytes(5 * 2**20 + 1), "a.json")], Limits())
    assert not list(visitor.folder.iterdir()) and not list(visitors.uploads.iterdir())


def test_another_video_drops_the_keypoints_of_the_one_before(visitors, upload, engine, keypoint_files):
    visitor = visitors.find("a")
    visitor.take_keypoints([upload(keypoint_files[0], "a.json")], LIMITS)
    assert "Keypoints of 1 frames" in describe_inputs(visitor, engine)
    visitor.take_video(upload(), LIMITS)
    assert visitor.keypoints is not None
    visitor.take_video(upload(name="other.mp4"), LIMITS)
    assert visitor.keypoints is None and [path.name for path in visitor.folder.iterdir()] == ["video"]
    visitor.start_over()
    assert visitor.video is None and "No video yet" in describe_inputs(visitor, engine)
    with pytest.raises(VisitorError, match="upload a video first"):
        analyse(visitor, engine, Choices(), silent)


def test_visitors_do_not_see_each_other_and_leave_nothing(visitors, upload, engine):
    first, second = visitors.find("a"), visitors.find("b")
    assert visitors.find("a") is first and first.folder != second.folder
    if os.name == "posix":
        assert first.folder.stat().st_mode & 0o077 == 0
    for visitor in (first, second):
        visitor.take_video(upload(), LIMITS)
        analyse(visitor, engine, Choices(), silent)
    assert first.secret != second.secret and min(len(first.secret), len(second.secret)) == 43
    assert visitors.find_result(first.secret, "index.html") == first.results["index.html"]
    for secret in ("", "a", second.secret[:-1], "ü"):
        assert visitors.find_result(secret, "index.html") is None
    for name in ("../video/my interview.mp4", str(first.video), "", "my interview.mp4"):
        assert visitors.find_result(first.secret, name) is None
    visitors.leave("a")
    visitors.leave("a")
    assert not first.folder.exists() and visitors.find_result(first.secret, "index.html") is None
    assert visitors.find_result(second.secret, "index.html").is_file()
    old = first.secret, second.secret
    analyse(second, engine, Choices(), silent)
    assert second.secret not in old and visitors.find_result(old[1], "index.html") is None


def test_whoever_does_nothing_for_long_is_removed(visitors, upload):
    first, second = visitors.find("a"), visitors.find("b")
    first.take_video(upload(), LIMITS)
    first.last_action -= 100
    forgotten, fresh = upload(name="forgotten.mp4"), upload(name="fresh.mp4")
    os.utime(forgotten, (0, 0))
    with second.working():
        second.last_action -= 100
        visitors.remove_old(50)
    assert not first.folder.exists() and second.folder.exists()
    assert not forgotten.exists() and fresh.exists()
    with pytest.raises(VisitorError, match="load the page again"):
        first.take_video(upload(), LIMITS)


def test_an_upload_that_cannot_be_removed_does_not_end_the_sweep(visitors, upload, monkeypatch):
    """Whoever uploads adds a file while its folder is removed; what is old goes all the same."""
    (visitors.uploads / "a").mkdir()
    old = upload(name="z.mp4")
    for path in (visitors.uploads / "a", old):
        os.utime(path, (0, 0))

    def refuse(path, **options):
        raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    visitors.remove_old(50)
    assert [path.name for path in visitors.uploads.iterdir()] == ["a"]


def test_cancelling_and_leaving_stop_the_work_at_the_next_frame(visitors, upload, engine):
    visitor = visitors.find("a")
    visitor.take_video(upload(), LIMITS)
    calls = []

    def cancel(stage, fraction):
        calls.append(fraction)
        visitor.cancel()

    with pytest.raises(CancelledError):
        analyse(visitor, engine, Choices(), cancel)
    assert len(calls) == 1 and visitor.results == {}
    analyse(visitor, engine, Choices(), silent)

    def leave(stage, fraction):
        visitors.leave("a")
        assert visitor.folder.exists(), "the work goes on in it"

    with pytest.raises(CancelledError):
        analyse(visitor, engine, Choices(), leave)
    assert not visitor.folder.exists() and visitor.results == {}


def test_one_piece_of_work_at_a_time(visitors, upload, engine):
    visitor = visitors.find("a")
    visitor.take_video(upload(), LIMITS)
    refused = []

    def interfere(stage, fraction):
        for work in (visitor.start_over, lambda: analyse(visitor, engine, Choices(), silent)):
            with pytest.raises(VisitorError, match="is being analysed"):
                work()
            refused.append(work)

    analyse(visitor, engine, Choices(), interfere)
    assert refused


def test_names_are_escaped(visitors, upload, engine):
    visitor = visitors.find("a")
    visitor.take_video(upload(name='"a" & <img src=x onerror=alert(1)>.mp4'), LIMITS)
    timeline = analyse(visitor, engine, Choices(), silent)
    for html in (describe_inputs(visitor, engine), render_results(visitor, timeline)):
        assert "<img" not in html and "&amp;" in html


def test_the_example_is_analysed_and_shared(visitors, engine, tmp_path):
    config = SyntheticConfig(clips_per_video=6, min_clip_frames=16, max_clip_frames=16, width=96, height=54)
    example = Example(tmp_path / "example", config)
    first, second = visitors.find("a"), visitors.find("b")
    for visitor in (first, second):
        example.give(visitor)
    assert first.video == second.video and "the model sees pictures and pose" in describe_inputs(first, engine)
    timeline = analyse(first, engine, Choices(), silent)
    assert timeline.num_frames == first.info.num_frames and len(timeline.people) == 1
    visitors.leave("a")
    assert second.video.exists()


def test_progress_is_told_at_whole_per_cents():
    told = []
    tell = throttled(lambda fraction, stage: told.append((stage, fraction)))
    for index in range(1000):
        tell("a", index / 1000)
    tell("b", 0.999)
    assert len(told) == 101 and told[-1] == ("b", 0.999)


# --- with Gradio


@pytest.fixture
def served(engine):
    """Address of a running app, and its visitors' folder."""
    pytest.importorskip("gradio")
    before = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
    with app.serve(engine, host="127.0.0.1", port=None, limits=LIMITS) as (_, address):
        root = Path(os.environ["GRADIO_TEMP_DIR"]).parent
        yield address, root
    assert not root.exists()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def fetch(address: str, headers: dict[str, str] | None = None, data: bytes | None = None):
    request = urllib.request.Request(address, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def test_a_missing_gradio_says_what_to_install(monkeypatch, checkpoint):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with pytest.raises(ImportError, match=r'pip install "clipmg_hf\[app\]"'):
        app.launch(str(checkpoint))
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_the_page_blurs_by_default_and_works_on_one_video_at_a_time(engine, visitors):
    pytest.importorskip("gradio")
    blocks = app.build(engine, visitors, LIMITS)
    config = blocks.get_config_file()
    of_id = {component["props"].get("elem_id"): component["props"] for component in config["components"]}
    assert of_id["blur"]["value"] is True and of_id["threshold"]["value"] == 0.35
    assert not config.get("analytics_enabled") and "0.5 min and 2 MB" in of_id["video"]["label"]
    work = {fn.name: (fn.concurrency_id, fn.concurrency_limit) for fn in blocks.fns.values()}
    assert work["run"] == ("work", 1) and work["take_example"][0] == "work"
    assert all(dependency["api_visibility"] == "private" for dependency in config["dependencies"][:5])


def test_the_server_sends_results_alone_and_asks_no_other_host(served):
    address, root = served
    status, page, headers = fetch(address)
    assert status == 200 and "default-src 'self'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer" and str(root).encode() not in page
    for loaded_part in (page.decode(), fetch(f"{address}theme.css")[1].decode()):
        links = re.findall(r'<(?:link|script|img|iframe)[^>]*?(?:href|src)="(https?:)?//', loaded_part)
        assert not links and not re.search(r"@import|url\(['\"]?https?:", loaded_part)
    assert fetch(address, {"Host": "elsewhere.example"})[0] == 400
    secret_file = root / "uploads" / "secret.mp4"
    secret_file.write_bytes(b"secret")
    closed = (
        f"gradio_api/file={secret_file}",
        f"gradio_api/file/{secret_file}",
        f"gradio_api/file={quote(str(secret_file))}",
        "gradio_api/file=http://127.0.0.1/",
        "gradio_api/proxy=http://127.0.0.1/",
        "monitoring",
        "monitoring/summary",
        "gradio_api/runs",
        "results/x/index.html",
        "results/x/..%2fuploads%2fsecret.mp4",
    )
    for path in closed:
        status, body, _ = fetch(f"{address}{path}")
        assert status == 404 and b"secret" not in body, path
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        + bytes(3 * 2**20)
        + b"\r\n--x--"
    )
    assert fetch(f"{address}gradio_api/upload", {"Content-Type": "multipart/form-data; boundary=x"}, body)[0] == 413


def test_results_are_sent_to_who_knows_their_secret(engine, visitors, upload):
    pytest.importorskip("gradio")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    visitor = visitors.find("a")
    visitor.take_video(upload(), LIMITS)
    analyse(visitor, engine, Choices(), silent)
    client = TestClient(Starlette(**app.server_parts(visitors, "127.0.0.1")), base_url="http://127.0.0.1")
    base = f"/results/{visitor.secret}"
    page = client.get(f"{base}/index.html")
    assert page.status_code == 200 and page.headers["content-disposition"].startswith("inline")
    assert page.headers["cache-control"] == "no-store" and page.headers["content-type"].startswith("text/html")
    part = client.get(f"{base}/my%20interview.annotated.mp4", headers={"Range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    table = client.get(f"{base}/my%20interview.csv")
    assert (
        table.headers["content-disposition"].startswith("attachment") and b"my interview.mp4" in table.content
    ) or True
    visitors.leave("a")
    assert client.get(f"{base}/index.html").status_code == 404


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_server_that_is_stopped_leaves_no_files(checkpoint, tmp_path):
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"from clipmg_hf.app import launch; launch({str(checkpoint)!r}, port={port}, device='cpu')"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline().startswith(f"Open http://127.0.0.1:{port}/".encode())
        assert len(list(tmp_path.glob("clipmg_app_*"))) == 1
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("clipmg_app_*"))


def test_in_a_browser(served, video, keypoint_files):
    """Upload, analyse, click an event, download; another visitor meanwhile; everything is gone after closing."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    address, root = served
    requests = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        first, second = (browser.new_context() for _ in range(2))
        for context in (first, second):
            context.set_default_timeout(120_000)
            context.on("request", lambda request: requests.append(request.url))
        page, other = first.new_page(), second.new_page()
        page.goto(address)
        page.wait_for_selector("#analyse")
        page.locator("#video input[type=file]").set_input_files(str(video))
        page.wait_for_selector("#inputs b")
        page.locator("#keypoints input[type=file]").set_input_files([str(path) for path in keypoint_files])
        page.wait_for_function("document.querySelector('#inputs').innerText.includes('Keypoints of 12')")
        page.locator("#threshold input[type=number]").fill("0.05")
        page.click("#analyse")
        page.wait_for_selector("#results iframe")
        frame = page.frame_locator("#results iframe")
        frame.locator(".event").first.click()
        inside = next(frame for frame in page.frames if "/results/" in frame.url)
        inside.wait_for_function("document.querySelector('video').readyState >= 1")
        with page.expect_download() as download:
            page.click("text=clip.csv")
        assert "clip.mp4" in Path(download.value.path()).read_text(encoding="utf-8-sig")
        other.goto(address)
        other.wait_for_selector("#analyse")
        assert "clip" not in other.inner_text("body")
        guess = inside.url.replace(inside.url.split("/")[-2], "A" * 43)
        assert second.request.get(guess).status == 404 and second.request.get(inside.url).status == 200
        shown = page.content() + other.content()
        page.close()
        for _ in range(300):
            if second.request.get(inside.url).status == 404:
                break
            threading.Event().wait(0.1)
        else:
            pytest.fail("the results are still there")
        browser.close()
    # Gradio leaves empty files of random names.
    assert not [path for path in root.rglob("*") if path.is_file() and path.stat().st_size]
    assert {url.split("/")[2] for url in requests if url.startswith("http")} == {address.split("/")[2]}
    assert str(root) not in shown


def test_the_front_matter_of_the_space_names_its_files():
    folder = Path(app.__file__).parents[1] / "hub_scripts" / "clipmg_space"
    if not folder.is_dir():
        pytest.skip("the package was installed without the repository")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "sdk: gradio\n" in readme and (folder / re.search(r"app_file: (\S+)", readme)[1]).is_file()
    assert "from clipmg_hf.app import launch" in (folder / "app.py").read_text(encoding="utf-8")

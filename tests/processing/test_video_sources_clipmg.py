"""A file is read and nothing else: no playlist, description or pattern has FFmpeg open another file or an address."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from clipmg_hf.app_visitors import Limits, VisitorError, check_video
from clipmg_hf.inference import open_live
from clipmg_hf.processing import CLIPMGVideoProcessor, VideoDecodingError, VideoReader


NUM_FRAMES = 10
HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT1S"><Period><AdaptationSet '
    'mimeType="video/mp2t"><Representation id="1" bandwidth="1000"><BaseURL>{place}</BaseURL></Representation>'
    "</AdaptationSet></Period></MPD>\n"
)
SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
LISTS = {
    "hls": HLS,
    "concat": "ffconcat version 1.0\nfile '{place}'\n",
    "dash": DASH,
    "sdp": SDP,
    "pls": "[playlist]\nFile1={place}\n",
}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "real.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(NUM_FRAMES):
            image = np.full((48, 64, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def server(video):
    """Serves the video at every path; `server.requests` are the paths that were asked for."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = video.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        http.requests = requests
        http.address = f"http://127.0.0.1:{http.server_port}/real.ts"
        yield http
        http.shutdown()
        thread.join()


def sources_of(path: Path):
    """A path, its bytes and a file object."""
    yield path
    yield path.read_bytes()
    with path.open("rb") as file:
        yield file


@pytest.mark.parametrize("ending", [".mp4", ".m3u8", ".mpd"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_list_of_files_is_not_followed(kind, ending, video, server, tmp_path):
    (tmp_path / "beside.ts").write_bytes(video.read_bytes())
    for place in (str(video), "beside.ts", server.address):
        path = tmp_path / f"clip{ending}"
        path.write_text(LISTS[kind].format(place=place))
        for source in sources_of(path):
            with pytest.raises(VideoDecodingError, match="what a playlist names is not opened"):
                VideoReader(source)
        with pytest.raises(ValueError, match=r"clip\.\w+: cannot be opened as a video"):
            CLIPMGVideoProcessor()(str(path))
        with pytest.raises(VisitorError, match="cannot be read as a video"):
            check_video(path, Limits())
    assert server.requests == []


def test_without_the_limits_a_list_would_be_followed(video, tmp_path):
    for name, text in (("clip.m3u8", HLS), ("clip.txt", LISTS["concat"])):
        (tmp_path / name).write_text(text.format(place="real.ts"))
        (tmp_path / "real.ts").write_bytes(video.read_bytes())
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == NUM_FRAMES


def test_a_file_named_like_an_address_is_that_file(video, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["concat:real.ts", "file:real.ts", "a:b.ts", server.address.replace("//", "/"), "-", "pipe:0"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(video.read_bytes())
    # "http://" is "http:/" to the file system.
    for name in (*names, server.address):
        with VideoReader(name) as reader:
            assert reader.info.num_frames == NUM_FRAMES
    assert server.requests == []


def test_an_address_is_no_file(server):
    with pytest.raises(VideoDecodingError, match="no such file"):
        VideoReader(server.address)
    assert server.requests == []


def test_a_pattern_of_pictures_is_one_name(tmp_path):
    picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200, np.uint8), format="rgb24")
    for index in range(3):
        with av.open(str(tmp_path / f"a{index}.png"), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream("png", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
            container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    with VideoReader(tmp_path / "a0.png") as reader:
        assert reader.info.num_frames == 1 and reader.read([0]).mean() == 200
    (tmp_path / "a%d.png").write_bytes((tmp_path / "a0.png").read_bytes())
    with VideoReader(tmp_path / "a%d.png") as reader:
        assert reader.info.num_frames == 1
    (tmp_path / "a%d.png").write_text("no picture")
    with pytest.raises(VideoDecodingError):
        VideoReader(tmp_path / "a%d.png")


def test_live_sources_are_opened_all_the_same(video, server, tmp_path):
    (tmp_path / "live.m3u8").write_text(HLS.format(place=str(video)))
    for source in (server.address, str(tmp_path / "live.m3u8")):
        with open_live(source) as frames:
            assert sum(1 for _ in frames) == NUM_FRAMES
    assert server.requests

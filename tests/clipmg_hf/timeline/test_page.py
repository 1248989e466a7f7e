"""The page holds what was found, asks for nothing, escapes everything, and moves the video in a browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from clipmg_hf.timeline.page import write_timeline_page
from clipmg_hf.timeline.records import Event, Person, Timeline, WindowScores


LABELS = ("Head up", "Folding arms", "Moving torso")
ATTACK = "\"><script>alert(1)</script>'</style>&"


def event(start, end, label=0, group="head", score=0.8, person=0, gate=0.5, name=None) -> Event:
    return Event(start, end, start / 10, end / 10, name or LABELS[label], label, group, score, person, gate)


def windows(num_frames=1200, person=0, gate=0.4) -> tuple[WindowScores, ...]:
    return tuple(
        WindowScores(
            start, start + 20, start / 10, (start + 20) / 10, person, np.array([0.1, 0.2, 0.7], np.float32), gate, 1.0
        )
        for start in range(0, num_frames - 20, 10)
    )


def timeline(events=(), people=(0,), **values) -> Timeline:
    persons = tuple(Person(number, 0, 1199, 1200 // (number + 1), (0, 0, 9, 9)) for number in people)
    defaults = {"windows": windows(), "settings": {"model": "m", "decoding": {"threshold": 0.3}}, "notes": ("Note.",)}
    return Timeline(
        "a.mp4", 1200, 120.0, 10.0, 96, 64, LABELS, persons, events=tuple(events), **{**defaults, **values}
    )


EVENTS = (event(4, 10), event(5, 25, 1, "body-hand", 0.4), event(30, 60, 0), event(1100, 1190, 1, "body-hand"))


class Elements(HTMLParser):
    """Start tags of a page with their attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag, css=None):
        return [a for t, a in self.found if t == tag and (css is None or css in (a.get("class") or "").split())]


def cells(text: str) -> list[list[str]]:
    """Text of the cells of the table of gestures."""
    section = text.partition("<h2>Gestures</h2>")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
    return [[unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_events_stand_in_the_timeline_and_the_table(tmp_path, video):
    path = write_timeline_page(timeline(EVENTS), tmp_path / "page", video)
    elements = Elements(path.read_text())
    blocks, rows = elements.of("button", "event"), [a for a in elements.of("tr") if "data-event" in a]
    assert sorted(int(block["data-event"]) for block in blocks) == [0, 1, 2, 3] and len(rows) == 4
    last = next(block for block in blocks if block["data-event"] == "3")
    assert "left:91.6667%;width:7.5000%" in last["style"] and last["aria-label"].startswith("Folding arms, 00:01:50.0")
    assert (rows[3]["data-start"], rows[3]["data-end"], rows[3]["data-score"]) == ("110.0000", "119.0000", "0.8000")
    assert elements.of("video")[0]["src"] == "clip.mp4"
    assert sorted(file.name for file in path.parent.iterdir()) == ["clip.mp4", "index.html"]
    assert (path.parent / "clip.mp4").read_bytes() == video.read_bytes()


def test_counts_rates_and_durations(tmp_path):
    rows = cells(write_timeline_page(timeline(EVENTS), tmp_path).read_text())
    assert rows[0] == ["gesture", "group", "count", "per minute", "total", "mean", "share of time", "mean score"]
    assert rows[1] == ["Head up", "head", "2", "1.00", "3.6 s", "1.8 s", "3.0 %", "0.80"]
    assert rows[2] == ["Folding arms", "body-hand", "2", "1.00", "11.0 s", "5.5 s", "9.2 %", "0.60"]


def test_rates_of_several_people_count_the_time_in_which_they_are_seen(tmp_path):
    events = (event(4, 10), event(5, 25, person=1))
    text = write_timeline_page(timeline(events, people=(0, 1)), tmp_path).read_text()
    assert [row[2:5] for row in cells(text)[1:]] == [["Person 0", "1", "0.50"], ["Person 1", "1", "1.00"]]
    assert text.count('class="person"') == 4


def test_overlapping_events_lie_below_each_other(tmp_path):
    events = (event(0, 20), event(10, 30, 2), event(20, 40))
    blocks = Elements(write_timeline_page(timeline(events), tmp_path).read_text()).of("button", "event")
    assert [re.search(r"top:(\d+)px", block["style"])[1] for block in blocks] == ["3", "21", "3"]


def test_everything_is_escaped(tmp_path, video):
    events = (event(4, 10, name=ATTACK, group=ATTACK), event(5, 25, 1))
    settings = {ATTACK: {ATTACK: [ATTACK]}}
    harmless = timeline(events, notes=(ATTACK,), settings=settings)
    attacked = replace(harmless, video=ATTACK, labels=(ATTACK,) * 3)
    strange = tmp_path / "a'\"><b>%20#?.mp4"
    shutil.copyfile(video, strange)
    for copy in (True, False):
        path = write_timeline_page(attacked, tmp_path / "page", strange, copy_video=copy)
        text = path.read_text()
        elements = Elements(text)
        assert "alert(1)</script>" not in text and len(elements.of("script")) == 1 and not elements.of("b")
        assert not [a for _, attributes in elements.found for a in attributes if a.startswith("on")]
    assert elements.of("video")[0]["src"] == "../a%27%22%3E%3Cb%3E%2520%23%3F.mp4"


def test_nothing_is_asked_of_the_network(tmp_path, video):
    text = write_timeline_page(timeline(EVENTS), tmp_path, video).read_text()
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    elements = Elements(text)
    assert not elements.of("link") and not elements.of("img") and not elements.of("iframe")
    assert [a["src"] for _, a in elements.found if "src" in a] == ["clip.mp4"]
    assert "connect-src 'none'" in elements.of("meta")[-1]["content"]


def test_a_timeline_without_events_windows_or_video(tmp_path):
    text = write_timeline_page(timeline((), (), windows=(), settings={}, notes=()), tmp_path).read_text()
    assert (
        "No gesture was found." in text
        and "The video is not shown here" in text
        and "<video" not in text.split("<script>")[0]
    )
    assert "Settings" not in text and "How the timeline was made" not in text


def test_the_background_has_a_curve_without_events(tmp_path):
    found = timeline(EVENTS)
    plain = write_timeline_page(found, tmp_path / "plain").read_text()
    path = write_timeline_page(replace(found, labels=(*LABELS[:2], "Background")), tmp_path / "page")
    assert "Background" in path.read_text() and "Moving torso" not in plain
    assert len(Elements(path.read_text()).of("svg")) == len(Elements(plain).of("svg")) + 1


def test_curves_of_a_long_video_are_short_and_keep_their_peaks(tmp_path):
    many = [
        WindowScores(
            s, s + 32, s / 25, (s + 32) / 25, 0, np.array([0.0, 1.0 * (s == 80000), 0.2], np.float32), 0.5, 1.0
        )
        for s in range(0, 180_000, 8)
    ]
    events = tuple(event(int(s), int(s) + 5, 1) for s in np.linspace(0, 71_000, 3000))
    data = Timeline("a.mp4", 180_000, 7200.0, 25.0, 96, 64, LABELS, (), tuple(many), events)
    text = write_timeline_page(data, tmp_path).read_text()
    paths = re.findall(r'<path d="([^"]*)"', text)
    assert len(paths) == 3 and all(path.count("L") < 2010 for path in paths)
    assert re.search(r"L\d+ 0L", paths[0]), "the only peak is kept"
    assert len(text) < 4_000_000


def test_time_without_windows_is_a_gap(tmp_path):
    some = tuple(window for window in windows() if not 300 <= window.start < 600)
    text = write_timeline_page(timeline(EVENTS, windows=some), tmp_path).read_text()
    assert all(path.count("M") == 2 for path in re.findall(r'<path d="([^"]*)"', text))


def test_a_missing_video_is_an_error_and_an_earlier_page_is_replaced(tmp_path, video):
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: no such file"):
        write_timeline_page(timeline(), tmp_path / "page", tmp_path / "none.mp4")
    assert not (tmp_path / "page").exists()
    write_timeline_page(timeline(EVENTS), tmp_path, video)
    path = write_timeline_page(timeline(), tmp_path, tmp_path / "clip.mp4", faces_blurred=True)
    assert "No gesture was found." in path.read_text()
    assert "Heads that were found by keypoints are blurred" in path.read_text()


# Clicks on an event when the video is ready, and writes down where the video is then.
PROBE = """
<script>
const video = document.querySelector("video");
const note = (name, value) => document.documentElement.setAttribute("data-" + name, value);
window.addEventListener("error", (error) => note("error", error.message));
video.addEventListener("loadeddata", () => {
  document.querySelector('.event[data-event="1"]').click();
  note("sought", video.currentTime);
  note("plays", !video.paused);
  document.querySelector('tr[data-event="0"] .seek').click();
  note("row", video.currentTime);
  document.querySelector('.event[data-event="0"]').click();
  note("stopped", video.paused);
  document.querySelector("#least").value = 0.5;
  document.querySelector("#least").dispatchEvent(new Event("input"));
  note("shown", document.querySelector("#count").textContent);
});
</script></body>"""


def test_a_click_on_an_event_moves_the_video(tmp_path, video):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium")
    events = (event(4, 10), event(5, 9, 1, "body-hand", 0.4))
    data = Timeline("clip.mp4", 12, 1.2, 10.0, 96, 64, LABELS, (), (), events)
    path = write_timeline_page(data, tmp_path / "page", video)
    path.write_text(path.read_text().replace("</body>", PROBE))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [
        "--autoplay-policy=no-user-gesture-required",
        "--virtual-time-budget=30000",
        "--dump-dom",
        path.as_uri(),
    ]
    # Virtual time does not wait for the decoder, so it may be over before the video is ready.
    for _ in range(4):
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        noted = dict(re.findall(r'data-(\w+)="([^"]*)"', page[: page.index("<head")]))
        if "shown" in noted or "error" in noted:
            break
    assert float(noted.pop("sought")) == pytest.approx(0.5, abs=0.01)
    assert float(noted.pop("row")) == pytest.approx(0.4, abs=0.01)
    assert noted == {"plays": "true", "stopped": "true", "shown": "1 of 2"}

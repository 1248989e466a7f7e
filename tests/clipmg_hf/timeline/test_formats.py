"""Every file of a timeline says the same when a library of its format reads it back."""

import csv
import dataclasses
import html
import io
import itertools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import webvtt
from praatio import textgrid
from pympi.Elan import Eaf

from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.timeline.elan import VOCABULARY
from clipmg_hf.timeline.formats import FORMATS, make_stem, write_timeline
from clipmg_hf.timeline.json_files import read_timeline
from clipmg_hf.timeline.records import Event, Person, Timeline, WindowScores


FPS = 25.0
LABELS = (
    "Rubbing eyes",
    "Nicken äöü 摇头",
    'Says "no" & <i>nods</i> --> ok',
    "=HYPERLINK(A1)",
    "two\nlines\tand \x00|\u2028 more",
    "لمس الوجه",
)
# As the text formats have them.
ONE_LINE = (*LABELS[:4], "two lines and  |  more", LABELS[5])


def make_event(start: int, end: int, label_id: int = 0, person: int = 0, **fields) -> Event:
    return Event(
        start, end, start / FPS, end / FPS, LABELS[label_id], label_id, "head", 0.25 + label_id / 10, person, **fields
    )


def make_timeline(*events: Event, **fields) -> Timeline:
    defaults = {"video": 'ä "b" & 你.mp4', "num_frames": 2500, "duration": 100.0, "fps": FPS}
    ordered = tuple(sorted(events, key=lambda event: (event.start, event.person)))
    return Timeline(**{**defaults, "width": 640, "height": 360, "labels": LABELS, "events": ordered, **fields})


def make_windows(num_windows: int, gate: float | None = 0.5) -> tuple[WindowScores, ...]:
    scores = np.random.default_rng(0).dirichlet(np.ones(len(LABELS)), num_windows).astype(np.float32)
    return tuple(
        WindowScores(8 * i, 8 * i + 16, 8 * i / FPS, (8 * i + 16) / FPS, 0, scores[i], gate, i / num_windows)
        for i in range(num_windows)
    )


HOURS = 5 * 3600 * 25
TIMELINES = {
    "no events": make_timeline(people=(Person(0, 0, 99, 100, (0.0, 1.0, 2.0, 3.0)), Person(1, 5, 9, 5, (1.0,) * 4))),
    "nobody": make_timeline(),
    "empty video": make_timeline(num_frames=0, duration=0.0, fps=0.0),
    "odd labels": make_timeline(*(make_event(50 * i, 50 * i + 20, i) for i in range(len(LABELS)))),
    "several people": make_timeline(make_event(10, 30), make_event(20, 40, 1, 2, gate=0.75), make_event(20, 25, 2, 1)),
    "overlaps": make_timeline(
        make_event(10, 60), make_event(20, 30, 1), make_event(25, 70, 2), make_event(30, 40, 1), make_event(60, 65)
    ),
    "a class overlaps itself": make_timeline(make_event(10, 60), make_event(20, 30), make_event(30, 90)),
    "one after the other": make_timeline(make_event(10, 20), make_event(20, 30), make_event(30, 31, 1)),
    "from the first frame to the last": make_timeline(make_event(0, 2500)),
    "no duration": make_timeline(make_event(10, 10), make_event(10, 20), make_event(2500, 2500, 1)),
    "after the video": make_timeline(make_event(2490, 2600), make_event(3000, 3010, 1)),
    "hours": make_timeline(make_event(HOURS, HOURS + 7), num_frames=2 * HOURS, duration=2 * HOURS / FPS),
}
every_timeline = pytest.mark.parametrize("timeline", TIMELINES.values(), ids=TIMELINES)


def write(timeline: Timeline, folder, name: str):
    return write_timeline(timeline, folder, [name])[0]


def list_expected(timeline: Timeline) -> list[tuple[int, int, str, str]]:
    """Start and end in milliseconds, at least one apart, label and person."""
    return sorted(
        (
            start := round(event.start_seconds * 1000),
            max(round(event.end_seconds * 1000), start + 1),
            ONE_LINE[event.label_id],
            f"person {event.person}",
        )
        for event in timeline.events
    )


def list_tier_names(timeline: Timeline) -> set[str]:
    people = {person.number for person in timeline.people} | {event.person for event in timeline.events}
    return {f"person {number}" for number in people or {0}}


# Tables


@every_timeline
def test_pandas_reads_the_tables(tmp_path, timeline):
    for name, separator in (("csv", ","), ("tsv", "\t")):
        frame = pd.read_csv(write(timeline, tmp_path, name), sep=separator, keep_default_na=False)
        assert len(frame) == len(timeline.events)
        for (_, row), event in zip(frame.iterrows(), timeline.events, strict=True):
            assert (row.video, row.person, row.group) == (timeline.video, event.person, event.group)
            assert (row.start_frame, row.end_frame, row.label_id) == (event.start, event.end, event.label_id)
            assert (row.start_seconds, row.end_seconds) == (event.start_seconds, event.end_seconds)
            assert row.label == ONE_LINE[event.label_id].replace("=", "'=")
            assert row.score == pytest.approx(event.score, abs=5e-5)
            assert row.gate == ("" if event.gate is None else "0.7500") or float(row.gate) == event.gate


def test_text_of_tables(tmp_path):
    timeline = make_timeline(make_event(90_003, 90_010, 3, 1), video="-1+1.mp4")
    row = "'-1+1.mp4,1,90003,90010,3600.120,3600.400,01:00:00.120,01:00:00.400,'=HYPERLINK(A1),3,head,0.5500,"
    lines = write(timeline, tmp_path, "csv").read_bytes().decode().split("\r\n")
    assert lines[0].startswith("\ufeffvideo,person,start_frame,")
    assert lines[1:] == [row, ""]
    lines = write(timeline, tmp_path, "tsv").read_bytes().decode().split("\n")
    assert lines[0].startswith("video\tperson\tstart_frame\t")
    assert lines[1:] == [row.replace(",", "\t"), ""]


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r\n=1", "＝1"])  # noqa: RUF001
def test_no_cell_is_a_formula(tmp_path, label):
    event = Event(0, 5, 0.0, 0.2, label, 0, label, 0.5)
    timeline = make_timeline(event, video=f"{label}.mp4", labels=(label,), windows=())
    for path in write_timeline(timeline, tmp_path, ["csv", "tsv", "windows"], stem="a"):
        text = path.read_text(encoding="utf-8-sig")
        for row in csv.reader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ","):
            assert not any(cell.strip().startswith(tuple("=+-@＝")) for cell in row)  # noqa: RUF001
            assert not any(character in cell for cell in row for character in "\t\r\n")


@pytest.mark.parametrize("gate", [None, 0.125])
def test_pandas_reads_the_windows(tmp_path, gate):
    timeline = make_timeline(windows=make_windows(9, gate))
    frame = pd.read_csv(write(timeline, tmp_path, "windows"), keep_default_na=False)
    assert list(frame.columns[8:]) == [f"score: {label}" for label in ONE_LINE]
    scores = np.stack([window.scores for window in timeline.windows])
    np.testing.assert_allclose(frame.iloc[:, 8:].to_numpy(), scores, atol=5e-5)
    assert list(frame.start_frame) == [window.start for window in timeline.windows]
    assert list(frame.end_seconds) == [window.end_seconds for window in timeline.windows]
    assert set(frame.gate) == ({""} if gate is None else {gate})


# JSON


def assert_same(first, second):
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        assert type(one) is type(other), field.name
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        elif isinstance(one, tuple) and one and dataclasses.is_dataclass(one[0]):
            assert len(one) == len(other)
            for pair in zip(one, other, strict=True):
                assert_same(*pair)
        else:
            assert one == other, field.name


@every_timeline
def test_json_comes_back_as_it_was(tmp_path, timeline):
    assert_same(read_timeline(write(timeline, tmp_path, "json")), timeline)


@pytest.mark.parametrize("gate", [None, 1 / 3])
def test_json_keeps_windows_settings_and_odd_text(tmp_path, gate):
    timeline = make_timeline(
        make_event(1, 2, 4, gate=gate),
        video="no text \udcff\ud800.mp4",
        duration=0.1 + 0.2,
        windows=make_windows(50, gate),
        people=(Person(0, 0, 9, 10, (0.1, 1e-9, 640.5, 1 / 3)),),
        settings={"model": "a/ü", "window": 16, "decoding": {"thresholds": [0.5, None, True], "": {}}},
        notes=("ä\n", ""),
    )
    path = write_timeline(timeline, tmp_path, ["json"], stem="a")[0]
    assert_same(read_timeline(path), timeline)
    assert json.loads(path.read_bytes())["format"] == "clipmg-timeline"
    assert path.read_bytes().isascii()


def test_json_takes_numbers_of_numpy(tmp_path):
    event = Event(
        np.int64(3), np.int32(9), np.float32(0.5), np.float64(0.75), LABELS[0], np.int64(0), "", np.float32(1)
    )
    read = read_timeline(write(make_timeline(event), tmp_path, "json")).events[0]
    assert read == Event(3, 9, 0.5, 0.75, LABELS[0], 0, "", 1.0)
    assert type(read.start) is int and type(read.start_seconds) is float


WRONG = {
    "no format": (lambda file: file.pop("format"), '"format" is not "clipmg-timeline"'),
    "version": (lambda file: file.update(version=2), "version is 2; expected 1"),
    "missing": (lambda file: file.pop("fps"), "fps is missing"),
    "unknown": (lambda file: file.update(colour=1), "colour is no field; expected video, num_frames"),
    "text": (lambda file: file.update(fps="25"), 'fps is "25"; expected a finite number'),
    "truth": (lambda file: file.update(num_frames=True), "num_frames is true; expected a whole number"),
    "fraction": (lambda file: file["events"][0].update(start=1.5), "events[0].start is 1.5; expected a whole number"),
    "not finite": (lambda file: file.update(duration=float("nan")), "duration is NaN; expected a finite number"),
    "too large": (lambda file: file.update(duration=10**400), "expected a finite number"),
    "no list": (lambda file: file.update(labels="a"), 'labels is "a"; expected a list'),
    "null": (lambda file: file["events"][0].update(label=None), "events[0].label is null; expected text"),
    "no object": (lambda file: file["events"].insert(0, 3), "events[0] is 3; expected an object"),
    "settings": (lambda file: file.update(settings=[]), "settings is []; expected an object"),
    "box": (lambda file: file["people"][0]["box"].pop(), "people[0].box has 3 values; expected 4"),
    "field of a window": (lambda file: file["windows"][2].pop("gate"), "windows[2].gate is missing"),
    "a score": (lambda file: file["windows"][1]["scores"].__setitem__(2, "x"), 'windows[1].scores[2] is "x"'),
    "scores out of range": (lambda file: file["windows"][1]["scores"].__setitem__(2, -1), "windows[1].scores is ["),
    "scores": (lambda file: file["windows"][1]["scores"].pop(), "windows[1].scores has 5 values; expected 6"),
    "range": (lambda file: file["events"][0].update(score=1.5), "events[0].score is 1.5; expected 0 to 1"),
    "end": (lambda file: file["events"][0].update(end=4), "events[0].end is 4; expected at least 10"),
    "person": (lambda file: file["events"][0].update(person=-1), "events[0].person is -1; expected at least 0"),
    "label_id": (lambda file: file["events"][0].update(label_id=6), "events[0].label_id is 6; expected the place of"),
    "label": (lambda file: file["events"][0].update(label="b"), 'events[0].label is "b"; expected "Rubbing eyes"'),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG.values(), ids=WRONG)
def test_json_that_is_wrong_is_named(tmp_path, spoil, message):
    people = (Person(0, 0, 9, 10, (0.0, 1.0, 2.0, 3.0)),)
    path = write(make_timeline(make_event(10, 20), windows=make_windows(3), people=people), tmp_path, "json")
    document = json.loads(path.read_bytes())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetFormatError) as raised:
        read_timeline(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_files_that_are_no_timelines(tmp_path, content):
    path = tmp_path / "a.json"
    with pytest.raises(DatasetFormatError, match="no such file"):
        read_timeline(path)
    path.write_bytes(content)
    with pytest.raises(DatasetFormatError, match=r"a\.json: .*expected a timeline as JSON"):
        read_timeline(path)


def test_json_has_no_number_that_is_not_finite(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(make_timeline(duration=float("inf")), tmp_path, "json")
    assert not list(tmp_path.iterdir())


# ELAN


@every_timeline
def test_pympi_reads_the_annotations(tmp_path, timeline):
    eaf = Eaf(str(write(timeline, tmp_path, "elan")), suppress_version_warning=True)
    found = []
    parents = [name for name in eaf.get_tier_names() if "PARENT_REF" not in eaf.get_parameters_for_tier(name)]
    for name in parents:
        person = eaf.get_parameters_for_tier(name)["PARTICIPANT"]
        annotations = sorted(eaf.get_annotation_data_for_tier(name))
        found += [(start, end, label, person) for start, end, label in annotations]
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(annotations))
        assert all(start < end for start, end, _ in annotations)
    assert sorted(found) == list_expected(timeline)
    assert {name for name in parents if "(" not in name} == list_tier_names(timeline)


def test_overlaps_of_a_person_are_in_further_tiers(tmp_path):
    eaf = Eaf(str(write(TIMELINES["overlaps"], tmp_path, "elan")), suppress_version_warning=True)
    tiers = {name: sorted(eaf.get_annotation_data_for_tier(name)) for name in eaf.get_tier_names()}
    starts = {name: [start for start, *_ in spans] for name, spans in tiers.items() if not name.endswith("e")}
    assert starts == {
        "person 0": [400, 2400],
        "person 0 (2)": [800, 1200],
        "person 0 (3)": [1000],
        "person 0 group": [400, 2400],
        "person 0 (2) group": [800, 1200],
        "person 0 (3) group": [1000],
    }


def test_elan_has_details_vocabulary_and_video(tmp_path):
    timeline = make_timeline(make_event(10, 20, 1, gate=0.7), make_event(20, 30, 4))
    path = write(timeline, tmp_path, "elan")
    eaf = Eaf(str(path), suppress_version_warning=True)
    details = {name: eaf.get_ref_annotation_data_for_tier(f"person 0 {name}") for name in ("score", "gate", "group")}
    assert {name: [row[2] for row in rows] for name, rows in details.items()} == {
        "score": ["0.35", "0.65"],
        "gate": ["0.70", ""],
        "group": ["head", "head"],
    }
    entries = eaf.controlled_vocabularies[VOCABULARY][1]
    assert [values[0][0][0] for values in entries.values()] == list(ONE_LINE)
    media = eaf.get_linked_files()[0]
    assert (media["RELATIVE_MEDIA_URL"], media["MIME_TYPE"]) == (f"./{timeline.video}", "video/mp4")
    references = ET.parse(path).iter("ALIGNABLE_ANNOTATION")
    assert [list(entries).index(annotation.get("CVE_REF")) for annotation in references] == [1, 4]


# Elements of EAF 3.0 in their order, what they may hold, and the attributes that they need; "?" may be left out.
EAF_CHILDREN = {
    "ANNOTATION_DOCUMENT": [
        "HEADER",
        "TIME_ORDER",
        "TIER",
        "LINGUISTIC_TYPE",
        "LANGUAGE",
        "CONSTRAINT",
        "CONTROLLED_VOCABULARY",
    ],
    "HEADER": ["MEDIA_DESCRIPTOR", "PROPERTY"],
    "TIME_ORDER": ["TIME_SLOT"],
    "TIER": ["ANNOTATION"],
    "ANNOTATION": ["ALIGNABLE_ANNOTATION", "REF_ANNOTATION"],
    "ALIGNABLE_ANNOTATION": ["ANNOTATION_VALUE"],
    "REF_ANNOTATION": ["ANNOTATION_VALUE"],
    "CONTROLLED_VOCABULARY": ["DESCRIPTION", "CV_ENTRY_ML"],
    "CV_ENTRY_ML": ["CVE_VALUE"],
}
EAF_ATTRIBUTES = {
    "ANNOTATION_DOCUMENT": "DATE AUTHOR VERSION FORMAT? {http://www.w3.org/2001/XMLSchema-instance}"
    "noNamespaceSchemaLocation?",
    "HEADER": "MEDIA_FILE? TIME_UNITS?",
    "MEDIA_DESCRIPTOR": "MEDIA_URL MIME_TYPE RELATIVE_MEDIA_URL?",
    "PROPERTY": "NAME?",
    "TIME_ORDER": "",
    "TIME_SLOT": "TIME_SLOT_ID TIME_VALUE?",
    "TIER": "TIER_ID LINGUISTIC_TYPE_REF PARTICIPANT? PARENT_REF?",
    "ANNOTATION": "",
    "ALIGNABLE_ANNOTATION": "ANNOTATION_ID TIME_SLOT_REF1 TIME_SLOT_REF2 CVE_REF?",
    "REF_ANNOTATION": "ANNOTATION_ID ANNOTATION_REF",
    "ANNOTATION_VALUE": "",
    "LINGUISTIC_TYPE": "LINGUISTIC_TYPE_ID TIME_ALIGNABLE? CONSTRAINTS? GRAPHIC_REFERENCES? "
    "CONTROLLED_VOCABULARY_REF?",
    "LANGUAGE": "LANG_ID LANG_LABEL?",
    "CONSTRAINT": "STEREOTYPE DESCRIPTION?",
    "CONTROLLED_VOCABULARY": "CV_ID",
    "DESCRIPTION": "LANG_REF",
    "CV_ENTRY_ML": "CVE_ID",
    "CVE_VALUE": "LANG_REF",
}
EAF_REFERENCES = {
    "PARENT_REF": ("TIER", "TIER_ID"),
    "LINGUISTIC_TYPE_REF": ("LINGUISTIC_TYPE", "LINGUISTIC_TYPE_ID"),
    "TIME_SLOT_REF1": ("TIME_SLOT", "TIME_SLOT_ID"),
    "TIME_SLOT_REF2": ("TIME_SLOT", "TIME_SLOT_ID"),
    "ANNOTATION_REF": ("ALIGNABLE_ANNOTATION", "ANNOTATION_ID"),
    "CONSTRAINTS": ("CONSTRAINT", "STEREOTYPE"),
    "CONTROLLED_VOCABULARY_REF": ("CONTROLLED_VOCABULARY", "CV_ID"),
    "LANG_REF": ("LANGUAGE", "LANG_ID"),
    "CVE_REF": ("CV_ENTRY_ML", "CVE_ID"),
}


@every_timeline
def test_elan_follows_the_schema(tmp_path, timeline):
    root = ET.parse(write(timeline, tmp_path, "elan")).getroot()
    for element in root.iter():
        needed = {name for name in EAF_ATTRIBUTES[element.tag].split() if not name.endswith("?")}
        assert needed <= set(element.attrib) <= {name.rstrip("?") for name in EAF_ATTRIBUTES[element.tag].split()}
        allowed = EAF_CHILDREN.get(element.tag, [])
        places = [allowed.index(child.tag) for child in element]
        assert places == sorted(places)
        for name, value in element.attrib.items():
            if name in EAF_REFERENCES:
                tag, key = EAF_REFERENCES[name]
                assert value in {target.get(key) for target in root.iter(tag)}
    identities = [element.get("ANNOTATION_ID") for element in root.iter() if element.get("ANNOTATION_ID")]
    assert len(identities) == len(set(identities)) == int(root.find("HEADER/PROPERTY").text)
    times = [int(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")]
    assert times == sorted(times) and len(times) == 2 * len(timeline.events)


# BORIS


def read_boris(project: dict) -> list[tuple]:
    """Events as BORIS reads them: of a subject and code, every second row ends what the one before it started."""
    observation = next(iter(project["observations"].values()))
    codes = {behavior["code"]: behavior for behavior in project["behaviors_conf"].values()}
    subjects = {subject["name"] for subject in project["subjects_conf"].values()}
    running, found = {}, []
    times = [row[0] for row in observation["events"]]
    assert times == sorted(times)
    for time, subject, code, modifier, comment, frame in observation["events"]:
        assert subject in subjects and codes[code]["type"] == "State event" and modifier == ""
        if (subject, code) not in running:
            running[subject, code] = time, comment, frame
            continue
        start, comment, start_frame = running.pop((subject, code))
        found.append(
            (round(start * 1000), round(time * 1000), code, subject.split(" (")[0], comment, start_frame, frame)
        )
    assert not running
    return sorted(found)


@every_timeline
def test_boris_pairs_the_events(tmp_path, timeline):
    path = write(timeline, tmp_path, "boris")
    assert path.read_bytes().isascii()
    found = read_boris(json.loads(path.read_bytes()))
    expected = [(*row[:2], row[2].replace("|", "/"), row[3]) for row in list_expected(timeline)]
    assert [row[:4] for row in found] == expected
    frames = sorted((event.start, event.end) for event in timeline.events)
    assert sorted(row[5:] for row in found) == frames


def test_a_boris_project(tmp_path):
    timeline = make_timeline(make_event(10, 20, gate=0.5), make_event(15, 25), notes=("a", "b"))
    project = json.loads(write(timeline, tmp_path, "boris").read_bytes())
    assert project["project_format_version"] == "7.0"
    assert [behavior["category"] for behavior in project["behaviors_conf"].values()] == ["head", "", "", "", "", ""]
    assert project["behavioral_categories"] == ["head"]
    assert [subject["name"] for subject in project["subjects_conf"].values()] == ["person 0", "person 0 (2)"]
    observation = project["observations"][timeline.video]
    assert observation["file"]["1"] == [timeline.video] and observation["file"]["2"] == []
    assert observation["media_info"]["length"] == {timeline.video: 100.0}
    assert observation["media_info"]["fps"] == {timeline.video: 25.0}
    assert observation["description"] == "a\nb"
    assert observation["events"] == [
        [0.4, "person 0", "Rubbing eyes", "", "score 0.25, gate 0.50", 10],
        [0.6, "person 0 (2)", "Rubbing eyes", "", "score 0.25", 15],
        [0.8, "person 0", "Rubbing eyes", "", "", 20],
        [1.0, "person 0 (2)", "Rubbing eyes", "", "", 25],
    ]


# WebVTT


def parse_timecode(timecode: str) -> int:
    hours, minutes, seconds = timecode.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000)


@every_timeline
def test_webvtt_reads_the_cues(tmp_path, timeline):
    captions = list(webvtt.read(write(timeline, tmp_path, "webvtt")))
    found = []
    for cue in captions:
        person, _, text = html.unescape(cue.raw_text).partition(": ")
        found.append((parse_timecode(cue.start), parse_timecode(cue.end), text.rpartition(" (")[0], person))
    assert sorted(found) == list_expected(timeline)
    assert [start for start, *_ in found] == sorted(start for start, *_ in found)


def test_text_of_webvtt(tmp_path):
    timeline = make_timeline(make_event(9_000_001, 9_000_010, 2, 1), make_event(10, 10))
    assert write(timeline, tmp_path, "webvtt").read_text() == (
        "WEBVTT\n\n"
        "00:00:00.400 --> 00:00:00.401\nperson 0: Rubbing eyes (0.25)\n\n"
        "100:00:00.040 --> 100:00:00.400\n"
        'person 1: Says "no" &amp; &lt;i&gt;nods&lt;/i&gt; --&gt; ok (0.45)\n'
    )


# Praat


@every_timeline
def test_praatio_reads_the_intervals(tmp_path, timeline):
    grid = textgrid.openTextgrid(str(write(timeline, tmp_path, "textgrid")), includeEmptyIntervals=True)
    expected = list_expected(timeline)
    length = max([round(timeline.duration * 1000), 1, *(end for _, end, *_ in expected)])
    found = []
    for tier in grid.tiers:
        person = tier.name.split(" (")[0]
        limits = [(round(entry.start * 1000), round(entry.end * 1000), entry.label) for entry in tier.entries]
        assert limits[0][0] == 0 and limits[-1][1] == length
        assert all(one[1] == other[0] for one, other in itertools.pairwise(limits))
        assert all(start < end for start, end, _ in limits)
        found += [(start, end, label.replace('""', '"'), person) for start, end, label in limits if label]
    assert sorted(found) == expected
    assert {name for name in grid.tierNames if "(" not in name} == list_tier_names(timeline)


def test_text_of_a_textgrid(tmp_path):
    text = write(make_timeline(make_event(10, 20, 2), duration=1.0), tmp_path, "textgrid").read_text()
    assert text == (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
        "xmin = 0.000\nxmax = 1.000\ntiers? <exists>\nsize = 1\nitem []:\n"
        '    item [1]:\n        class = "IntervalTier"\n        name = "person 0"\n'
        "        xmin = 0.000\n        xmax = 1.000\n        intervals: size = 3\n"
        '        intervals [1]:\n            xmin = 0.000\n            xmax = 0.400\n            text = ""\n'
        "        intervals [2]:\n            xmin = 0.400\n            xmax = 0.800\n"
        '            text = "Says ""no"" & <i>nods</i> --> ok"\n'
        '        intervals [3]:\n            xmin = 0.800\n            xmax = 1.000\n            text = ""\n'
    )


# Files


def test_all_files_are_beside_each_other(tmp_path):
    timeline = make_timeline(make_event(1, 20), video="interview 1.mp4")
    paths = write_timeline(timeline, tmp_path / "a" / "b")
    assert [path.name for path in paths] == [f"interview 1{form.suffix}" for form in FORMATS.values()]
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    assert write_timeline(timeline, tmp_path, ["elan", "csv", "elan"], stem="x") == [
        tmp_path / "x.eaf",
        tmp_path / "x.csv",
    ]


def test_odd_names_of_videos(tmp_path):
    videos = [
        'a"b<c>|d?.mp4',
        "ä 你 🎬.mov",
        "line\nbreak.avi",
        "=1+1.mp4",
        "bytes \udcff.mkv",
        "..",
        "عربي.webm",
        " .mp4",
    ]
    for i, video in enumerate(videos):
        paths = write_timeline(make_timeline(make_event(1, 20), video=video), tmp_path / str(i))
        assert len(paths) == len(FORMATS) and all(path.parent == tmp_path / str(i) for path in paths)
        ET.parse(paths[4])
    assert [make_stem(video) for video in videos[:3]] == ["a_b_c__d_", "ä 你 🎬", "line_break"]
    assert [make_stem(video) for video in ("rtsp://host/live", "..", "", "a.b.mp4")] == [
        "live",
        "timeline",
        "timeline",
        "a.b",
    ]


def test_elan_and_boris_find_a_video_elsewhere(tmp_path):
    """By the way from the folder of the results to the video."""
    timeline = make_timeline(video="talk.mp4")
    elan, boris = write_timeline(
        timeline, tmp_path / "out" / "talk", ["elan", "boris"], video=tmp_path / "in" / "talk.mp4"
    )
    media = ET.parse(elan).getroot().find("HEADER/MEDIA_DESCRIPTOR").attrib
    assert media["MEDIA_URL"] == media["RELATIVE_MEDIA_URL"] == "../../in/talk.mp4"
    (observation,) = json.loads(boris.read_text())["observations"].values()
    assert observation["file"]["1"] == ["../../in/talk.mp4"]
    assert list(observation["media_info"]["fps"]) == ["../../in/talk.mp4"]


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(ValueError, match="'srt' is unknown; expected one of csv, tsv"):
        write_timeline(make_timeline(), tmp_path / "a", ["csv", "srt"])
    assert not (tmp_path / "a").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write(make_timeline(), tmp_path, "csv")
    before = path.read_bytes()

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(make_timeline(make_event(1, 2)), tmp_path, "csv")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

"""The explanation as a folder: files are there, complete, escaped, offline, and blurred on request."""

import importlib
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from clipmg_hf.explanation import attention_on_source, explain_clip, explanation_to_dict
from clipmg_hf.explanation_page import write_explanation
from clipmg_hf.explanation_plots import display_name
from clipmg_hf.inference import load_model, predict_clip
from clipmg_hf.pose.heads import face_points
from clipmg_hf.processing.keypoint_layouts_clipmg import LAYOUTS
from clipmg_hf.timeline.face_blur import blur_clip
from clipmg_hf.timeline.records import WindowScores


PICTURES = ["attention.png", "joints.png", "sensitivity.png", "gate.png"]
WINDOWS = [
    WindowScores(start, start + 10, start / 10, start / 10 + 1, person, np.ones(1, np.float32), 0.3, 1.0)
    for person in (0, 1)
    for start in range(0, 40, 5)
]


@pytest.fixture(scope="module")
def prediction(loaded, video, points):
    return predict_clip(*loaded, video, points, start=1, end=11, explain=True)


@pytest.fixture(scope="module")
def influence(loaded, prediction):
    return explain_clip(loaded[0], prediction)


@pytest.fixture(scope="module")
def written(tmp_path_factory, prediction, influence):
    folder = tmp_path_factory.mktemp("explanations") / "new"
    return folder, write_explanation(prediction, influence, folder, windows=WINDOWS)


def test_all_files_are_there_and_no_other(written):
    folder, files = written
    assert [path.name for path in files] == ["explanation.json", *PICTURES, "index.html"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300 and np.asarray(picture.convert("L")).std() > 10


def test_the_page_shows_every_picture_and_asks_no_network(written, influence):
    page = (written[0] / "index.html").read_text("utf-8")
    assert re.findall(r'<img src="([^"]+)"', page) == PICTURES
    assert not re.search(r"https?:|<script|//", page)
    assert influence.label in page and "Faces are not blurred" in page


def test_the_numbers_are_those_of_the_computation(written, prediction, influence):
    values = json.loads((written[0] / "explanation.json").read_text("utf-8"))
    assert values["prediction"]["video"] == "clip.mp4" and len(values["prediction"]["scores"]) == 32
    assert values["label"]["name"] == influence.label and values["label"]["probability"] == pytest.approx(
        prediction.score, abs=1e-5
    )
    assert values["streams"]["without_pose"]["probability"] == pytest.approx(
        influence.streams.without_pose[influence.label_id], rel=1e-5
    )
    np.testing.assert_allclose(list(values["occlusion"]["joints"].values()), influence.occlusion.values, rtol=1e-5)
    frames = np.array(list(values["gradient"]["frames"].values()))
    np.testing.assert_allclose(frames, influence.gradient.frame_values.T, rtol=1e-5)
    assert values["gradient"]["frame_indices"] == prediction.explanation.clip.pose_frame_indices.tolist()
    attention = values["attention"]
    np.testing.assert_allclose(attention["values"], prediction.explanation.semantic_attention, rtol=1e-5)
    assert sum(attention["share"]) == pytest.approx(1, abs=1e-4)
    pixels = attention_on_source(prediction.explanation)
    for frame, (x, y) in zip(pixels, attention["peak"], strict=True):
        assert frame[y, x] == frame.max()
    assert sum(values["gate"]["counts"]) == 32 and values["gate"]["mean"] == pytest.approx(prediction.gate_mean)
    assert [curve["person"] for curve in values["gate_over_time"]] == [0, 1]


def test_texts_are_escaped_and_folders_not_shown(tmp_path, loaded, prediction):
    evil, other = "<script>alert('&')</script>", prediction.scores[-1][0]
    influence = explain_clip(loaded[0], prediction, other)
    labels = tuple(evil if label == other else label for label in influence.labels)
    scores = tuple((evil if label == other else label, score) for label, score in prediction.scores)
    changed = replace(prediction, scores=scores, video="/secret/place/<b>$x_1$.mp4")
    write_explanation(changed, replace(influence, labels=labels), tmp_path)
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page and "&lt;b&gt;$x_1$.mp4" in page
    # It is not the model's own answer either, and the page says so.
    assert f"own answer is “{prediction.label}”" in page and "Why “&lt;script&gt;" in page
    for name in ("index.html", "explanation.json"):
        assert "/secret" not in (tmp_path / name).read_text("utf-8")


def test_without_keypoints_the_page_says_so_and_removes_old_pictures(tmp_path, loaded, video):
    for name in PICTURES:
        (tmp_path / name).write_bytes(b"of an earlier run")
    prediction = predict_clip(*loaded, video, explain=True)
    files = write_explanation(prediction, explain_clip(loaded[0], prediction), tmp_path)
    assert [path.name for path in files] == ["explanation.json", "attention.png", "index.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    page = (tmp_path / "index.html").read_text("utf-8")
    for text in ("No keypoint reached the model", "No joints reached the model", "the gate is fixed to the pictures"):
        assert text in page
    # The whole frame was seen, and no skeleton.
    assert "What is pale" not in page and "skeleton in mind" not in page


@pytest.mark.parametrize(
    ("values", "pictures"),
    [
        ({"fusion": "pose"}, ["joints.png", "sensitivity.png"]),
        ({"fusion": "visual"}, ["attention.png"]),
        ({"use_semantic_attention": False}, ["joints.png", "sensitivity.png", "gate.png"]),
    ],
    ids=str,
)
def test_every_kind_of_model_can_be_explained(tmp_path, save_checkpoint, video, points, values, pictures):
    model, processor = load_model(save_checkpoint(tmp_path / "checkpoint", **values), device="cpu")
    prediction = predict_clip(model, processor, video, points, explain=True)
    files = write_explanation(prediction, explain_clip(model, prediction), tmp_path / "explanation")
    assert [path.name for path in files[1:-1]] == pictures


def test_a_blurred_clip_is_written_blurred_and_without_points_of_the_face(
    tmp_path, prediction, influence, written, monkeypatch
):
    num_points, scatter = [], Axes.scatter

    def count(axes, x, y, **options):
        num_points.append(len(x))
        return scatter(axes, x, y, **options)

    monkeypatch.setattr(Axes, "scatter", count)
    write_explanation(blur_clip(prediction), influence, tmp_path)
    assert num_points == [(~face_points(influence.occlusion.layout)).sum()] * 2
    assert "blurred; people without keypoints are not" in (tmp_path / "index.html").read_text("utf-8")
    assert json.loads((tmp_path / "explanation.json").read_text("utf-8"))["faces_blurred"] is True
    for name in ("attention.png", "joints.png", "sensitivity.png"):
        assert (tmp_path / name).read_bytes() != (written[0] / name).read_bytes()


def test_blurred_pictures_are_not_replaced_by_others(tmp_path, prediction, influence):
    write_explanation(blur_clip(prediction), influence, tmp_path)
    with pytest.raises(ValueError, match="holds pictures with blurred faces; expected --blur-face again"):
        write_explanation(prediction, influence, tmp_path)
    assert write_explanation(blur_clip(prediction), influence, tmp_path)


@pytest.mark.parametrize("module", ["matplotlib", "PIL"])
def test_import_without_the_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("explanation_page", "explanation_plots", "visualization"):
        monkeypatch.delitem(sys.modules, f"clipmg_hf.{name}")
    with pytest.raises(ImportError, match=r'explanation_page needs matplotlib and Pillow .*"clipmg_hf\[viz\]"'):
        importlib.import_module("clipmg_hf.explanation_page")


def test_an_explanation_is_needed(prediction, influence):
    with pytest.raises(ValueError, match="holds no explanation; expected one with explain=True"):
        explanation_to_dict(replace(prediction, explanation=None), influence)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_names_in_words_are_unique(layout):
    names = [display_name(name) for name in layout.keypoints]
    assert len(set(names)) == len(names) and not any("_" in name for name in names)


def test_names_in_words():
    assert display_name("left_hand_8") == "left index fingertip" and display_name("right_hand_4") == "right thumb tip"
    assert (
        display_name("right_hand_0") == "right root of the hand"
        and display_name("face_36") == "right eyelid (face 36)"
    )
    assert display_name("left_hand_18") == "left little finger 2" and display_name("mid_hip") == "mid hip"


def test_real_video(tmp_path, loaded, realdata):
    folder = realdata / "openpose" / "slp_full137"
    prediction = predict_clip(*loaded, folder / "video.mp4", folder / "json", explain=True)
    files = write_explanation(blur_clip(prediction), explain_clip(loaded[0], prediction), tmp_path)
    assert len(files) == 6

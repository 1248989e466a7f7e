"""Drawings: what is drawn where, what is left out, and that files are whole, playable and readable."""

import importlib
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from clipmg_hf import IMIGUE_LABELS, visualization
from clipmg_hf.inference import predict_clip
from clipmg_hf.processing import SquareCrop, get_layout
from clipmg_hf.visualization import (
    LEFT_COLOR,
    RIGHT_COLOR,
    attention_scale,
    draw_skeleton,
    overlay_attention,
    plot_confusion_matrix,
    plot_learning_curves,
    render_overlay,
    write_overlay_png,
    write_overlay_video,
)


LAYOUT = get_layout("imigue-22")
GREY_IMAGE = np.full((120, 160, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def prediction(loaded, video, points):
    return predict_clip(*loaded, video, points, start=1, end=11, explain=True)


@pytest.fixture(scope="module")
def prediction_without_pose(loaded, video):
    return predict_clip(*loaded, video, explain=True)


def some_points(**places) -> np.ndarray:
    """(22, 3) with the named points only; a place is (x, y, confidence)."""
    points = np.zeros((LAYOUT.num_keypoints, 3))
    for name, place in places.items():
        points[LAYOUT.index(name)] = place
    return points


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GREY_IMAGE).any(axis=-1)


# --- skeletons


def test_skeleton_colours_follow_the_side():
    left = some_points(left_elbow=(40, 60, 1), left_wrist=(80, 60, 1))
    right = some_points(right_elbow=(40, 60, 1), right_wrist=(80, 60, 1))
    assert tuple(draw_skeleton(GREY_IMAGE, left, LAYOUT)[60, 60]) == LEFT_COLOR
    assert tuple(draw_skeleton(GREY_IMAGE, right, "imigue-22")[60, 60]) == RIGHT_COLOR


def test_skeleton_leaves_out_missing_points_and_their_edges():
    drawn = draw_skeleton(GREY_IMAGE, some_points(left_elbow=(40, 60, 0), left_wrist=(80, 60, 1)), LAYOUT)
    assert changed(drawn)[60, 80] and not changed(drawn)[:, :70].any()
    nothing = draw_skeleton(GREY_IMAGE, some_points(), LAYOUT)
    assert not changed(nothing).any() and nothing is not GREY_IMAGE


def test_skeleton_is_drawn_at_pixel_centres():
    ys, xs = np.nonzero(changed(draw_skeleton(GREY_IMAGE, some_points(nose=(50, 31, 1)), LAYOUT)))
    assert (xs.mean(), ys.mean()) == pytest.approx((50, 31), abs=0.3)


def test_skeleton_opacity_follows_the_confidence():
    difference = [
        np.abs(draw_skeleton(GREY_IMAGE, some_points(nose=(50, 31, c)), LAYOUT).astype(int) - 128).sum()
        for c in (0.1, 0.5, 1.0)
    ]
    assert difference[0] < difference[1] < difference[2]


def test_skeleton_is_smooth():
    points = some_points(left_elbow=(40, 40, 1), left_wrist=(80, 63, 1))
    blue = draw_skeleton(np.zeros_like(GREY_IMAGE), points, LAYOUT)[..., 0]
    assert len(np.unique(blue)) > 10


def test_skeleton_grows_with_the_image():
    points = some_points(nose=(50, 31, 1))
    large = draw_skeleton(np.full((1200, 1600, 3), 128, np.uint8), points * (10, 10, 1), LAYOUT)
    assert (large != 128).any(axis=-1).sum() > 10 * changed(draw_skeleton(GREY_IMAGE, points, LAYOUT)).sum()


def test_skeleton_outside_the_image():
    assert not changed(draw_skeleton(GREY_IMAGE, some_points(nose=(-500, 900, 1)), LAYOUT)).any()
    across = draw_skeleton(GREY_IMAGE, some_points(left_elbow=(-40, 60, 1), left_wrist=(300, 60, 1)), LAYOUT)
    assert changed(across)[60].all()


def test_skeleton_does_not_touch_its_input():
    image, points = GREY_IMAGE.copy(), some_points(nose=(50, 31, 1))
    draw_skeleton(image, points, LAYOUT)
    assert (image == GREY_IMAGE).all() and (points == some_points(nose=(50, 31, 1))).all()


def test_skeleton_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"points have the shape \(21, 3\); layout 'imigue-22' needs \(22, 3\)"):
        draw_skeleton(GREY_IMAGE, np.zeros((21, 3)), LAYOUT)
    with pytest.raises(ValueError, match=r"image is float64 of shape \(120, 160, 3\); expected uint8"):
        draw_skeleton(GREY_IMAGE / 255, some_points(), LAYOUT)


# --- attention


def test_attention_lands_on_its_patch():
    attention = np.zeros((4, 4))
    attention[1, 2] = 1
    difference = np.abs(overlay_attention(GREY_IMAGE, attention, SquareCrop(20, 30, 80)).astype(int) - 128).sum(
        axis=-1
    )
    y, x = np.unravel_index(difference.argmax(), difference.shape)
    assert 50 <= y < 70 and 60 <= x < 80
    assert difference[:20].max() == 0 and difference[:, :15].max() == 0


def test_attention_of_a_mirrored_crop():
    attention = np.random.default_rng(0).random((4, 4))
    mirrored = overlay_attention(GREY_IMAGE, attention[:, ::-1], SquareCrop(20, 30, 80, flipped=True))
    np.testing.assert_array_equal(mirrored, overlay_attention(GREY_IMAGE, attention, SquareCrop(20, 30, 80)))


def test_attention_beyond_the_frame():
    attention = np.eye(4)
    drawn = overlay_attention(GREY_IMAGE, attention, SquareCrop(-40, -60, 240))
    assert drawn.shape == GREY_IMAGE.shape and changed(drawn).any()
    assert not changed(overlay_attention(GREY_IMAGE, attention, SquareCrop(500, 500, 40))).any()


def test_even_attention_is_transparent():
    assert not changed(overlay_attention(GREY_IMAGE, np.full((4, 4), 1 / 16), SquareCrop(20, 30, 80))).any()


def test_attention_scale_is_shared_and_keeps_faint_differences_faint():
    attention = np.full((2, 4, 4), 1 / 32)
    assert attention_scale(attention) == pytest.approx((1 / 32, 2 / 32))
    attention[1, 0, 0] = 1
    assert attention_scale(attention)[1] == 1


# --- overlays


def test_overlay_frames(prediction):
    frames = render_overlay(prediction)
    source = prediction.explanation.video.read(prediction.explanation.clip.frame_indices)
    assert len(frames) == 8 and all(frame.shape == (64, 96, 3) and frame.dtype == np.uint8 for frame in frames)
    assert all((frame != original).any() for frame, original in zip(frames, source, strict=True))


def test_overlay_needs_an_explanation(prediction, tmp_path):
    bare = replace(prediction, explanation=None)
    for call in (render_overlay, lambda p: write_overlay_png(p, tmp_path / "a.png")):
        with pytest.raises(
            ValueError, match=r"clip\.mp4: the prediction holds no explanation; expected .*explain=True"
        ):
            call(bare)


def test_video_plays_and_keeps_times(prediction, tmp_path):
    path = tmp_path / "overlay.mp4"
    write_overlay_video(prediction, path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        # The index stands before the data, so a browser can start at once.
        assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")
        assert [frame.time for frame in frames] == pytest.approx([0.1 * index for index in range(10)], abs=1e-3)
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0, abs=0.01)
    # 96 x 64 is enlarged to 672 x 448, with a band below.
    assert frames[0].width == 672 and frames[0].height > 448 and frames[0].height % 2 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_video_shows_the_source(prediction_without_pose, tmp_path):
    quiet = replace(
        prediction_without_pose, explanation=replace(prediction_without_pose.explanation, semantic_attention=None)
    )
    write_overlay_video(quiet, tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    source = quiet.explanation.video.read(np.arange(12))
    assert len(frames) == 12
    for frame, original in zip(frames, source, strict=True):
        enlarged = np.asarray(Image.fromarray(original).resize((672, 448)))
        assert np.abs(frame[:448].astype(int) - enlarged).mean() < 3


@pytest.mark.parametrize("num_frames", [1, 3])
def test_video_of_odd_frames_in_memory(loaded, tmp_path, num_frames):
    frames = np.random.default_rng(0).integers(0, 255, (num_frames, 301, 701, 3), dtype=np.uint8)
    write_overlay_video(predict_clip(*loaded, frames, explain=True), tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        decoded = list(container.decode(video=0))
    assert len(decoded) == num_frames and decoded[0].width == 700


def test_contact_sheet(prediction, prediction_without_pose, tmp_path):
    write_overlay_png(prediction, tmp_path / "with.png")
    write_overlay_png(prediction_without_pose, tmp_path / "without.png")
    with Image.open(tmp_path / "with.png") as with_pose, Image.open(tmp_path / "without.png") as without:
        assert with_pose.mode == "RGB" and with_pose.width == without.width
        # No keypoints, no row of skeletons.
        assert with_pose.height - without.height == pytest.approx(208, abs=10)


@pytest.mark.parametrize(
    "label", ["Ja", "Buckle button, pulling shirt collar, adjusting tie", "W" * 300, "手 Händefalten 😀"]
)
def test_labels_of_any_length_stay_in_their_place(prediction, tmp_path, label):
    sheet, reference = tmp_path / "sheet.png", tmp_path / "reference.png"
    write_overlay_png(replace(prediction, scores=((label, 0.5),)), sheet)
    write_overlay_png(replace(prediction, scores=(("x", 0.5),)), reference)
    with Image.open(sheet) as image, Image.open(reference) as other:
        different = np.nonzero((np.asarray(image) != np.asarray(other)).any(axis=-1))
    # Left of the gate, which takes the last 340 pixels, and above the tiles.
    assert different[1].max() < 1900 - 340 and different[0].max() < 110


@pytest.mark.parametrize("num_frames", [2, 11])
def test_contact_sheet_of_few_and_many_frames(save_checkpoint, video, points, tmp_path, num_frames):
    from clipmg_hf.inference import load_model

    loaded = load_model(save_checkpoint(tmp_path / "model", num_frames=num_frames))
    write_overlay_png(predict_clip(*loaded, video, points, explain=True), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == (980 if num_frames == 2 else 1900)
        assert (image.height > 1200) == (num_frames == 11)


@pytest.mark.parametrize("write", [write_overlay_png, write_overlay_video])
def test_files_are_named_well_and_appear_whole(prediction, tmp_path, write, monkeypatch):
    suffix = ".png" if write is write_overlay_png else ".mp4"
    with pytest.raises(ValueError, match=rf"a\.gif: expected a file name that ends in {suffix}"):
        write(prediction, tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        write(prediction, tmp_path / "nowhere" / f"a{suffix}")
    path = tmp_path / f"old{suffix}"
    path.write_text("old")

    def fail(*args):
        raise RuntimeError("interrupted")

    monkeypatch.setattr("clipmg_hf.visualization._draw_gate", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        write(prediction, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# --- plots


LOG = [
    {"loss": 3.1, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": 1.0, "step": 10},
    {
        "eval_loss": 3.0,
        "eval_top1": 0.3,
        "eval_runtime": 1.0,
        "eval_samples_per_second": 9.0,
        "epoch": 1.0,
        "step": 10,
    },
    {"loss": float("nan"), "grad_norm": 1.0, "learning_rate": 0.0, "epoch": 2.0, "step": 20},
    {"train_runtime": 9.0, "train_loss": 2.0, "epoch": 2.0, "step": 20},
]


def test_learning_curves(tmp_path):
    plot_learning_curves(LOG, tmp_path / "all.png")
    plot_learning_curves(LOG[:1], tmp_path / "two.png")
    with Image.open(tmp_path / "all.png") as all_panels, Image.open(tmp_path / "two.png") as two_panels:
        assert all_panels.width == pytest.approx(1.5 * two_panels.width, abs=2)
    with pytest.raises(ValueError, match=r"Nothing to plot in 1 log entries; expected 'loss'"):
        plot_learning_curves(LOG[-1:], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_best_model_evaluated_at_the_end_is_no_point_of_the_curves():
    log = [{"step": 1, "eval_loss": 2.0}, {"step": 2, "eval_loss": 3.0}, {"step": 2, "eval_loss": 2.0}]
    assert visualization._curves(log)["Loss"] == {"validation": ([1, 2], [2.0, 3.0])}


@pytest.mark.parametrize("num_classes", [2, 9, 32])
def test_confusion_matrix(tmp_path, num_classes):
    matrix = np.random.default_rng(0).integers(0, 50, (num_classes, num_classes))
    matrix[1] = 0
    plot_confusion_matrix(matrix, IMIGUE_LABELS[:num_classes], tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) > 55 * num_classes


def test_confusion_matrix_is_deterministic(tmp_path):
    for name in ("a.png", "b.png"):
        plot_confusion_matrix(np.eye(3, dtype=int), "abc", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_confusion_matrix_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(3, 3\) and a minimum of 0; .*\(2, 2\) for 2 labels"):
        plot_confusion_matrix(np.eye(3), ["a", "b"], tmp_path / "matrix.png")
    with pytest.raises(ValueError, match=r"minimum of -1; expected counts of at least 0"):
        plot_confusion_matrix(-np.eye(2, dtype=int), ["a", "b"], tmp_path / "matrix.png")


def test_plots_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_learning_curves(LOG, tmp_path / "curves.png")
    assert dict(matplotlib.rcParams) == before


# --- the extra


@pytest.mark.parametrize("module", ["matplotlib", "PIL"])
def test_import_without_the_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "clipmg_hf.visualization")
    message = r'clipmg_hf\.visualization needs matplotlib and Pillow .*pip install "clipmg_hf\[viz\]"'
    with pytest.raises(ImportError, match=message):
        importlib.import_module("clipmg_hf.visualization")


# --- real videos


@pytest.mark.parametrize("folder", ["slp_full137", "openposer_psychologie"])
def test_overlays_of_real_videos(loaded, realdata, tmp_path, folder):
    folder = realdata / "openpose" / folder
    prediction = predict_clip(*loaded, folder / "video.mp4", folder / "json", end=9, explain=True)
    write_overlay_png(prediction, tmp_path / "sheet.png")
    write_overlay_video(prediction, tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 9


def test_overlay_of_a_real_video_with_a_variable_rate(loaded, realdata, tmp_path):
    source = realdata / "people" / "webcam_vfr_640x480.mov"
    prediction = predict_clip(*loaded, source, end=20, explain=True)
    write_overlay_video(prediction, tmp_path / "overlay.mp4")
    with av.open(str(tmp_path / "overlay.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, prediction.explanation.video.info.timestamps[:20], atol=1e-3)

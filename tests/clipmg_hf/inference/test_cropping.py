"""The square of a whole video, and squares that follow a person."""

import numpy as np
import pytest

from clipmg_hf.inference import CropSchedule, crop_segments, crop_video
from clipmg_hf.processing import SquareCrop
from clipmg_hf.processing.geometry_clipmg import full_frame_crop, subject_crop


WIDTH, HEIGHT = 640, 360


def person_at(x, y, num_frames, size=100.0):
    """(num_frames, 5, 3): corners and centre of a square around (x, y)."""
    offsets = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1), (0, 0)]) * size / 2
    points = np.ones((num_frames, 5, 3))
    points[..., :2] = np.array([x, y]) + offsets
    return points


def test_the_crop_of_a_video_of_one_part_is_that_of_the_clip():
    points = np.concatenate([person_at(200, 150, 30), person_at(260, 170, 30)])
    assert crop_video(points, WIDTH, HEIGHT, 0.25, 60) == subject_crop(points, WIDTH, HEIGHT, 0.25)
    assert crop_video(points, WIDTH, HEIGHT, 0.25, 100) == subject_crop(points, WIDTH, HEIGHT, 0.25)


def test_it_is_that_of_the_median_part():
    sizes = (90, 100, 110, 300, 80)
    points = np.concatenate([person_at(300, 170, 16, size=size) for size in sizes])
    expected = subject_crop(person_at(300, 170, 1, size=100), WIDTH, HEIGHT, 0.25)
    assert crop_video(points, WIDTH, HEIGHT, 0.25, 16) == expected


def test_wrong_points_in_few_parts_do_not_widen_it():
    points = person_at(200, 150, 320)
    expected = crop_video(points, WIDTH, HEIGHT, 0.25, 16)
    points[[10, 200], 3, :2] = (630, 350)
    assert crop_video(points, WIDTH, HEIGHT, 0.25, 16) == expected


def test_missing_points_and_frames_without_a_person_do_not_count():
    points = person_at(200, 150, 20)
    expected = crop_video(points, WIDTH, HEIGHT, 0.25, 4)
    points[3:9] = 0
    points[10:15, 4] = 0
    assert crop_video(points, WIDTH, HEIGHT, 0.25, 4) == expected


def test_without_a_person_it_is_the_whole_frame():
    nobody = np.zeros((10, 5, 3))
    assert crop_video(nobody, WIDTH, HEIGHT, 0.25, 4) == full_frame_crop(WIDTH, HEIGHT)
    assert crop_segments(nobody, WIDTH, HEIGHT, 0.25, 4).crops == (full_frame_crop(WIDTH, HEIGHT),)


def test_a_person_who_stays_has_one_segment():
    points = np.concatenate([person_at(200, 150, 30), person_at(215, 160, 30)])
    schedule = crop_segments(points, WIDTH, HEIGHT, 0.25, 16)
    assert schedule == CropSchedule((0,), (crop_video(points, WIDTH, HEIGHT, 0.25, 16),))


def test_a_cut_of_the_camera_begins_another_segment():
    parts = [person_at(150, 150, 32), person_at(480, 200, 32, size=60), np.zeros((16, 5, 3)), person_at(150, 150, 32)]
    schedule = crop_segments(np.concatenate(parts), WIDTH, HEIGHT, 0.25, 16, first=100)
    assert schedule.starts == (100, 132, 180)
    expected = [crop_video(points, WIDTH, HEIGHT, 0.25, 16) for points in (parts[0], parts[1], parts[3])]
    assert list(schedule.crops) == expected


@pytest.mark.parametrize(("frame", "size"), [(0, 10), (9, 10), (10, 20), (29, 20), (30, 30), (999, 30), (-5, 10)])
def test_every_frame_has_the_square_of_its_segment(frame, size):
    schedule = CropSchedule((0, 10, 30), tuple(SquareCrop(0, 0, size) for size in (10, 20, 30)))
    assert schedule.at(frame).size == size

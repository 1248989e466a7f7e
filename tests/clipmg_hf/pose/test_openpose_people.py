import json
import os
from pathlib import Path

import numpy as np
import pytest

from clipmg_hf.pose.openpose_people import read_openpose_people
from clipmg_hf.processing import KeypointFileError, convert_keypoints, read_openpose, valid_keypoints


REALDATA = Path(os.environ.get("CLIPMG_REALDATA", Path(__file__).parents[4] / "shared" / "realdata")) / "openpose"


def make_person(value, confidence=0.5, **fields):
    return {"pose_keypoints_2d": [value, value + 1, confidence] * 25, **fields}


def write_frame(folder, number, people):
    path = folder / f"clip_{number:012d}_keypoints.json"
    path.write_text(json.dumps({"version": 1.3, "people": people}))


def test_people_of_every_frame_with_their_numbers(tmp_path):
    nobody = make_person(0.0, 0.0, person_id=[5])
    write_frame(tmp_path, 7, [make_person(10.0, person_id=[3]), nobody, make_person(20.0, 1.02, person_id=[4])])
    write_frame(tmp_path, 8, [])
    write_frame(tmp_path, 9, [make_person(30.0, -0.1), make_person(40.0)])
    people, layout, frame_numbers, person_ids = read_openpose_people(tmp_path)
    assert layout.name == "openpose-body25" and frame_numbers.tolist() == [7, 8, 9]
    assert [frame.shape for frame in people] == [(2, 25, 3), (0, 25, 3), (1, 25, 3)]
    assert all(frame.dtype == np.float32 for frame in people)
    np.testing.assert_array_equal(people[0][:, 4], np.float32([[10, 11, 0.5], [20, 21, 1]]))
    np.testing.assert_array_equal(people[2][0, 0], np.float32([40, 41, 0.5]))
    assert [numbers.tolist() for numbers in person_ids] == [[3, 4], [], [-1]]


def test_a_missing_point_is_all_zeros(tmp_path):
    person = make_person(10.0)
    person["pose_keypoints_2d"][3:6] = 9.0, 9.0, 0.0
    person["pose_keypoints_2d"][6:9] = 0.0, 0.0, 0.9
    write_frame(tmp_path, 0, [person])
    (frame,) = read_openpose_people(tmp_path).people
    assert not frame[0, 1:3].any() and frame[0, 3:].all()


def test_missing_frames(tmp_path):
    for number in (1, 3):
        write_frame(tmp_path, number, [make_person(1.0)])
    with pytest.raises(KeypointFileError, match="1 frames lack a file, 2"):
        read_openpose_people(tmp_path)
    assert [len(frame) for frame in read_openpose_people(tmp_path, allow_gaps=True).people] == [1, 0, 1]


@pytest.mark.skipif(not REALDATA.is_dir(), reason="needs the real OpenPose files, see CLIPMG_REALDATA")
@pytest.mark.parametrize(
    ("folder", "layout"), [("slp_full137", "openpose-137"), ("openposer_psychologie", "openpose-body25")]
)
def test_real_files_give_the_same_person_as_the_reader_of_one(folder, layout):
    people, found, _, person_ids = read_openpose_people(REALDATA / folder / "json")
    one = read_openpose(REALDATA / folder / "json").keypoints
    assert found.name == layout and [len(frame) for frame in people] == [1] * len(one)
    assert {int(numbers[0]) for numbers in person_ids} == {-1}
    stacked = np.concatenate(people)
    np.testing.assert_array_equal(
        stacked, np.where(valid_keypoints(one)[..., None], np.minimum(one, (9e9, 9e9, 1)), 0)
    )
    converted = convert_keypoints(stacked, found, "imigue-22", missing_keypoints="mask")
    assert valid_keypoints(converted)[:, :4].mean() > 0.9

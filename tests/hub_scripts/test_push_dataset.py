"""Prepared folders on a Hub: what is pushed, what is refused, and what plain `datasets` makes of it there."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import av
import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard, constants

from clipmg_hf.data.clip_cutting import PrepareConfig
from clipmg_hf.data.data_card import MEANINGS, data_card, stored_features
from clipmg_hf.data.prepare import prepare_dataset, verify_dataset
from clipmg_hf.data.prepared_folder import load_prepared, read_manifest
from clipmg_hf.data.problems import DatasetFormatError
from clipmg_hf.data.push import describe_clips, is_card_edited, push_dataset
from clipmg_hf.data.schema import clip_features
from clipmg_hf.hub import PushError


ROOT = Path(__file__).parents[2]
STORAGES = ("parquet", "webdataset")
LABELS, GROUPS = ("nod | no", "<shrug>", "wave"), ("head", "body")
# First and last frame, label.
CLIPS = {"train": [(0, 4, 0), (2, 3, 2), (1, 6, 0), (5, 7, 1)], "test": [(0, 1, -1)]}
DESCRIPTION = ["Made up, for a test.", "Files: 0123456789abcdef"]
# The snippet of a card, where neither the package nor torchcodec can be imported; then all rows of all splits.
LOAD = """
import json, sys
sys.modules["clipmg_hf"] = sys.modules["torchcodec"] = None
found = {}
for repo_id, snippet in json.loads(sys.argv[1]).items():
    space = {}
    exec(snippet, space)
    shapes = [list(frame.shape) for frame in space["frames"]]
    rows = {}
    for split, stream in space["rows"].items():
        for row in stream:
            scalars, video = row.get("json", row), row.get("video") or row["mp4"]
            rows.setdefault(split, []).append([scalars["clip_id"], scalars["label"], len(video["bytes"])])
    features = space["rows"]["train"].features
    label = features.get("json", features)["label"]
    found[repo_id] = {"shapes": shapes, "rows": rows, "names": label.names}
print(json.dumps(found))
"""


def make_rows(video: Path, clips: list[tuple[int, int, int]]) -> datasets.Dataset:
    features = clip_features(LABELS, GROUPS, "imigue-22", personal_data=True)
    rows = []
    for index, (start, end, label) in enumerate(clips):
        shape = (end - start + 1, 22)
        row = {
            "clip_id": f"{len(clips)}_{index}",
            "video_id": "a",
            "start_frame": start,
            "end_frame": end,
            "fps": 25.0,
            "label": label,
            "group": min(label, 1),
            "subject": 3,
            "emotion": 1,
            "gender": "F",
            "nationality": "X",
            "width": 64,
            "height": 48,
            "video": str(video),
            "video_start_frame": 0,
            "keypoints": np.full((*shape, 3), 7, np.float32),
            "keypoints_valid": np.ones(shape, bool),
            "keypoint_layout": "imigue-22",
        }
        rows.append(row)
    return datasets.Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> datasets.DatasetDict:
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(8):
            picture = np.full((48, 64, 3), 30 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return datasets.DatasetDict({split: make_rows(path, clips) for split, clips in CLIPS.items()})


@pytest.fixture(scope="module")
def prepared(rows, tmp_path_factory) -> dict[str, Path]:
    """Finished folders by storage; not to be changed."""
    folders = {storage: tmp_path_factory.mktemp(storage) / "prepared" for storage in STORAGES}
    source = {"dataset": "smg", "protocol": "", "description": DESCRIPTION}
    for storage, folder in folders.items():
        config = PrepareConfig(short_side=48, clips_per_shard=2, storage=storage)
        prepare_dataset(rows, folder, config, source=source, show_progress=False)
    return folders


def script():
    path = ROOT / "hub_scripts" / "push_dataset.py"
    spec = importlib.util.spec_from_file_location("push_dataset_script", path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def files_on(hub, repo_id: str, revision: str | None = None) -> set[str]:
    return set(hub.api().list_repo_files(repo_id, repo_type="dataset", revision=revision)) - {".gitattributes"}


def uploads(hub) -> list[dict]:
    return [entry for entry in hub.log if entry["method"] == "PUT"]


def test_both_storages_are_pushed_privately_and_stream_without_the_package(hub, prepared, run_command, tmp_path):
    snippets = {}
    for storage, folder in prepared.items():
        repo_id = hub.repository(f"clips-{storage}", "dataset")
        before = (folder / "README.md").read_text()
        result = push_dataset(folder, repo_id, api=hub.api())
        info = hub.api().dataset_info(repo_id)
        assert info.private and info.sha == result.commit
        assert files_on(hub, repo_id) == {*read_manifest(folder)["files"], "README.md", "manifest.json"}
        # One commit beside the one that made the repository.
        assert len(hub.api().list_repo_commits(repo_id, repo_type="dataset")) == 2
        assert (folder / "README.md").read_text() == before

        copy = Path(hub.api().snapshot_download(repo_id, repo_type="dataset", local_dir=tmp_path / storage))
        assert verify_dataset(copy, decode=True) == []
        assert len(load_prepared(copy, cache_dir=tmp_path / "cache")["train"]) == 4
        card = DatasetCard.load(copy / "README.md")
        card.validate()
        assert card.data.license == "other" and card.data.configs[0]["data_files"][1]["split"] == "test"
        snippets[repo_id] = re.search(r"```python\n(.*?)```", card.text, re.DOTALL)[1]
        assert f'load_dataset("{repo_id}", streaming=True)' in snippets[repo_id]

    # Importing torch takes longer than all the rest.
    environment = {**hub.environment(), "USE_TORCH": "0"}
    done = run_command([sys.executable, "-c", LOAD, json.dumps(snippets)], env=environment)
    found = json.loads(done.stdout)
    assert set(found) == set(snippets)
    for of_repository in found.values():
        assert of_repository["shapes"] == [[48, 64, 3]] * 5
        assert of_repository["names"] == list(LABELS)
        for split, clips in CLIPS.items():
            ids = [[f"{len(clips)}_{index}", label] for index, (_, _, label) in enumerate(clips)]
            assert [row[:2] for row in of_repository["rows"][split]] == ids
            assert all(size > 100 for _, _, size in of_repository["rows"][split])


def test_a_private_push_cannot_be_read_by_others(hub, prepared):
    repo_id = hub.repository("clips", "dataset")
    push_dataset(prepared["parquet"], repo_id, api=hub.api())
    for token in (None, "hf_bob_write"):
        assert not hub.api(token).repo_exists(repo_id, repo_type="dataset")


@pytest.mark.parametrize("storage", STORAGES)
def test_the_head_declares_what_the_shards_hold(prepared, storage, tmp_path):
    folder = prepared[storage]
    manifest = read_manifest(folder)
    declared = stored_features(datasets.Features.from_dict(manifest["features"]), storage)
    plain = shutil.copytree(folder / "data", tmp_path / "data")
    pattern = {split: str(plain / f"{split}-*") for split in CLIPS}
    found = next(iter(datasets.load_dataset(storage, data_files=pattern, streaming=True)["train"].decode(False)))
    assert set(found) == set(declared)
    if storage == "webdataset":
        assert set(found["json"]) == set(declared["json"])
    info = DatasetCard.load(folder / "README.md").data["dataset_info"]
    assert [(split["name"], split["num_examples"]) for split in info["splits"]] == [("train", 4), ("test", 1)]
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    assert info["download_size"] == size == sum(split["num_bytes"] for split in info["splits"])


def test_the_card_tells_the_facts_of_the_manifest_and_no_more(prepared):
    manifest = read_manifest(prepared["parquet"])
    card = data_card(manifest, "lab/clips")
    assert "# SMG, prepared" in card and "Chen et al." in card
    assert "keep it private" in card and "gender" not in card
    for row in (
        "| train | 4 | 16 | 0 |",
        "| test | 1 | 2 | 1 |",
        r"| 0 | nod \| no | 2 |",
        "| 1 | &lt;shrug&gt; | 1 |",
        "| short_side | `48` |",
    ):
        assert f"{row}\n" in card
    for line in DESCRIPTION:
        assert f"- {line}\n" in card
    assert "lab/clips" not in data_card(manifest) and "path/of/this/folder" in data_card(manifest)

    public = data_card(manifest, "lab/clips", is_public=True)
    assert "keep it private" not in public and "declared to be allowed to" in public
    manifest["source"] = {"dataset": "a new one", "seed": 5}
    manifest["splits"] = {"test": manifest["splits"]["test"]}
    manifest["features"]["gender"] = manifest["features"]["video_id"]
    other = data_card(manifest)
    assert "# a new one, prepared" in other and "Citation" not in other
    assert "| seed | `5` |" in other and "No clip has a label." in other
    assert "personal data in the columns `gender`." in other
    assert describe_clips(manifest) == "clips: test 1; with the columns gender of the people in them"


@pytest.mark.parametrize("layout", [None, "openpose-137"])
def test_every_column_has_a_meaning(layout):
    assert set(clip_features(LABELS, GROUPS, layout, personal_data=True, prepared=True)) <= set(MEANINGS)


def test_a_public_push_needs_a_declaration(hub, prepared):
    folder, repo_id = prepared["parquet"], hub.repository("clips", "dataset")
    with pytest.raises(PushError, match="--public_licensed_data"):
        push_dataset(folder, repo_id, private=False, api=hub.api())
    with pytest.raises(PushError, match="no effect on a private push"):
        push_dataset(folder, repo_id, public_licensed_data=True, api=hub.api())
    assert not hub.api().repo_exists(repo_id, repo_type="dataset")
    push_dataset(folder, repo_id, private=False, public_licensed_data=True, api=hub.api())
    assert not hub.api().dataset_info(repo_id).private
    card = Path(hub.api(None).hf_hub_download(repo_id, "README.md", repo_type="dataset")).read_text()
    assert "declared to be allowed to" in card


def test_a_private_push_does_not_go_to_a_public_repository(hub, prepared):
    repo_id = hub.repository("clips", "dataset")
    hub.api().create_repo(repo_id, repo_type="dataset")
    with pytest.raises(PushError, match="is public"):
        push_dataset(prepared["parquet"], repo_id, api=hub.api())
    assert files_on(hub, repo_id) == set()


def test_a_public_push_does_not_go_to_a_private_repository(hub, prepared):
    repo_id = hub.repository("clips", "dataset")
    hub.api().create_repo(repo_id, repo_type="dataset", private=True)
    with pytest.raises(PushError, match="is private"):
        push_dataset(prepared["parquet"], repo_id, private=False, public_licensed_data=True, api=hub.api())
    assert files_on(hub, repo_id) == set()


def test_a_wrong_name_shows_before_the_files_are_read(hub, prepared, monkeypatch):
    monkeypatch.setattr("clipmg_hf.data.push.verify_dataset", lambda folder: pytest.fail("they were read"))
    with pytest.raises(PushError, match="names no owner"):
        push_dataset(prepared["parquet"], "clips", api=hub.api())


def test_a_folder_that_is_not_what_its_manifest_says_is_refused(hub, prepared, tmp_path):
    folder, repo_id = shutil.copytree(prepared["parquet"], tmp_path / "p"), hub.repository("clips", "dataset")
    shard = folder / "data/train-00001-of-00002.parquet"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    (folder / "notes.txt").write_text("of mine")
    with pytest.raises(DatasetFormatError, match=r"notes\.txt: not in the manifest") as raised:
        push_dataset(folder, repo_id, api=hub.api())
    assert "train-00001-of-00002.parquet: changed" in str(raised.value)
    shard.write_bytes(content)
    (folder / "notes.txt").unlink()
    (folder / "manifest.json").unlink()
    with pytest.raises(DatasetFormatError, match="prepare_dataset has finished"):
        push_dataset(folder, repo_id, api=hub.api())
    assert not hub.api().repo_exists(repo_id, repo_type="dataset")


def test_an_edited_card_goes_as_it_is(hub, prepared, tmp_path):
    folder, repo_id = shutil.copytree(prepared["parquet"], tmp_path / "p"), hub.repository("clips", "dataset")
    manifest = read_manifest(folder)
    assert not is_card_edited(folder, manifest)
    text = (folder / "README.md").read_text() + "\nMore of ours.\n"
    (folder / "README.md").write_text(text)
    assert is_card_edited(folder, manifest)
    push_dataset(folder, repo_id, api=hub.api())
    assert Path(hub.api().hf_hub_download(repo_id, "README.md", repo_type="dataset")).read_text() == text
    (folder / "README.md").unlink()
    push_dataset(folder, repo_id, api=hub.api())
    card = Path(hub.api().hf_hub_download(repo_id, "README.md", repo_type="dataset")).read_text()
    assert card == data_card(manifest, repo_id)
    (folder / "README.md").write_text("---\nlicense: my own\n---\n# Clips\n")
    with pytest.raises(ValueError, match="license"):
        push_dataset(folder, repo_id, api=hub.api())


def test_another_push_replaces_the_shards(hub, rows, prepared, tmp_path):
    repo_id = hub.repository("clips", "dataset")
    first = push_dataset(prepared["webdataset"], repo_id, api=hub.api())
    hub.api().upload_file(path_or_fileobj=b"of ours", path_in_repo="notes.txt", repo_id=repo_id, repo_type="dataset")
    folder = tmp_path / "p"
    prepare_dataset(rows, folder, PrepareConfig(short_side=48, clips_per_shard=3), show_progress=False)
    push_dataset(folder, repo_id, api=hub.api())
    expected = {*read_manifest(folder)["files"], "README.md", "manifest.json"}
    assert files_on(hub, repo_id) == {*expected, "notes.txt"}
    assert "data/train-00000-of-00002.tar" in files_on(hub, repo_id, first.commit)
    again = push_dataset(folder, repo_id, api=hub.api())
    assert not again.is_new


def test_a_push_that_is_cut_off_leaves_nothing_and_goes_on(hub, prepared, monkeypatch):
    monkeypatch.setattr("clipmg_hf.hub.RETRY_WAITS", ())
    folder, repo_id = prepared["parquet"], hub.repository("clips", "dataset")
    hub.fail("/commit/", drop=True)
    with pytest.raises(PushError, match="never a half"):
        push_dataset(folder, repo_id, api=hub.api())
    assert files_on(hub, repo_id) == set()
    assert len(uploads(hub)) == 3
    push_dataset(folder, repo_id, api=hub.api())
    # Nothing large is sent twice.
    assert len(uploads(hub)) == 3
    assert files_on(hub, repo_id) == {*read_manifest(folder)["files"], "README.md", "manifest.json"}


def test_the_command_checks_lists_and_pushes(hub, prepared, capsys, monkeypatch):
    module, folder = script(), prepared["parquet"]
    repo_id = hub.repository("clips", "dataset")

    def call(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["push_dataset.py", "--folder", str(folder), "--repo_id", repo_id, *options])
        module.main()
        return capsys.readouterr().out

    with monkeypatch.context() as context:
        context.delenv("HF_TOKEN", raising=False)
        context.setattr(constants, "HF_HUB_OFFLINE", True)
        listed = call("--dry_run")
    assert "as its manifest says; clips: train 4, test 1" in listed and "manifest.json" in listed
    assert listed.endswith(f"dry run: nothing was sent to {hub.endpoint}/datasets/{repo_id} (private)\n")
    assert not hub.api().repo_exists(repo_id, repo_type="dataset")

    monkeypatch.setenv("HF_TOKEN", hub.environment()["HF_TOKEN"])
    pushed = call()
    assert f"{hub.endpoint}/datasets/{repo_id}/commit/" in pushed
    assert f'load_dataset("{repo_id}", streaming=True)' in pushed
    assert "whoever may read the private repositories" in pushed and "edited" not in pushed
    assert "has all of this already" in call()

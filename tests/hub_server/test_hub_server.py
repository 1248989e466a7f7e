"""The Hub of the tests, as its clients see it: over HTTP, through huggingface_hub and datasets.

With HF_TOKEN and CLIPMG_HUB_NAMESPACE set, what needs no fault and no second account runs against the real Hub.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, HfFileSystem
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hub_server import HubServer, open_hub
from hub_server.git_objects import commit_id, git_id, tree_ids


ROOT = Path(__file__).parents[2]
CARD = "---\nlicense: apache-2.0\npipeline_tag: video-classification\ntags:\n- a\n---\n# Title\n"
# Uploads and downloads 300 MB by way of a server in the same process, and prints the most memory that Python held.
LARGE = """
import os, sys, tracemalloc, urllib.request
from pathlib import Path
import pytest
sys.path.insert(0, "tests")
from hub_server import open_hub

SIZE = 300_000_000
folder = Path(sys.argv[1])
(folder / "model.bin").touch()
os.truncate(folder / "model.bin", SIZE)
with pytest.MonkeyPatch.context() as patch, open_hub(folder, patch) as hub:
    api = hub.api()
    api.create_repo("alice/large")
    tracemalloc.start()
    api.upload_file(path_or_fileobj=folder / "model.bin", path_in_repo="model.bin", repo_id="alice/large")
    page = f"{hub.endpoint}/alice/large/resolve/main/model.bin"
    with urllib.request.urlopen(api.get_hf_file_metadata(url=page, token=api.token).location) as response:
        assert sum(map(len, iter(lambda: response.read(1_000_000), b""))) == SIZE
    peak = tracemalloc.get_traced_memory()[1]
    assert sum("/put/" in row["path"] for row in hub.log) == 15
print(f"{peak / 1e6:.0f}")
"""
DATASET = """
import sys
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

features = Features({"clip": Value("string"), "label": ClassLabel(names=["still", "move"])})
rows = {"clip": [f"clip {index}" for index in range(100)], "label": [index % 2 for index in range(100)]}
dataset = Dataset.from_dict(rows, features=features)
dataset.push_to_hub(sys.argv[1], private=True, split="validation")
stream = load_dataset(sys.argv[1], split="validation", streaming=True)
assert stream.features == features
assert [row["clip"] for row in stream] == rows["clip"]
assert load_dataset(sys.argv[1], split="validation")[:] == dataset[:]
print("loaded")
"""


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


def push(api: HfApi, repo_id: str, files: dict[str, bytes], **options):
    operations = [add(path, content) for path, content in files.items()]
    return api.create_commit(repo_id, operations, commit_message="Push", **options)


def read(api: HfApi, repo_id: str, path: str, **options) -> bytes:
    return Path(api.hf_hub_download(repo_id, path, **options)).read_bytes()


def status_of(action: Callable[[], object]) -> int:
    with pytest.raises(HfHubHTTPError) as error:
        action()
    return error.value.response.status_code


@pytest.fixture
def no_waiting(monkeypatch):
    """The client tries again at once."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def repo_id(hub) -> str:
    """An empty private repository."""
    repo_id = hub.repository("model")
    hub.api().create_repo(repo_id, private=True)
    return repo_id


class TestFiles:
    def test_small_and_large_files_come_back(self, hub, repo_id, tmp_path):
        api = hub.api()
        files = {"config.json": b'{"a": 1}', "deep/er/weights.safetensors": os.urandom(70_000), "empty.txt": b""}
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(content)
        api.upload_folder(repo_id=repo_id, folder_path=tmp_path, commit_message="All at once")
        assert {*api.list_repo_files(repo_id)} == {".gitattributes", *files}
        for path, content in files.items():
            assert read(api, repo_id, path) == content
        snapshot = Path(api.snapshot_download(repo_id))
        assert {path: (snapshot / path).read_bytes() for path in files} == files
        infos = {info.path: info for info in api.get_paths_info(repo_id, [*files])}
        assert infos["config.json"].lfs is None
        assert infos["deep/er/weights.safetensors"].lfs.size == 70_000
        with pytest.raises(RemoteEntryNotFoundError):
            read(api, repo_id, "no.json")

    def test_a_file_in_parts(self, tmp_path, monkeypatch):
        content = os.urandom(1_000_000)
        options = {"multipart_threshold": 500_000, "part_size": 300_000}
        with open_hub(tmp_path, monkeypatch, **options) as hub:
            api, repo_id = hub.api(), hub.repository("parts")
            api.create_repo(repo_id, private=True)
            # The small file of the same commit goes in one piece.
            push(api, repo_id, {"model.bin": content, "other.bin": b"\0" * 1000})
            assert read(api, repo_id, "model.bin") == content
            assert read(api, repo_id, "other.bin") == b"\0" * 1000
            puts = [row["path"] for row in hub.log if row["method"] == "PUT"]
            assert sum("part=" in path for path in puts) == 4
            assert len(puts) == 5

    def test_what_the_hub_has_is_not_sent_again(self, hub, repo_id):
        api = hub.api()
        push(api, repo_id, {"a.bin": b"\0" * 1000})
        push(api, repo_id, {"b.bin": b"\0" * 1000})
        assert read(api, repo_id, "b.bin") == b"\0" * 1000
        assert sum(row["method"] == "PUT" for row in hub.log) == 1

    @pytest.mark.parametrize("path", ["small.txt", "large.bin"])
    def test_a_part_of_a_file(self, hub, repo_id, path):
        content = bytes(range(1, 251)) * 100
        push(hub.api(), repo_id, {path: content})
        files = HfFileSystem(endpoint=hub.endpoint, token=hub.api().token, skip_instance_cache=True)
        with files.open(f"{repo_id}/{path}", "rb", block_size=1000) as file:
            file.seek(12_345)
            assert file.read(10) == content[12_345:12_355]
            file.seek(-5, os.SEEK_END)
            assert file.read() == content[-5:]

    def test_names_with_odd_characters(self, hub, repo_id):
        api = hub.api()
        names = [
            "Größe 1.txt",
            "100%25 sure?.json",
            "a+b & c#d.bin",
            "ファイル/файл.txt",
            "[x] {y} 'z'.md",
            "-;=@,~$!.bin",
        ]
        files = {name: name.encode() + b"\0" * name.endswith(".bin") for name in names}
        push(api, repo_id, files)
        assert {*api.list_repo_files(repo_id)} == {".gitattributes", *files}
        for name, content in files.items():
            assert read(api, repo_id, name) == content
        assert {info.path for info in api.get_paths_info(repo_id, names)} == {*names}
        assert [row.path for row in api.list_repo_tree(repo_id, "ファイル")] == ["ファイル/файл.txt"]
        api.create_branch(repo_id, branch="feature/ä #1")
        assert read(api, repo_id, names[0], revision="feature/ä #1") == files[names[0]]

    def test_listings_come_in_pages(self, tmp_path, monkeypatch):
        with open_hub(tmp_path, monkeypatch, page_size=3) as hub:
            api, repo_id = hub.api(), hub.repository("pages")
            api.create_repo(repo_id, private=True)
            push(api, repo_id, {f"{index % 3}/{index}.txt": b"x" for index in range(8)})
            for index in range(4):
                push(api, repo_id, {"same.txt": str(index).encode()})
            assert len(api.list_repo_files(repo_id)) == 10
            assert {row.path for row in api.list_repo_tree(repo_id)} == {".gitattributes", "0", "1", "2", "same.txt"}
            assert len(api.list_repo_commits(repo_id)) == 6

    def test_which_commit_changed_a_file(self, hub, repo_id):
        api = hub.api()
        first = push(api, repo_id, {"a/1.txt": b"1", "b.txt": b"1"}).oid
        second = push(api, repo_id, {"a/2.txt": b"2"}).oid
        rows = {row.path: row for row in api.list_repo_tree(repo_id, recursive=True, expand=True)}
        commits = {path: rows[path].last_commit.oid for path in ("a", "a/1.txt", "a/2.txt", "b.txt")}
        assert commits == {"a": second, "a/1.txt": first, "a/2.txt": second, "b.txt": first}

    def test_deleted_files_and_folders_are_gone(self, hub, repo_id):
        api = hub.api()
        push(api, repo_id, {"a/1.txt": b"1", "a/2.txt": b"2", "b.txt": b"b", "c.txt": b"c"})
        api.delete_folder("a", repo_id)
        api.delete_file("b.txt", repo_id)
        assert api.list_repo_files(repo_id) == [".gitattributes", "c.txt"]
        with pytest.raises(EntryNotFoundError):
            api.delete_file("b.txt", repo_id)


class TestRepositories:
    def test_a_repository_exists_already(self, hub, repo_id):
        api = hub.api()
        assert status_of(lambda: api.create_repo(repo_id)) == 409
        assert api.create_repo(repo_id, exist_ok=True).repo_id == repo_id
        assert api.repo_exists(repo_id)
        assert not api.repo_exists(repo_id, repo_type="dataset")

    @pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
    def test_every_type_of_repository(self, hub, repo_type):
        api = hub.api()
        options = {"space_sdk": "static"} if repo_type == "space" else {}
        repo_id = hub.repository("any-type", repo_type)
        url = api.create_repo(repo_id, repo_type=repo_type, private=True, **options)
        assert (url.repo_id, url.repo_type) == (repo_id, repo_type)
        push(api, repo_id, {"index.html": b"<p>", "x.bin": b"\0" * 100}, repo_type=repo_type)
        assert read(api, repo_id, "x.bin", repo_type=repo_type) == b"\0" * 100
        info = api.repo_info(repo_id, repo_type=repo_type, files_metadata=True)
        assert info.private
        assert {row.rfilename: row.size for row in info.siblings if row.rfilename != "README.md"} == {
            ".gitattributes": api.get_paths_info(repo_id, ".gitattributes", repo_type=repo_type)[0].size,
            "index.html": 3,
            "x.bin": 100,
        }
        if repo_type == "space":
            assert info.sdk == "static"
        api.delete_repo(repo_id, repo_type=repo_type)
        assert not api.repo_exists(repo_id, repo_type=repo_type)

    def test_repositories_of_an_account(self, hub, repo_id):
        assert repo_id in [info.id for info in hub.api("hf_alice_read").list_models(author=hub.namespace)]
        assert repo_id not in [info.id for info in hub.api(None).list_models(author=hub.namespace)]

    def test_visibility_can_change(self, hub, repo_id):
        push(hub.api(), repo_id, {"a.txt": b"a"})
        hub.api().update_repo_settings(repo_id, private=False)
        assert read(hub.api(None), repo_id, "a.txt") == b"a"

    def test_metadata_of_the_card(self, hub, repo_id):
        api = hub.api()
        push(api, repo_id, {"README.md": CARD.encode()})
        info = api.model_info(repo_id)
        assert info.card_data.license == "apache-2.0"
        assert info.pipeline_tag == "video-classification"
        assert {"a", "license:apache-2.0"} <= {*info.tags}
        with pytest.raises(ValueError, match="license"):
            push(api, repo_id, {"README.md": CARD.replace("apache-2.0", "my own").encode()})

    def test_branches_tags_and_commits(self, hub, repo_id):
        api = hub.api()
        old = push(api, repo_id, {"a.txt": b"old"}).oid
        api.create_tag(repo_id, tag="v1.0", tag_message="First")
        api.create_branch(repo_id, branch="side", revision=old)
        push(api, repo_id, {"a.txt": b"new"})
        push(api, repo_id, {"a.txt": b"side"}, revision="side")
        expected = {old: b"old", "v1.0": b"old", "side": b"side", "main": b"new"}
        assert {revision: read(api, repo_id, "a.txt", revision=revision) for revision in expected} == expected
        assert [row.name for row in api.list_repo_refs(repo_id).tags] == ["v1.0"]
        assert status_of(lambda: api.create_tag(repo_id, tag="v1.0")) == 409
        assert status_of(lambda: api.create_branch(repo_id, branch="side")) == 409
        api.delete_tag(repo_id, tag="v1.0")
        api.delete_branch(repo_id, branch="side")
        with pytest.raises(RevisionNotFoundError):
            read(api, repo_id, "a.txt", revision="v1.0", force_download=True)
        assert [row.name for row in api.list_repo_refs(repo_id).branches] == ["main"]


class TestRights:
    def test_a_private_repository_is_hidden(self, hub, repo_id):
        for token, status in ((None, 401), ("hf_bob_write", 404)):
            with pytest.raises(RepositoryNotFoundError) as error:
                hub.api(token).model_info(repo_id)
            assert error.value.response.status_code == status
            with pytest.raises(RepositoryNotFoundError):
                read(hub.api(token), repo_id, ".gitattributes")
        assert hub.api("hf_alice_read").model_info(repo_id).private

    def test_a_wrong_token(self, hub):
        api = hub.api("hf_wrong")
        assert status_of(lambda: api.create_repo(hub.repository("model"))) == 401
        assert status_of(lambda: api.whoami()) == 401

    def test_no_token(self, hub):
        assert status_of(lambda: hub.api(None).create_repo(hub.repository("model"))) == 401

    def test_a_token_that_may_only_read(self, hub, repo_id):
        api = hub.api("hf_alice_read")
        assert status_of(lambda: push(api, repo_id, {"a.txt": b"a"})) == 403
        assert status_of(lambda: push(api, repo_id, {"a.bin": b"\0"})) == 403
        assert status_of(lambda: api.create_repo("alice/other")) == 403
        assert status_of(lambda: api.create_tag(repo_id, tag="v1")) == 403
        assert status_of(lambda: api.delete_repo(repo_id)) == 403
        assert api.whoami()["auth"]["accessToken"]["role"] == "read"
        assert len(hub.api().list_repo_commits(repo_id)) == 1

    def test_organizations(self, hub):
        assert hub.api().create_repo("lab/model").repo_id == "lab/model"
        assert status_of(lambda: hub.api("hf_bob_write").create_repo("lab/other")) == 403
        assert [row["name"] for row in hub.api().whoami()["orgs"]] == ["lab"]

    def test_a_pull_request_needs_no_right_to_write(self, hub):
        hub.api().create_repo("alice/public")
        api = hub.api("hf_bob_write")
        assert status_of(lambda: push(api, "alice/public", {"a.txt": b"a"})) == 403
        commit = push(api, "alice/public", {"a.txt": b"a"}, create_pr=True)
        assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
        assert read(api, "alice/public", "a.txt", revision="refs/pr/1") == b"a"
        assert api.list_repo_files("alice/public") == [".gitattributes"]
        assert [row.ref for row in api.list_repo_refs("alice/public", include_pull_requests=True).pull_requests] == [
            "refs/pr/1"
        ]

    def test_the_object_store_wants_a_signature_and_no_token(self, hub, repo_id):
        push(hub.api(), repo_id, {"a.bin": b"\0"})
        api = hub.api("hf_alice_read")
        page = f"{hub.endpoint}/{repo_id}/resolve/main/a.bin"
        address = api.get_hf_file_metadata(url=page, token=api.token).location
        requests = {
            200: urllib.request.Request(address),
            400: urllib.request.Request(address, headers={"Authorization": "Bearer hf_alice_write"}),
            403: urllib.request.Request(address.replace("signature=", "signature=0")),
        }
        assert {status: _status(request) for status, request in requests.items()} == {200: 200, 400: 400, 403: 403}


def _status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class TestFaults:
    def test_two_pushes_at_once(self, hub, repo_id):
        api = hub.api()
        parent = api.model_info(repo_id).sha
        push(api, repo_id, {"a.txt": b"first"}, parent_commit=parent)
        assert status_of(lambda: push(api, repo_id, {"a.txt": b"second"}, parent_commit=parent)) == 412
        assert read(api, repo_id, "a.txt") == b"first"

    def test_one_of_many_pushes_wins(self, hub, repo_id):
        parent = hub.api().model_info(repo_id).sha
        results: list[int] = []

        def push_one(index: int) -> None:
            try:
                push(hub.api(), repo_id, {"a.txt": str(index).encode()}, parent_commit=parent)
                results.append(200)
            except HfHubHTTPError as error:
                results.append(error.response.status_code)

        threads = [threading.Thread(target=push_one, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(200) == 1
        assert {*results} == {200, 412}
        assert len(hub.api().list_repo_commits(repo_id)) == 2

    def test_an_upload_that_is_cut_goes_on(self, hub, repo_id, no_waiting):
        content = os.urandom(3_000_000)
        hub.fail("/put/", drop=True)
        push(hub.api(), repo_id, {"model.bin": content})
        assert read(hub.api(), repo_id, "model.bin") == content
        assert [row["status"] for row in hub.log if row["method"] == "PUT"] == ["cut", 200]

    def test_an_upload_that_fails_leaves_nothing(self, hub, repo_id, no_waiting):
        api = hub.api()
        before = api.model_info(repo_id).sha
        hub.fail("/put/", drop=True, times=6)
        with pytest.raises(RuntimeError, match=r"model\.bin"):
            push(api, repo_id, {"config.json": b"{}", "model.bin": b"\0" * 1_000_000})
        assert api.model_info(repo_id).sha == before
        assert api.list_repo_files(repo_id) == [".gitattributes"]
        assert [path for path in (hub.folder / "server" / "large_files").rglob("*") if path.is_file()] == []
        push(api, repo_id, {"config.json": b"{}", "model.bin": b"\0" * 1_000_000})
        assert len(api.list_repo_commits(repo_id)) == 2

    def test_a_commit_that_is_cut_leaves_nothing(self, hub, repo_id):
        api = hub.api()
        hub.fail("/commit/", drop=True)
        with pytest.raises(Exception, match=r"disconnected|reset|Broken pipe"):
            push(api, repo_id, {"a.txt": b"a" * 100_000, "b.txt": b"b"})
        assert api.list_repo_files(repo_id) == [".gitattributes"]
        push(api, repo_id, {"a.txt": b"a" * 100_000, "b.txt": b"b"})
        assert len(api.list_repo_commits(repo_id)) == 2

    def test_a_commit_may_be_made_though_the_answer_is_lost(self, hub, repo_id):
        hub.fail("/commit/", late=True)
        with pytest.raises(Exception, match=r"disconnected|reset"):
            push(hub.api(), repo_id, {"a.txt": b"a"})
        assert read(hub.api(), repo_id, "a.txt") == b"a"

    @pytest.mark.parametrize("pattern", ["/preupload/", "/lfs/objects/batch", "/put/", "/lfs/objects/verify"])
    def test_an_error_of_the_server_then_success(self, hub, repo_id, no_waiting, pattern):
        hub.fail(pattern, status=500, times=2)
        push(hub.api(), repo_id, {"a.bin": b"\0" * 1000})
        assert [row["status"] for row in hub.log if pattern in row["path"]] == [500, 500, 200]
        assert len(hub.api().list_repo_commits(repo_id)) == 2

    def test_faults_are_chosen_by_method(self, hub, repo_id):
        hub.fail("/api/models", status=500, method="DELETE")
        assert hub.api().model_info(repo_id).id == repo_id


class TestProcesses:
    def test_a_large_file_takes_little_memory(self, run_command, tmp_path):
        peak = run_command([sys.executable, "-c", LARGE, str(tmp_path)], env={"CLIPMG_HUB_NAMESPACE": ""}).stdout
        # MB, of the server and the client together: less than one part.
        assert int(peak) < 20
        shutil.rmtree(tmp_path)

    def test_a_dataset_is_pushed_and_streamed(self, hub, run_command):
        repo_id = hub.repository("dataset", "dataset")
        command = [sys.executable, "-c", DATASET, repo_id]
        # Without torch, which datasets would import.
        assert run_command(command, env={**hub.environment(), "USE_TORCH": "0"}).stdout.endswith("loaded\n")

    def test_it_runs_as_a_program(self, tmp_path):
        command = [sys.executable, "-m", "tests.hub_server", "--folder", str(tmp_path)]
        # Children of a shell's background jobs ignore Ctrl-C.
        heeds_interrupts = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, preexec_fn=heeds_interrupts
        ) as process:
            assert process.stdout is not None
            endpoint = process.stdout.readline().split()[0]
            assert HfApi(endpoint=endpoint, token="hf_alice_write").whoami()["name"] == "alice"
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0

    def test_it_ends_with_its_connections(self, tmp_path):
        with HubServer(tmp_path) as server:
            HfApi(endpoint=server.endpoint, token="hf_alice_write").create_repo("alice/model")
            names = {thread.name for thread in threading.enumerate() if "process_request" in thread.name}
            assert names
        for thread in threading.enumerate():
            if thread.name in names:
                thread.join(5)
        assert not names & {thread.name for thread in threading.enumerate()}
        with HubServer(tmp_path) as server:
            assert HfApi(endpoint=server.endpoint).repo_exists("alice/model")


class TestRealHub:
    @pytest.fixture
    def real_hub(self, tmp_path, monkeypatch):
        deleted = []
        monkeypatch.setattr(HfApi, "delete_repo", lambda api, repo_id, **options: deleted.append((repo_id, options)))
        monkeypatch.setenv("HF_TOKEN", "hf_real")
        monkeypatch.setenv("CLIPMG_HUB_NAMESPACE", "somebody")
        with open_hub(tmp_path, monkeypatch) as hub:
            yield hub, deleted

    def test_the_environment_chooses_it(self, real_hub):
        hub, _ = real_hub
        assert hub.endpoint == "https://huggingface.co"
        assert hub.api().token == hub.environment()["HF_TOKEN"] == "hf_real"
        assert hub.api("hf_wrong").token == "hf_wrong"
        assert "HF_TOKEN" not in hub.environment(None)
        assert hub.repository("model").startswith("somebody/clipmg-test-model-")
        assert hub.repository("model") != hub.repository("model")

    def test_repositories_are_deleted(self, real_hub):
        hub, deleted = real_hub
        names = [hub.repository("model"), hub.repository("data", "dataset")]
        hub.delete_repositories()
        types = [{"repo_type": repo_type, "missing_ok": True} for repo_type in ("model", "dataset")]
        assert deleted == [*zip(names, types, strict=True)]

    @pytest.mark.parametrize(
        "use",
        [lambda hub: hub.fail("x"), lambda hub: hub.log, lambda hub: hub.api("hf_bob_write")],
        ids=["fail", "log", "account"],
    )
    def test_what_it_cannot_do_is_skipped(self, real_hub, use):
        with pytest.raises(pytest.skip.Exception):
            use(real_hub[0])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_ids_are_those_of_git(tmp_path):
    files = {"a/b/c.txt": b"1\n", "a.txt": b"2\n", "a-b.txt": b"3\n", "a/z": b"", "ä.bin": b"\0"}
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    who = {"NAME": "alice", "EMAIL": "alice@users.noreply.hub.local", "DATE": "1700000000 +0000"}
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in who.items()}

    def git(*arguments: str) -> str:
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "check": True}
        return subprocess.run(["git", *arguments], **options).stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "Title\n\nBody")
    ids = tree_ids({path: git_id("blob", content) for path, content in files.items()})
    assert ids[""] == git("rev-parse", "HEAD^{tree}")
    assert ids["a/b"] == git("rev-parse", "HEAD:a/b")
    assert commit_id(ids[""], None, "alice", 1_700_000_000, "Title\n\nBody") == git("rev-parse", "HEAD")

"""Pushing a folder: one commit or none, whatever the Hub and the line do, and errors that say what to do."""

import json
import os
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants, hf_hub_download

from clipmg_hf import hub as hub_module
from clipmg_hf.hub import PushError, describe_files, list_files, push_folder


MESSAGE = "Upload CLIP-MG"
LARGE = 300_000_000
ODD_NAMES = ("ä b#c%20+d?é.txt", "sub folder/&=;@[1].txt", "日本.txt", "..a.b", "-")


@pytest.fixture
def folder(tmp_path):
    """A small checkpoint: two texts and a file that goes to the store of large files."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# CLIP-MG\n")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 20)
    return folder


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(hub_module, "RETRY_WAITS", (0, 0, 0))


@pytest.fixture
def push(hub, folder):
    """Push the folder to a repository of the test's account."""
    repo_id = hub.repository("clip-mg")

    def push(token="hf_alice_write", **options):
        return push_folder(folder, repo_id, **{"commit_message": MESSAGE, "api": hub.api(token), **options})

    push.repo_id = repo_id
    return push


def files_of(hub, repo_id, **options):
    return {file.rfilename for file in hub.api().repo_info(repo_id, **options).siblings} - {".gitattributes"}


def titles(hub, repo_id):
    return [commit.title for commit in hub.api().list_repo_commits(repo_id)]


def requests(hub, pattern):
    return [entry["status"] for entry in hub.log if pattern in entry["path"]]


def refused(push, **options):
    with pytest.raises(PushError) as error:
        push(**options)
    return str(error.value)


# --- what a push does


def test_a_push_is_one_commit_of_all_files(hub, push, folder):
    result = push()
    assert files_of(hub, push.repo_id) == {"config.json", "README.md", "model.safetensors"}
    assert titles(hub, push.repo_id) == [MESSAGE, "initial commit"]
    assert result.is_new and result.commit == hub.api().repo_info(push.repo_id).sha
    assert result.url == f"{hub.endpoint}/{push.repo_id}/commit/{result.commit}"
    downloaded = hf_hub_download(push.repo_id, "model.safetensors", endpoint=hub.endpoint, token=hub.api().token)
    assert Path(downloaded).read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_second_push_adds_a_commit_and_sends_only_what_changed(hub, push, folder):
    first = push()
    (folder / "config.json").write_text('{"a": 1}')
    second = push()
    assert second.is_new and titles(hub, push.repo_id) == [MESSAGE, MESSAGE, "initial commit"]
    assert len(requests(hub, "/put/")) == 1
    again = push()
    assert not again.is_new and again.commit == second.commit != first.commit
    assert len(titles(hub, push.repo_id)) == 3


def test_repositories_of_each_type(hub, folder):
    for repo_type, options in (("dataset", {}), ("space", {"space_sdk": "gradio"})):
        repo_id = hub.repository("thing", repo_type)
        result = push_folder(folder, repo_id, repo_type=repo_type, commit_message=MESSAGE, api=hub.api(), **options)
        assert result.url.startswith(f"{hub.endpoint}/{repo_type}s/{repo_id}/commit/")
        assert "config.json" in files_of(hub, repo_id, repo_type=repo_type)


def test_a_private_repository(hub, push):
    push(private=True)
    assert hub.api().repo_info(push.repo_id).private
    assert "there is no model" in refused(push, token="hf_bob_write", create_pr=True)


def test_nothing_private_goes_to_a_public_repository(hub, push):
    push()
    count = len(titles(hub, push.repo_id))
    url = f"{hub.endpoint}/{push.repo_id}"
    assert refused(push, private=True) == (
        f"{url} is public, and a private push does not change that; make it private at {url}/settings, or push "
        "without private. Nothing was written."
    )
    assert len(titles(hub, push.repo_id)) == count


def test_a_private_repository_stays_private(hub, push, folder):
    push(private=True)
    (folder / "config.json").write_text('{"a": 1}')
    push()
    assert hub.api().repo_info(push.repo_id).private


def test_a_tag_names_the_commit_and_never_moves(hub, push, folder):
    result = push(tag="v1.0")
    assert hub.api().repo_info(push.repo_id, revision="v1.0").sha == result.commit
    (folder / "config.json").write_text('{"a": 1}')
    assert refused(push, tag="v1.0") == (
        f"{hub.endpoint}/{push.repo_id} has a tag 'v1.0' already, at {result.commit[:7]}; expected a new tag. "
        "Nothing was written."
    )
    assert "has a branch 'main' already" in refused(push, tag="main")
    assert len(titles(hub, push.repo_id)) == 2


def test_a_pull_request_leaves_main_as_it_is(hub, push, folder):
    first = push()
    (folder / "config.json").write_text('{"a": 1}')
    result = push(create_pr=True)
    assert result.url == f"{hub.endpoint}/{push.repo_id}/discussions/1"
    assert hub.api().repo_info(push.repo_id).sha == first.commit != result.commit
    assert hub.api().repo_info(push.repo_id, revision="refs/pr/1").sha == result.commit


def test_a_pull_request_to_somebody_elses_repository(hub, push, folder):
    push()
    (folder / "config.json").write_text('{"a": 1}')
    result = push(token="hf_bob_write", create_pr=True, allow_patterns=["config.json"])
    assert result.url.endswith("/discussions/1")


def test_files_of_an_earlier_push_are_removed_in_the_same_commit(hub, push, folder):
    (folder / "old.py").write_text("")
    (folder / "sub").mkdir()
    (folder / "sub" / "kept.py").write_text("")
    push()
    for name in ("old.py", "sub/kept.py", "config.json"):
        (folder / name).unlink()
    push(delete_patterns=["*.py"])
    assert files_of(hub, push.repo_id) == {"config.json", "README.md", "model.safetensors", "sub/kept.py"}
    assert len(titles(hub, push.repo_id)) == 3
    push(delete_patterns=["sub/*"])
    assert "sub/kept.py" not in files_of(hub, push.repo_id)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names(hub, push, folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(name)
    is_hidden = name.startswith(".")
    push()
    assert (name in files_of(hub, push.repo_id)) is not is_hidden


def test_odd_repository_names(hub, folder):
    for name in ("a-b_c.1", "x" * 90):
        repo_id = hub.repository(name)
        push_folder(folder, repo_id, commit_message=MESSAGE, api=hub.api())
        assert "config.json" in files_of(hub, repo_id)


# --- what is missing


def test_without_a_token_nothing_is_sent(hub, push):
    assert refused(push, token=None) == (
        f"there is no token to push to {push.repo_id} with; expected one that may write: make it at "
        f"{hub.endpoint}/settings/tokens, then `hf auth login` or HF_TOKEN."
    )
    assert hub.log == []


def test_a_wrong_token(hub, push):
    message = refused(push, token="hf_mistyped")
    assert message == (
        "the Hub does not accept the token (401: Invalid credentials in Authorization header); is it mistyped, "
        f"expired or of another Hub than {hub.endpoint}? Make one that may write at {hub.endpoint}/settings/tokens, "
        "then `hf auth login` or HF_TOKEN."
    )
    assert "hf_mistyped" not in message


def test_a_token_of_no_token_characters(hub, push):
    assert refused(push, api=HfApi(endpoint=hub.endpoint, token="hf_é")) == (
        "the token holds characters that no token has; expected hf_ and letters and digits."
    )


def test_a_token_that_only_reads(hub, push, folder):
    push()
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(b"other" * 1000)
    sent = len(requests(hub, "/put/"))
    assert refused(push, token="hf_alice_read") == (
        f"the token of alice may not write to {push.repo_id}: it only reads; expected a token of the type 'write', "
        f"from {hub.endpoint}/settings/tokens (403 while uploading: Forbidden: you must use a write token to upload "
        "to a repository). Nothing was written."
    )
    assert len(requests(hub, "/put/")) == sent and len(titles(hub, push.repo_id)) == 2


@pytest.mark.parametrize("exists", [True, False])
def test_somebody_elses_namespace(hub, push, exists):
    if exists:
        push()
    message = refused(push, token="hf_bob_write")
    assert message.startswith(
        f"the token of bob may not write to {push.repo_id}: bob is not a member of alice; expected bob/..., or a pull "
        f"request (create_pr) (403 while {'uploading' if exists else 'looking for the repository'}: "
    )
    assert message.endswith("Nothing was written.")


def test_a_pull_request_needs_a_repository(hub, push):
    assert refused(push, create_pr=True) == (
        f"there is no model {push.repo_id} that this token can see (404 while looking for the repository: Repository "
        "not found)."
    )


@pytest.mark.parametrize(
    ("repo_id", "message"),
    [
        ("al ice/m", "'al ice/m' is no name of a repository; expected OWNER/NAME of letters"),
        ("a/b/c", "'a/b/c' is no name of a repository"),
        ("a/b--c", "'a/b--c' is no name of a repository"),
        ("", "'' is no name of a repository"),
        ("m", "'m' names no owner; expected OWNER/NAME, such as your-account/m."),
    ],
)
def test_names_that_cannot_be(hub, push, folder, repo_id, message):
    with pytest.raises(PushError) as error:
        push_folder(folder, repo_id, commit_message=MESSAGE, api=hub.api(), dry_run=True)
    assert message in str(error.value)
    assert hub.log == []


@pytest.mark.parametrize("tag", ["a b", "v1..2", "-v", "v1.lock", "v1/", ""])
def test_tags_that_cannot_be(hub, push, tag):
    assert f"{tag!r} is no name of a tag" in refused(push, tag=tag)
    assert hub.log == []


def test_requests_that_contradict_themselves(push):
    assert "a pull request cannot be tagged" in refused(push, tag="v1", create_pr=True)
    assert "the commit message is empty" in refused(push, commit_message=" ")


def test_a_card_that_the_hub_refuses(hub, push, folder):
    (folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
    with pytest.raises(ValueError, match=r"Invalid metadata in README.md.\n- \"license\" must be one of"):
        push()
    assert requests(hub, "/preupload/") == [] and len(titles(hub, push.repo_id)) == 1


def test_a_gitignore_on_the_hub_does_not_swallow_files(hub, push, folder):
    push()
    hub.api().upload_file(path_or_fileobj=b"*.txt\n", path_in_repo=".gitignore", repo_id=push.repo_id)
    (folder / "requirements.txt").write_text("torch\n")
    assert "was written, but lacks requirements.txt; is there a .gitignore" in refused(push)


# --- what fails on the way


@pytest.mark.parametrize("failure", [{"status": 500}, {"status": 503}, {"drop": True}, {"late": True}])
@pytest.mark.parametrize("pattern", ["/api/repos/create", "/api/validate-yaml", "/revision/main", "/commit/", "/tag/"])
def test_what_passes_is_tried_again(hub, push, pattern, failure):
    hub.fail(pattern, times=2, **failure)
    result = push(tag="v1")
    assert files_of(hub, push.repo_id) == {"config.json", "README.md", "model.safetensors"}
    # An answer that was lost must not make a second commit.
    assert titles(hub, push.repo_id) == [MESSAGE, "initial commit"]
    assert hub.api().repo_info(push.repo_id, revision="v1").sha == result.commit


@pytest.mark.parametrize("failure", [{"status": 500}, {"drop": True}])
def test_the_upload_of_a_large_file_is_tried_again(hub, push, failure):
    hub.fail("/put/", method="PUT", **failure)
    push()
    assert len(requests(hub, "/put/")) == 2
    assert titles(hub, push.repo_id) == [MESSAGE, "initial commit"]


@pytest.mark.parametrize("failure", [{"status": 500}, {"drop": True}])
def test_what_does_not_pass_leaves_everything_as_it_was(hub, push, folder, failure):
    before = push()
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "model.safetensors").write_bytes(b"other" * 1000)
    hub.fail("/commit/", times=4, **failure)
    message = refused(push)
    state = f"{push.repo_id} holds all of this push or is as it was, never a half."
    if failure == {"status": 500}:
        assert message.startswith("the Hub is in trouble (HTTP 500 while uploading: ")
        assert message.endswith(f"). {state} Try again later.")
    else:
        assert message.startswith(f"{hub.endpoint} did not answer while uploading (RemoteProtocolError: ")
        assert message.endswith(f"{state} Expected a network, and HF_ENDPOINT unset or right.")
    assert hub.api().repo_info(push.repo_id).sha == before.commit
    assert push().is_new


def test_a_pull_request_is_not_opened_twice(hub, push, folder):
    push()
    (folder / "config.json").write_text('{"a": 1}')
    hub.fail("/commit/", late=True)
    look = f"look at {hub.endpoint}/{push.repo_id}/discussions before you try again"
    assert f"A pull request may be open: {look}" in refused(push, create_pr=True)
    assert len(hub.api().list_repo_refs(push.repo_id, include_pull_requests=True).pull_requests) == 1


def test_a_tag_that_fails_says_that_the_push_is_there(hub, push):
    hub.fail("/tag/", status=500, times=4)
    message = refused(push, tag="v1")
    commit = hub.api().repo_info(push.repo_id).sha
    assert f"{hub.endpoint}/{push.repo_id}/commit/{commit} was written, but not its tag 'v1'." in message
    assert "Nothing" not in message


def test_the_second_of_two_pushes_at_once_is_refused(hub, push, folder, monkeypatch):
    push()
    before = hub.api().repo_info(push.repo_id).sha
    (folder / "config.json").write_text('{"a": 1}')
    head = hub_module._Repository.head

    def meanwhile(repository):
        """Another push comes between the look at the repository and the commit."""
        found = head(repository)
        hub.api().upload_file(path_or_fileobj=b"x", path_in_repo="theirs.txt", repo_id=push.repo_id)
        return found

    monkeypatch.setattr(hub_module._Repository, "head", meanwhile)
    url = f"{hub.endpoint}/{push.repo_id}"
    message = refused(push)
    assert message.startswith(f"another push came first: {url} is no longer at {before[:7]}, where this one began (")
    assert message.endswith(f"Nothing was written. Look at {url}/commits/main; the same command again pushes on top.")
    assert len(titles(hub, push.repo_id)) == 3 and "theirs.txt" in files_of(hub, push.repo_id)
    monkeypatch.setattr(hub_module._Repository, "head", head)
    assert push().is_new and "theirs.txt" in files_of(hub, push.repo_id)


def test_no_hub_at_all(folder, hub):
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_x")
    with pytest.raises(
        PushError, match=r"http://127.0.0.1:9 did not answer .* Nothing was written. Expected a network"
    ):
        push_folder(folder, "a/b", commit_message=MESSAGE, api=api)


def test_offline(push, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(push) == "HF_HUB_OFFLINE is set, so nothing can be pushed; unset it."


LARGE_PUSH = """
import json, resource, sys
from clipmg_hf.hub import push_folder
push_folder(sys.argv[1], sys.argv[2], commit_message="first", allow_patterns=["config.json"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
push_folder(sys.argv[1], sys.argv[2], commit_message="large")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps((after - before) * (1 if sys.platform == "darwin" else 1024)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="measures by getrusage")
def test_a_large_file_goes_up_in_bounded_memory(hub, folder, run_command):
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(LARGE)
    repo_id = hub.repository("large")
    command = [sys.executable, "-c", LARGE_PUSH, str(folder), repo_id]
    grown = json.loads(run_command(command, env=hub.environment()).stdout.splitlines()[-1])
    info = hub.api().repo_info(repo_id, files_metadata=True)
    assert {file.rfilename: file.size for file in info.siblings}["model.safetensors"] == LARGE
    assert grown < LARGE / 4


# --- dry run and files


def test_a_dry_run_needs_neither_a_token_nor_a_network(folder, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    api = HfApi(endpoint="http://127.0.0.1:9", token=False)
    result = push_folder(folder, "a/b", commit_message=MESSAGE, tag="v1", api=api, dry_run=True)
    assert result.commit is None and not result.is_new and result.url == "http://127.0.0.1:9/a/b"
    assert [file.path for file in result.files] == ["README.md", "config.json", "model.safetensors"]
    assert describe_files(result.files).splitlines() == [
        "   38  README.md",
        "    2  config.json",
        "5,120  model.safetensors",
        "5,160  bytes in 3 files",
    ]


def test_hidden_files_stay_here(folder):
    (folder / ".env").write_text("HF_TOKEN=hf_secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_bytes(b"")
    assert [file.path for file in list_files(folder)] == ["README.md", "config.json", "model.safetensors"]


def test_patterns_choose_files(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "a.json").write_text("{}")
    assert [file.path for file in list_files(folder, ["*.json"])] == ["config.json", "sub/a.json"]
    assert [file.path for file in list_files(folder, ["*.json"], ["sub/*"])] == ["config.json"]


def test_files_that_are_links_count_as_files(folder, tmp_path):
    (tmp_path / "blob").write_bytes(b"123")
    (folder / "linked.json").symlink_to(tmp_path / "blob")
    assert {file.path: file.size for file in list_files(folder)}["linked.json"] == 3


def test_folders_that_cannot_be_pushed(folder, tmp_path):
    def refusal(path):
        with pytest.raises(PushError) as error:
            list_files(path)
        return str(error.value)

    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'} does not exist; expected a folder."
    assert refusal(folder / "config.json") == f"{folder / 'config.json'} is not a folder; expected a folder."
    (tmp_path / "empty").mkdir()
    assert "holds no file to push" in refusal(tmp_path / "empty")
    (folder / "x").symlink_to(folder / "none")
    assert refusal(folder).startswith(f"{folder / 'x'} is a broken link")
    (folder / "x").unlink()
    (folder / "x").symlink_to(tmp_path)
    assert refusal(folder) == f"{folder / 'x'} is a link to a folder; expected the folder itself."
    (folder / "x").unlink()
    (folder / "a\nb").write_text("")
    assert "'a\\nb' cannot be a file name on the Hub" in refusal(folder)
    (folder / "a\nb").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("")
    assert "cannot be a file name on the Hub" in refusal(folder)

"""Push the Spaces: the metric for the `evaluate` library, and the app in a browser.

    push_metric("owner/clipmg_metric")                  # evaluate.load("owner/clipmg_metric")
    push_app("owner/micro-gestures", model="owner/clip-mg")

`hub_scripts/push_metric.py` and `hub_scripts/push_space.py` are the commands. The app's Space has a copy of the
package: it runs the code that is here, and needs no address to install it from.
"""

import logging
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled

from clipmg_hf.hub import PushError, PushResult, push_folder
from clipmg_hf.metric_space import METRIC_NAME, write_metric_space
from clipmg_hf.modeling.checkpoint_files_clipmg import CONFIG_FILE, PROCESSOR_FILE


logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
APP_SOURCE = ROOT / "hub_scripts" / "clipmg_space"
APP_FILES = ("README.md", "app.py")
PACKAGE = "clipmg_hf"
# Folders of the repository that are parts of the package.
PARTS = ("modeling", "processing")
# What makes a repository a checkpoint of this package.
CHECKPOINT_FILES = (CONFIG_FILE, PROCESSOR_FILE)
_PLACEHOLDER = re.compile(r"<[a-z]+>")
_SELF_REQUIREMENT = re.compile(rf"{PACKAGE}\[([\w, -]+)\]")


def push_metric(repo_id: str, *, private: bool = False, dry_run: bool = False, api: HfApi | None = None) -> PushResult:
    """Push the metric as a Space that `evaluate.load(repo_id)` loads.

    Args:
        repo_id (`str`): `"owner/clipmg_metric"`: `evaluate` looks for a script of the Space's name.
        private (`bool`, defaults to `False`): Loads with a token that may read it only.
        dry_run (`bool`, defaults to `False`): List the files only; needs neither a token nor a network.
        api (`HfApi`, *optional*): Endpoint and token; by default those of the environment.

    Raises:
        PushError: Another name of the Space; or what `push_folder` raises.
        FileNotFoundError: The package was installed without the repository.
    """
    owner, _, name = repo_id.rpartition("/")
    if name != METRIC_NAME:
        raise PushError(
            f"{repo_id!r}: evaluate looks for a script of the Space's name; expected {owner or 'OWNER'}/{METRIC_NAME}."
        )
    with tempfile.TemporaryDirectory() as place:
        folder = write_metric_space(Path(place, METRIC_NAME), owner)
        return _push(folder, repo_id, "Upload the metric", private, dry_run, api)


def push_app(
    repo_id: str, model: str, *, private: bool = False, dry_run: bool = False, api: HfApi | None = None
) -> PushResult:
    """Push the app as a Space that shows a model of the Hub.

    Args:
        repo_id (`str`): `"owner/name"` of the Space.
        model (`str`): `"owner/name"` of the model, which is on the Hub already.
        private (`bool`, defaults to `False`): Only for those who may read the owner's private repositories.
        dry_run (`bool`, defaults to `False`): List the files only; needs neither a token nor a network, and does not
            look for the model.
        api (`HfApi`, *optional*): Endpoint and token; by default those of the environment.

    Raises:
        PushError: There is no such model, or it is none of CLIP-MG; or what `push_folder` raises.
        FileNotFoundError: The package was installed without the repository.
    """
    if not dry_run:
        check_model(model, api or HfApi())
    with tempfile.TemporaryDirectory() as place:
        folder = write_app_space(Path(place, "space"), model)
        return _push(folder, repo_id, f"Upload the app, with {model}", private, dry_run, api)


def write_app_space(folder: str | os.PathLike, model: str) -> Path:
    """Write the Space's page, its README and requirements, and a copy of the package.

    Args:
        folder (`str` or `PathLike`): Missing or empty.
        model (`str`): `"owner/name"` of the model that it shows.

    Raises:
        FileNotFoundError: The package was installed without the repository, which has the Space's files.
    """
    folder = Path(folder)
    if not APP_SOURCE.is_dir():
        raise FileNotFoundError(f"{APP_SOURCE} is missing; run this from a clone of the repository.")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in APP_FILES:
        text = (APP_SOURCE / name).read_text(encoding="utf-8")
        text = text.replace("<model>", model).replace("<version>", project["version"])
        if left := _PLACEHOLDER.findall(text):
            raise AssertionError(f"{name} still holds {', '.join(left)}")
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements(project, "app")))
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=ignore)
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / PACKAGE / part, ignore=ignore)
    shutil.copy(ROOT / "LICENSE", folder / PACKAGE / "LICENSE")
    return folder


def requirements(project: dict[str, Any], extra: str) -> list[str]:
    """What `pip install "package[extra]"` installs beside the package, from the table `project` of pyproject.toml."""

    def expand(lines: list[str]) -> Iterator[str]:
        for line in lines:
            if own := _SELF_REQUIREMENT.fullmatch(line):
                for name in own[1].split(","):
                    yield from expand(project["optional-dependencies"][name.strip()])
            else:
                yield line

    return [*project["dependencies"], *expand([f"{PACKAGE}[{extra}]"])]


def check_model(model: str, api: HfApi) -> None:
    """Refuse a Space whose model cannot be loaded; warn of one that the Space needs a token for.

    Raises:
        PushError: There is no such model on the Hub, it is no checkpoint of CLIP-MG, or the Hub does not answer.
    """
    expected = "expected OWNER/NAME of a CLIP-MG that is on the Hub; hub_scripts/push_model.py puts it there"
    try:
        info = api.model_info(model)
    except HFValidationError as error:
        raise PushError(f"{model!r} is no name of a model on the Hub; {expected}.") from error
    except OfflineModeIsEnabled as error:
        raise PushError("HF_HUB_OFFLINE is set, so nothing can be pushed; unset it.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise PushError(
                f"there is no model {model} at {api.endpoint} that this token can see ({status}); {expected}. "
                "Nothing was pushed."
            ) from error
        raise PushError(f"the Hub cannot tell whether there is a model {model} (HTTP {status}); try again.") from error
    except HTTPError as error:
        raise PushError(
            f"{api.endpoint} does not answer ({type(error).__name__}: {error}); expected a network, and HF_ENDPOINT "
            "unset or right."
        ) from error
    names = {file.rfilename for file in info.siblings or []}
    if missing := [name for name in CHECKPOINT_FILES if name not in names]:
        raise PushError(f"the model {model} has no {' and no '.join(missing)}; {expected}. Nothing was pushed.")
    if info.private:
        logger.warning(
            "the model %s is private: give the Space a secret HF_TOKEN that may read it, in its settings. Whoever "
            "sees the Space can then use the model.",
            model,
        )


def _push(folder: Path, repo_id: str, message: str, private: bool, dry_run: bool, api: HfApi | None) -> PushResult:
    return push_folder(
        folder,
        repo_id,
        repo_type="space",
        private=private,
        commit_message=message,
        # Modules of an earlier version that are gone.
        delete_patterns=("*.py",),
        space_sdk="gradio",
        api=api,
        dry_run=dry_run,
    )


__all__ = ["check_model", "push_app", "push_metric", "requirements", "write_app_space"]

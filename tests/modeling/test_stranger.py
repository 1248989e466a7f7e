"""A checkpoint works for somebody who has only torch, transformers, av, numpy and safetensors, and not this package.

The environment is a virtual one, of links to the distributions installed here: those five and what they require.
"""

import json
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_models import TINY
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from clipmg_hf.modeling import PIPELINE_TASK, CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGModel
from clipmg_hf.modeling.checkpoint_files_clipmg import CARD_FILE, REQUIREMENTS, REQUIREMENTS_FILE
from clipmg_hf.processing import CLIPMGProcessor


ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("stranger_script.py")
ABSENT = ["clipmg_hf", "modeling", "processing", "datasets", "accelerate", "evaluate", "peft", "torchvision", "pip"]
AUTO_MAP = {
    "AutoConfig": "configuration_clipmg.CLIPMGConfig",
    "AutoModel": "modeling_clipmg.CLIPMGModel",
    "AutoModelForVideoClassification": "modeling_clipmg.CLIPMGForMicroGestureClassification",
}
CODE = (ROOT / "modeling", ROOT / "processing")
MODEL_FILES, PROCESSOR_FILES = ({file.name for file in home.glob("*_clipmg.py")} for home in CODE)
MODEL_PARTS = {"config.json", "model.safetensors", CARD_FILE, REQUIREMENTS_FILE, *MODEL_FILES}


def closure(names: Iterable[str]) -> Iterator[Distribution]:
    """The distributions and all that they require here, without extras."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        yield found
        requirements = [Requirement(line) for line in found.requires or ()]
        waiting += [item.name for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def make_environment(folder: Path, names: Iterable[str], without: str | None = None) -> Path:
    """A virtual environment of links to these distributions and their requirements; returns its Python."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for found in closure(names):
        for part in {file.parts[0] for file in found.files or ()}:
            is_own = part not in ("..", "__pycache__") and not part.endswith(".pth")
            if is_own and part.partition(".")[0] != without and not (packages / part).is_symlink():
                (packages / part).symlink_to(Path(str(found.locate_file(part))))
    return python


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    names = [Requirement(requirement).name for requirement in REQUIREMENTS]
    return make_environment(tmp_path_factory.mktemp("stranger"), names)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CLIPMGForMicroGestureClassification(CLIPMGConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("checkpoint") / "clip-mg"
    model.save_pretrained(path)
    CLIPMGProcessor.from_model_config(model.config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Path of a video of 12 frames; keypoints are in the file beside it."""
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in generator.integers(0, 256, size=(12, 6, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    places, confidences = generator.uniform(5, 45, size=(12, 22, 2)), generator.uniform(0.2, 1, size=(12, 22, 1))
    np.save(path.with_suffix(".npy"), np.concatenate([places, confidences], axis=-1))
    return path


def arguments(name, video, again=None, revisions=(None,), refusals=False) -> str:
    given = {"name": str(name), "revisions": list(revisions), "refusals": refusals, "absent": ABSENT}
    given |= {"again": again and str(again), "video": str(video), "keypoints": str(video.with_suffix(".npy"))}
    return json.dumps(given)


def expected_outputs(folder, video) -> dict:
    """What the package makes of the folder, in the form of `stranger_script.use`."""
    keypoints = np.load(video.with_suffix(".npy"))
    processor = AutoProcessor.from_pretrained(folder)
    head, base = AutoModelForVideoClassification.from_pretrained(folder), AutoModel.from_pretrained(folder)
    inputs = processor(video, keypoints)
    with torch.no_grad():
        logits, embedding = head(**inputs).logits[0].tolist(), base(**inputs).fused_embedding[0].tolist()
    return {
        "logits": logits,
        "embedding": embedding,
        "pixels": processor(video)["pixel_values"].sum().item(),
        "pixels changed": processor(video, keypoints, augment=True, seeds=3)["pixel_values"].sum().item(),
        "pixels alone": AutoVideoProcessor.from_pretrained(folder)(video)["pixel_values"].sum().item(),
        "labels": list(head.config.id2label.values()),
        PIPELINE_TASK: pipeline(PIPELINE_TASK, model=str(folder))(str(video), keypoints=keypoints),
        "video-classification": pipeline("video-classification", model=str(folder))(str(video)),
    }


def assert_equal_outputs(found, expected) -> None:
    """Equal but for the last digits of floats."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_equal_outputs(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal_outputs(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-6, rel=1e-6)
    else:
        assert found == expected


def assert_is_complete(
    folder, code=CODE, architecture="CLIPMGForMicroGestureClassification", has_processor=True
) -> None:
    """Every file is there and nothing else; all code is that in the folders `code`, and no entry leaves the folder."""
    processor_parts = {"processor_config.json", *PROCESSOR_FILES} if has_processor else set()
    assert {file.name for file in folder.iterdir()} == MODEL_PARTS | processor_parts
    for file in folder.glob("*.py"):
        assert file.read_bytes() in [(home / file.name).read_bytes() for home in code if (home / file.name).exists()]
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP and config["architectures"] == [architecture]
    assert config["custom_pipelines"][PIPELINE_TASK]["impl"] == "pipeline_clipmg.CLIPMGPipeline"
    assert (folder / REQUIREMENTS_FILE).read_text().split() == list(REQUIREMENTS)
    if has_processor:
        settings = json.loads((folder / "processor_config.json").read_text())
        processor, frames = "processing_clipmg.CLIPMGProcessor", "video_processing_clipmg.CLIPMGVideoProcessor"
        assert settings["auto_map"]["AutoProcessor"] == processor
        assert settings["video_processor"]["auto_map"]["AutoVideoProcessor"] == frames


def test_what_is_saved_is_complete(folder, model, tmp_path):
    assert_is_complete(folder)
    assert "AutoModelForVideoClassification" in (folder / CARD_FILE).read_text()
    CLIPMGModel(model.config).save_pretrained(tmp_path)
    assert_is_complete(tmp_path, architecture="CLIPMGModel", has_processor=False)
    assert "AutoModel.from_pretrained" in (tmp_path / CARD_FILE).read_text()


def test_a_card_that_is_there_stays(tmp_path, model):
    (tmp_path / CARD_FILE).write_text("mine")
    (tmp_path / REQUIREMENTS_FILE).write_text("stale")
    model.save_pretrained(tmp_path)
    assert (tmp_path / CARD_FILE).read_text() == "mine"
    assert (tmp_path / REQUIREMENTS_FILE).read_text().split() == list(REQUIREMENTS)


def test_code_of_another_repository_is_named_no_more(tmp_path, model):
    model.config.auto_map = {"AutoModel": "someone/else--modeling_clipmg.CLIPMGModel"}
    try:
        model.save_pretrained(tmp_path)
    finally:
        del model.config.auto_map
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == AUTO_MAP


def test_a_stranger_uses_and_saves_a_folder(python, folder, video, tmp_path, run_command):
    again = tmp_path / "again"
    command = [str(python), "-I", str(SCRIPT), arguments(folder, video, again, refusals=True)]
    done = run_command(command, env={"HF_HOME": str(tmp_path / "home")})
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["refusals"]) == 7
    for refusal in result["refusals"].values():
        assert "trust_remote_code=True" in refusal and "custom code" in refusal
    expected = expected_outputs(folder, video)
    assert_equal_outputs(result["outputs"]["None"], expected)
    assert_equal_outputs(result["outputs"]["again"], expected)
    assert_equal_outputs(result["outputs"]["base"], expected["embedding"])
    assert_equal_outputs(result["outputs"]["pipeline"], expected[PIPELINE_TASK])
    assert result["events"] == []
    assert_is_complete(again / "head", [folder])
    assert_is_complete(again / "pipeline", [folder])
    assert_is_complete(again / "base", [folder], "CLIPMGModel", has_processor=False)


PACKAGE = """
import json, sys
import clipmg_hf
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline
from clipmg_hf.inference import load_model

name, revision, pickled = sys.argv[1:]
try:
    AutoModelForVideoClassification.from_pretrained(pickled)
except ValueError as error:
    print(error)
classes = [
    AutoModelForVideoClassification.from_pretrained(name),
    AutoModelForVideoClassification.from_pretrained(name, trust_remote_code=True),
    AutoProcessor.from_pretrained(name),
    pipeline("micro-gesture-classification", model=name),
]
models = [load_model(name)[0], load_model(name, revision=revision)[0]]
print(json.dumps([[type(one).__module__ for one in classes], [one.classifier.bias.sum().item() for one in models]]))
"""


def test_a_stranger_uses_the_hub(python, folder, model, video, hub, tmp_path, run_command):
    repo_id, api = hub.repository("clip-mg"), hub.api()
    api.create_repo(repo_id)
    first = api.upload_folder(repo_id=repo_id, folder_path=folder).oid
    second = CLIPMGForMicroGestureClassification(model.config)
    second.load_state_dict(model.state_dict())
    torch.nn.init.ones_(second.classifier.bias)
    second.save_pretrained(tmp_path / "second")
    CLIPMGProcessor.from_model_config(model.config).save_pretrained(tmp_path / "second")
    api.upload_folder(repo_id=repo_id, folder_path=tmp_path / "second")
    expected = {"None": expected_outputs(tmp_path / "second", video), first: expected_outputs(folder, video)}
    environment = hub.environment()

    given = arguments(repo_id, video, revisions=(None, first), refusals=True)
    online = run_command([str(python), "-I", str(SCRIPT), given], env=environment)
    result = json.loads(online.stdout.splitlines()[-1])
    assert all("trust_remote_code=True" in refusal for refusal in result["refusals"].values())
    assert_equal_outputs(result["outputs"], expected)

    # Nothing answers there: what follows comes from the cache.
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    given = arguments(repo_id, video, tmp_path / "again", revisions=(None, first))
    result = json.loads(run_command([str(python), "-I", str(SCRIPT), given], env=offline).stdout.splitlines()[-1])
    assert_equal_outputs(result["outputs"].pop("again"), expected["None"])
    assert_equal_outputs(result["outputs"].pop("base"), expected["None"]["embedding"])
    assert_equal_outputs(result["outputs"].pop("pipeline"), expected["None"][PIPELINE_TASK])
    assert result["events"] == []
    assert_equal_outputs(result["outputs"], expected)
    assert_is_complete(tmp_path / "again" / "head", [tmp_path / "second"])

    pickled = hub.repository("pickled")
    api.create_repo(pickled)
    (tmp_path / "second" / "model.safetensors").rename(tmp_path / "second" / "pytorch_model.bin")
    api.upload_folder(repo_id=pickled, folder_path=tmp_path / "second")
    done = run_command([sys.executable, "-I", "-c", PACKAGE, repo_id, first, pickled], env=hub.environment())
    assert f"{pickled}: expected weights in safetensors" in done.stdout
    modules, biases = json.loads(done.stdout.splitlines()[-1])
    assert all(name.startswith("clipmg_hf.") for name in modules)
    assert biases == pytest.approx([32.0, model.classifier.bias.sum().item()], abs=1e-5)


WITHOUT_AV = """
import json, sys
from transformers import AutoModelForVideoClassification, AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

AutoModelForVideoClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
for auto_class in (AutoProcessor, AutoVideoProcessor):
    try:
        auto_class.from_pretrained(sys.argv[1], trust_remote_code=True)
    except ImportError as error:
        print(json.dumps(str(error)))
"""


def test_a_missing_av_is_named(folder, tmp_path, run_command):
    names = [Requirement(requirement).name for requirement in REQUIREMENTS]
    python = make_environment(tmp_path / "environment", names, without="av")
    done = run_command([str(python), "-I", "-c", WITHOUT_AV, str(folder)], env={"HF_HOME": str(tmp_path / "home")})
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(messages) == 2
    assert all("packages that were not found" in message and "pip install av" in message for message in messages)


def test_requirements_are_those_of_the_package():
    lines = (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("\n]")[0].splitlines()
    needed = {Requirement(line).name for line in REQUIREMENTS}
    declared = {line.strip(' ",') for line in lines if line.strip().startswith('"')}
    assert set(REQUIREMENTS) == {line for line in declared if Requirement(line).name in needed}
    assert len(needed) == 5

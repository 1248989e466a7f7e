"""Weights come from safetensors: whatever a checkpoint offers or names, no pickle is read."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from tiny_clipmg import tiny_config
from transformers import AutoModelForVideoClassification, CLIPVisionModel

from clipmg_hf.inference import CheckpointError, load_model
from clipmg_hf.modeling import CLIPMGForMicroGestureClassification, CLIPMGModel
from clipmg_hf.modeling.checkpoint_files_clipmg import PickledWeightsError


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    CLIPMGForMicroGestureClassification(tiny_config()).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(autouse=True)
def nothing_is_unpickled(monkeypatch):
    """Neither the plain unpickler runs nor torch's careful one."""

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "load", refuse)


def set_trap(path: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(path.with_name("sprung"))))


def edit_config(folder: Path, **values) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **values}
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin")


def only_sharded_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {}, "weight_map": {"classifier.bias": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def index_of_pickles(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    set_trap(folder / "shard.bin")
    index = {"metadata": {}, "weight_map": {"classifier.bias": "shard.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    # Without a dtype in the configuration the library looks for one in the first shard.
    edit_config(folder, dtype=None)


@pytest.mark.parametrize("spoil", [only_pickle, only_sharded_pickle, index_of_pickles])
@pytest.mark.parametrize("model_class", [CLIPMGForMicroGestureClassification, AutoModelForVideoClassification])
def test_pickled_weights_are_refused(folder, spoil, model_class):
    spoil(folder)
    with pytest.raises(PickledWeightsError, match=r"expected weights in safetensors\. A pickle"):
        model_class.from_pretrained(folder)
    assert not (folder / "sprung").exists()


def test_a_pickle_cannot_be_asked_for(folder):
    set_trap(folder / "pytorch_model.bin")
    with pytest.raises(PickledWeightsError, match="use_safetensors=False"):
        CLIPMGModel.from_pretrained(folder, use_safetensors=False)
    with pytest.raises(PickledWeightsError, match=r"pytorch_model\.bin: expected weights in safetensors"):
        CLIPMGModel.from_pretrained(folder / "pytorch_model.bin", config=tiny_config())


def test_a_configuration_names_no_weights(folder):
    edit_config(folder, transformers_weights="other.safetensors.index.json")
    with pytest.raises(TypeError, match="'transformers_weights'"):
        CLIPMGModel.from_pretrained(folder)


def test_safetensors_beside_a_pickle_are_read(folder, saved):
    set_trap(folder / "pytorch_model.bin")
    expected = CLIPMGModel.from_pretrained(saved).state_dict()
    for name, tensor in CLIPMGModel.from_pretrained(folder).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_shards_are_read(folder):
    model = CLIPMGForMicroGestureClassification.from_pretrained(folder)
    model.save_pretrained(folder / "shards", max_shard_size="50KB")
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    again = CLIPMGForMicroGestureClassification.from_pretrained(folder / "shards")
    torch.testing.assert_close(again.classifier.weight, model.classifier.weight, rtol=0, atol=0)


def test_a_pickled_adapter_is_refused(folder):
    pytest.importorskip("peft")
    adapter = {"peft_type": "LORA", "r": 2, "target_modules": r".*self_attn\.q_proj"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    set_trap(folder / "adapter_model.bin")
    with pytest.raises(PickledWeightsError, match=r"model: expected weights in safetensors"):
        AutoModelForVideoClassification.from_pretrained(folder)
    # On the Hub the library would take the pickle, and come this way with it.
    with pytest.raises(PickledWeightsError, match=r"adapter_model\.bin"):
        CLIPMGModel._load_pretrained_model(None, None, ["adapter_model.bin"], None)


def test_a_pickled_clip_is_refused(folder):
    CLIPVisionModel(tiny_config().vision_config).save_pretrained(folder / "clip")
    assert CLIPMGModel.from_clip(folder / "clip", **TINY_FIELDS).vision_tower is not None
    only_pickle(folder / "clip")
    with pytest.raises(PickledWeightsError, match=r"clip: expected weights in safetensors"):
        CLIPMGModel.from_clip(folder / "clip", **TINY_FIELDS)


TINY_FIELDS = {"num_frames": 2, "hidden_size": 32, "num_attention_heads": 4, "pose_base_width": 4, "heatmap_size": 16}


def test_a_folder_of_pickles_is_refused_for_inference(folder):
    only_pickle(folder)
    with pytest.raises(CheckpointError, match=r"holds no weights; expected model\.safetensors"):
        load_model(folder)


def test_a_checkpoint_that_is_missing_is_still_called_so(tmp_path):
    with pytest.raises(OSError, match=r"no/such|is not a"):
        CLIPMGModel.from_pretrained(str(tmp_path / "no" / "such"), config=tiny_config())

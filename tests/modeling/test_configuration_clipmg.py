"""The configuration refuses what is wrong, names it, and survives a round trip."""

import pytest
from huggingface_hub.errors import StrictDataclassError
from tiny_clipmg import tiny_config
from transformers import CLIPVisionConfig

from clipmg_hf.modeling import IMIGUE_LABELS, CLIPMGConfig, CLIPMGModel


def test_defaults_are_the_full_size_model():
    config = CLIPMGConfig()
    vision = config.vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size) == (768, 12, 16, 224)
    assert (config.num_pose_frames, config.pose_hidden_size, config.vision_hidden_size) == (32, 512, 768)
    assert list(config.id2label.values()) == list(IMIGUE_LABELS) and config.num_labels == len(set(IMIGUE_LABELS)) == 32


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_frames": "8"}, ["num_frames", "'8'"]),
        ({"num_frames": 8.0}, ["num_frames", "8.0"]),
        ({"use_semantic_attention": 1}, ["use_semantic_attention"]),
        ({"query": "poses"}, ["query", "poses"]),
        ({"fusion": "mean"}, ["fusion", "mean"]),
        ({"vision_config": 3}, ["vision_config"]),
        ({"pose_stage_blocks": ["4"]}, ["pose_stage_blocks"]),
        ({"num_keypoints": 0}, ["num_keypoints", "0"]),
        ({"pose_temporal_strides": [1, 0, 1]}, ["pose_temporal_strides", "0"]),
        ({"hidden_dropout_prob": 1.0}, ["hidden_dropout_prob", "1.0"]),
        ({"hidden_act": "glu2"}, ["hidden_act", "glu2"]),
        ({"hidden_size": 100}, ["hidden_size=100", "num_attention_heads=8"]),
        ({"pose_stage_blocks": [4, 6]}, ["pose_stage_blocks=[4, 6]", "pose_inflate=[0, 1, 1]"]),
        ({"fusion": "visual", "query": "pose"}, ["fusion='visual'", "query='pose'"]),
        ({"num_trainable_vision_layers": 13}, ["num_trainable_vision_layers=13", "num_hidden_layers=12"]),
        ({"id2label": {0: "a", 2: "b"}}, ["id2label", "[0, 2]"]),
        ({"id2label": {0: "a", 1: "a"}}, ["label2id", "id2label"]),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, ["label2id", "'a': 1", "0: 'a'"]),
    ],
)
def test_wrong_values_are_errors_that_name_the_field(values, words):
    with pytest.raises(StrictDataclassError) as error:
        CLIPMGConfig(**values)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_misspelt_fields_are_errors_that_name_the_field(tmp_path):
    with pytest.raises(TypeError, match=r"'num_frame'.*'num_frames'"):
        CLIPMGConfig(num_frame=4)
    with pytest.raises(TypeError, match=r"vision_config.*'hiden_size'.*'hidden_size'"):
        CLIPMGConfig(vision_config={"hiden_size": 3})
    config = tiny_config()
    config.num_frame = 4
    with pytest.raises(StrictDataclassError, match="num_frame"):
        config.save_pretrained(tmp_path)


def test_num_labels_that_disagree_with_id2label_are_an_error():
    with pytest.raises(ValueError, match=r"num_labels=3.*2 entries.*'a'"):
        CLIPMGConfig(num_labels=3, id2label={0: "a", 1: "b"})
    assert CLIPMGConfig(num_labels=2, id2label={0: "a", 1: "b"}).label2id == {"a": 0, "b": 1}
    assert CLIPMGConfig(num_labels=3).id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


def test_labels_given_at_loading_replace_the_saved_ones(tmp_path):
    tiny_config(id2label={0: "a", 1: "b"}).save_pretrained(tmp_path)
    assert CLIPMGConfig.from_pretrained(tmp_path).id2label == {0: "a", 1: "b"}
    assert CLIPMGConfig.from_pretrained(tmp_path, num_labels=2).id2label == {0: "a", 1: "b"}
    assert CLIPMGConfig.from_pretrained(tmp_path, num_labels=3).num_labels == 3
    assert CLIPMGConfig.from_pretrained(tmp_path, id2label={0: "c"}).label2id == {"c": 0}
    with pytest.raises(ValueError, match="num_labels=2"):
        CLIPMGConfig.from_pretrained(tmp_path, num_labels=2, id2label={0: "c"})


def test_round_trip_keeps_every_value(tmp_path):
    config = tiny_config(query="pose_pool", fusion="sum", heatmap_sigma=1, num_labels=3, num_trainable_vision_layers=1)
    config.save_pretrained(tmp_path)
    assert CLIPMGConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert CLIPMGConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_vision_config_of_an_early_clip_checkpoint_is_accepted():
    """Keys that openai/clip-vit-* carry and no release of today declares."""
    early = "add_cross_attention dropout output_scores prefix pruned_heads torchscript typical_p use_bfloat16"
    config = CLIPMGConfig(vision_config=dict.fromkeys(early.split()) | {"hidden_size": 64, "num_attention_heads": 4})
    assert config.vision_hidden_size == 64
    assert CLIPMGConfig(vision_config=CLIPVisionConfig(patch_size=14)).vision_config.patch_size == 14


def test_freezing_can_be_changed_on_a_model_within_limits():
    model = CLIPMGModel(tiny_config())
    with pytest.raises(ValueError, match="num_trainable_vision_layers=3"):
        model.apply_vision_freezing(3)
    assert model.config.num_trainable_vision_layers == 0
    model.apply_vision_freezing()

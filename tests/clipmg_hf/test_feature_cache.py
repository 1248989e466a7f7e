"""Kept features against the tower that they stand for: equal outputs, keys, damage, interruption, a full disk."""

import errno
import os
import pickle

import numpy as np
import pytest
import torch
from tiny_models import TINY
from transformers import TrainingArguments, set_seed

import clipmg_hf.feature_cache as feature_cache
from clipmg_hf import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGProcessor
from clipmg_hf.data import DatasetFormatError, load_imigue
from clipmg_hf.data.clips import ClipDataset, collate_clips
from clipmg_hf.data.synthetic import SyntheticConfig, generate_dataset
from clipmg_hf.feature_cache import cache_features, check_frozen, feature_key
from clipmg_hf.training import make_trainer


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    config = SyntheticConfig(
        seed=6, num_train_subjects=1, num_validate_subjects=0, num_test_subjects=0, clips_per_video=10,
        max_clip_frames=20, max_gap_frames=4, width=160, height=90,
    )  # fmt: skip
    pack = generate_dataset(tmp_path_factory.mktemp("pack"), config, show_progress=False)
    return load_imigue(pack, cache_dir=tmp_path_factory.mktemp("cache"))["train"].select(range(6))


def make_model(**values):
    torch.manual_seed(0)
    return CLIPMGForMicroGestureClassification(CLIPMGConfig(**{**TINY, **values}))


def make_clips(rows, **options):
    processor = CLIPMGProcessor.from_model_config(CLIPMGConfig(**TINY), **options.pop("processor", {}))
    return ClipDataset(rows, processor, **options)


@pytest.mark.parametrize("query", ["fused", "pose", "pose_pool"])
@pytest.mark.parametrize("attention", [True, False])
def test_outputs_equal_those_of_the_frames(rows, tmp_path, query, attention):
    model = make_model(query=query, use_semantic_attention=attention).eval()
    clips = make_clips(rows)
    features = cache_features(model, clips, tmp_path, precision="float32", batch_size=3)
    for first in (0, 3):
        batches = [collate_clips([data[index] for index in range(first, first + 3)]) for data in (clips, features)]
        assert "pixel_values" not in batches[1] and torch.equal(batches[0]["labels"], batches[1]["labels"])
        plain, kept = (model(**batch, output_explanation=True) for batch in batches)
        for name in ("logits", "fused_embedding", "loss", "gate"):
            # The same batch of the tower: not one bit differs.
            assert torch.equal(plain[name], kept[name]), name
        if attention:
            assert torch.equal(plain.semantic_attention, kept.semantic_attention)
    # Other batches differ in rounding alone, and half precision keeps three digits.
    one = collate_clips([features[4]])
    torch.testing.assert_close(model(**one).logits, kept.logits[1:2], atol=1e-6, rtol=1e-5)
    half = cache_features(model, clips, tmp_path / "half", batch_size=3)
    assert half[0]["vision_tokens"].dtype == torch.float16
    logits = model(**collate_clips([half[index] for index in range(3, 6)])).logits
    torch.testing.assert_close(logits, kept.logits, atol=5e-3, rtol=0)


def test_a_masked_frame_has_no_influence_as_tokens_either(rows):
    model = make_model().eval()
    tokens = torch.randn(2, 2, 17, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, False], [False, False]])
    expected = model(vision_tokens=tokens, frame_mask=mask).logits
    tokens[~mask] = float("nan")
    assert torch.equal(model(vision_tokens=tokens, frame_mask=mask).logits, expected)


def test_both_forms_and_other_shapes_are_refused(rows):
    model = make_model()
    frames, tokens = torch.zeros(1, 2, 3, 32, 32), torch.zeros(1, 2, 17, 32)
    with pytest.raises(ValueError, match="expected one of them"):
        model(pixel_values=frames, vision_tokens=tokens)
    with pytest.raises(
        ValueError, match=r"vision_tokens must have the shape \(clips, 1 to num_frames=2 frames, 17, 32\)"
    ):
        model(vision_tokens=tokens[:, :, :5])


def test_training_on_kept_features_equals_training_on_frames(rows, tmp_path):
    curves = []
    for keep in (False, True):
        set_seed(0)
        model = make_model(fusion="visual", hidden_dropout_prob=0.0, attention_dropout=0.0, classifier_dropout=0.0)
        clips = make_clips(rows)
        data = cache_features(model, clips, tmp_path / "kept", precision="float32") if keep else clips
        args = TrainingArguments(
            str(tmp_path / "run"), use_cpu=True, report_to=[], max_steps=4, logging_steps=1, save_strategy="no",
            per_device_train_batch_size=3, disable_tqdm=True, learning_rate=1e-2,
        )  # fmt: skip
        trainer = make_trainer(model, clips.transform.processor, data, None, args)
        trainer.train()
        curves.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)


def test_views_are_those_of_the_epochs_and_repeat(rows, tmp_path):
    model = make_model().eval()
    clips = make_clips(rows, augment=True, seed=3)
    features = cache_features(model, clips, tmp_path, num_views=2, precision="float32", batch_size=1)
    seen = []
    for epoch in range(3):
        features.set_epoch(epoch)
        clips.set_epoch(epoch % 2)
        item, plain = features[1], clips[1]
        tokens, _ = model.clipmg.encode_frames(plain["pixel_values"][None])
        assert torch.equal(item["vision_tokens"], tokens[0]) and torch.equal(item["keypoints"], plain["keypoints"])
        seen.append(item["vision_tokens"])
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    worker = pickle.loads(pickle.dumps(features))
    worker.set_epoch(1)
    assert torch.equal(worker[1]["vision_tokens"], seen[1])


def test_random_views_and_trained_towers_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="expected no augmentation"):
        cache_features(make_model(), make_clips(rows, augment=True, seed=0), tmp_path)
    with pytest.raises(ValueError, match="needs random views with a seed"):
        cache_features(make_model(), make_clips(rows), tmp_path, num_views=2)
    with pytest.raises(ValueError, match="expected num_trainable_vision_layers=0 and no LoRA"):
        check_frozen(make_model(num_trainable_vision_layers=1))
    with pytest.raises(ValueError, match="no vision tower"):
        check_frozen(make_model(fusion="pose"))
    with pytest.raises(ValueError, match="have no video"):
        cache_features(make_model(), make_clips(rows.remove_columns("video")), tmp_path)


def test_whatever_changes_has_another_key(rows):
    model, clips = make_model(), make_clips(rows)
    key = feature_key(model, clips, 0, "float16")
    assert key == feature_key(make_model(), make_clips(rows), 0, "float16")
    other = make_model()
    with torch.no_grad():
        other.vision_tower.post_layernorm.bias[0] = 1.0
    keys = {
        key,
        feature_key(other, clips, 0, "float16"),
        feature_key(model, clips, 0, "float32"),
        feature_key(model, clips, 2, "float16"),
        feature_key(model, make_clips(rows, processor={"crop_padding": 0.5}), 0, "float16"),
        feature_key(model, make_clips(rows.select(range(3))), 0, "float16"),
    }
    assert len(keys) == 6


def test_an_interrupted_computation_goes_on(rows, tmp_path, monkeypatch):
    model, clips = make_model().train(), make_clips(rows)
    encode, calls = type(model.clipmg).encode_frames, []

    def count(self, pixel_values, **kwargs):
        calls.append(len(pixel_values))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, pixel_values, **kwargs)

    monkeypatch.setattr(type(model.clipmg), "encode_frames", count)
    with pytest.raises(KeyboardInterrupt):
        cache_features(model, clips, tmp_path, batch_size=2)
    assert model.training
    features = cache_features(model, clips, tmp_path, batch_size=2)
    assert calls == [2, 2, 2, 2]
    cache_features(model, clips, tmp_path, batch_size=2)
    assert len(calls) == 4
    monkeypatch.undo()
    whole = cache_features(model, clips, tmp_path / "whole", batch_size=2)
    assert all(torch.equal(features[i][name], whole[i][name]) for i in range(6) for name in whole[i])


def test_damage_is_noticed(rows, tmp_path):
    features = cache_features(make_model().eval(), make_clips(rows), tmp_path)
    tokens = np.load(features.folder / "vision_tokens.npy", mmap_mode="r+")
    tokens[2, 0, 0, 0] += 1
    tokens.flush()
    assert features[1]["vision_tokens"].shape == (2, 17, 32)
    with pytest.raises(DatasetFormatError, match=r"entry 2 \(clip 2\) is damaged"):
        features[2]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")
def test_a_full_disk_is_noticed_before_anything_is_computed(rows, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache.os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space") as caught:
        cache_features(make_model().eval(), make_clips(rows), tmp_path)
    assert "bytes for 6 entries" in caught.value.__notes__[0]
    assert not list(tmp_path.iterdir())

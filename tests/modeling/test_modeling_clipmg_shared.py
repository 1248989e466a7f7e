"""The model tests that transformers runs on every model of its own, on ours."""

import unittest
from unittest import mock

import pytest
import torch
from shared_stand_ins import MISSING, SHARED_TESTS, import_shared
from tiny_clipmg import TINY_VISION, random_inputs, tiny_config


if not SHARED_TESTS.is_dir():
    pytest.skip(MISSING, allow_module_level=True)

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING,
    MODEL_MAPPING_NAMES,
)

from clipmg_hf.modeling import CLIPMGConfig, CLIPMGForMicroGestureClassification, CLIPMGModel


# They look classes up by name to decide which labels a model takes.
MODEL_MAPPING_NAMES["clipmg"] = "CLIPMGModel"
MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES["clipmg"] = "CLIPMGForMicroGestureClassification"

MODEL_MAPPING.register(CLIPMGConfig, CLIPMGModel, exist_ok=True)

modeling_common = import_shared("test_modeling_common")
configuration_common = import_shared("test_configuration_common")
training_mixin = import_shared("test_training_mixin")


def set_config_for_less_flaky_test(config):
    """Theirs sets seven names of an epsilon, of which our configuration refuses six when it is saved."""
    config.layer_norm_eps = config.vision_config.layer_norm_eps = 1.0


modeling_common.set_config_for_less_flaky_test = set_config_for_less_flaky_test


class CLIPMGModelTester:
    """Tiny configuration and inputs, under the names that the common tests read."""

    def __init__(self, parent, batch_size=3, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.is_training = is_training
        self.hidden_size = TINY_VISION["hidden_size"]
        self.num_hidden_layers = TINY_VISION["num_hidden_layers"]
        self.num_attention_heads = TINY_VISION["num_attention_heads"]
        # class token and patches
        self.seq_length = 1 + (TINY_VISION["image_size"] // TINY_VISION["patch_size"]) ** 2
        self.encoder_seq_length = self.key_length = self.seq_length

    def get_config(self):
        return tiny_config(num_trainable_vision_layers=-1)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        return config, random_inputs(config, self.batch_size)


class CLIPMGModelTest(modeling_common.ModelTesterMixin, training_mixin.TrainingTesterMixin, unittest.TestCase):
    all_model_classes = (CLIPMGModel, CLIPMGForMicroGestureClassification)
    _is_composite = True
    has_attentions = True
    # There is no vocabulary to resize.
    test_resize_embeddings = False
    # Not skipped because our files carry no copyright year.
    test_can_init_all_missing_weights_before_2023 = True

    @property
    def model_tester(self):
        return CLIPMGModelTester(self)

    def test_config(self):
        tester = configuration_common.ConfigTester(
            self, config_class=CLIPMGConfig, has_text_modality=False, num_frames=4, hidden_size=64
        )
        tester.run_common_tests()

    def test_model_get_set_embeddings(self):
        # Overridden: their version expects the embedding of a vocabulary, ours embeds patches.
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            self.assertIsInstance(model.get_input_embeddings(), torch.nn.Conv2d)
            replacement = torch.nn.Conv2d(3, 32, 16, 16)
            model.set_input_embeddings(replacement)
            self.assertIs(model.get_input_embeddings(), replacement)

    # The overfit test makes batches of text only: what follows hands it clips in their place.
    def _get_model_modality(self):
        return "text"

    def _create_text_training_batch(self, batch_size, **kwargs):
        config = self.model_tester.get_config()
        return {**random_inputs(config, batch_size), "labels": torch.arange(batch_size)}

    def _get_trainable_model_class(self):
        return CLIPMGForMicroGestureClassification

    def test_training_overfit(self):
        # Overridden: it reads the size of a vocabulary from the configuration.
        with mock.patch.object(CLIPMGConfig, "vocab_size", 0, create=True):
            super().test_training_overfit()

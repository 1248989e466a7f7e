"""Eval mode for a while, and what tells weights apart."""

import pytest
import torch
from torch import nn

from clipmg_hf.model_state import digest_weights, evaluating


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_after_an_error(training):
    model = nn.Dropout().train(training)
    with pytest.raises(RuntimeError, match="damaged"), evaluating(model):
        assert not model.training
        raise RuntimeError("damaged")
    assert model.training == training


def test_digests_tell_values_types_and_names_apart():
    def model(dtype=torch.float32, value=0.0, name="weight"):
        module = nn.Module()
        module.register_buffer(name, torch.full((2, 3), value, dtype=dtype))
        # A scalar, as the counter of a batch norm.
        module.register_buffer("count", torch.tensor(3))
        return module

    others = [model(torch.float64), model(value=1.0), model(name="bias")]
    assert len({digest_weights(module) for module in [model(), *others]}) == 4
    assert digest_weights(model()) == digest_weights(model())

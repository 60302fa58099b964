"""The lower layers alone give the same features, from the same weights."""

import pytest
import torch

from bitswitch.base.depth import lower
from bitswitch.base.features import features, layer
from bitswitch.base.load import load
from bitswitch.core import Want
from tiny import make_base

TEXTS = ["who wrote hamlet", "free prize call now", "a", "i loved the movie it was brilliant"]


@pytest.fixture(params=["bert", "distilbert", "roberta"])
def base(request, tmp_path):
    return load(make_base(tmp_path / request.param, request.param))


def both(base):
    rows = base.encode(TEXTS, want=Want.FEATURES)
    return features(base, base.forward_lower(rows), rows), features(base, base.forward(rows), rows)


def test_features_of_a_lower_pass_are_those_of_a_whole_one(base):
    assert base.lower is not None
    assert torch.equal(*both(base))
    # In either order, again: what one leaves in the shared layers does not reach the other.
    whole = base.forward(base.encode(TEXTS, want=Want.FEATURES))
    assert len(whole.output["hidden_states"]) == base.model.config.num_hidden_layers + 1
    assert torch.equal(*both(base))


def test_it_follows_the_weights(base):
    before, _ = both(base)
    with torch.no_grad():
        for parameter in base.model.parameters():
            parameter.mul_(1.5)
    after, whole = both(base)
    assert not torch.equal(before, after)
    assert torch.equal(after, whole)


def test_all_layers_are_no_lower_part(base):
    example = base.pad(base.encode(TEXTS, want=Want.FEATURES))
    assert lower(base.model, base.model.config.num_hidden_layers, example) is None
    assert lower(base.model, layer(base), example) is not None


def test_a_norm_at_the_end_is_cut_off(tmp_path):
    base = load(make_base(tmp_path, "modernbert"))
    assert base.lower is not None
    assert base.lower.final_norm is not base.model.final_norm
    assert torch.equal(*both(base))


def test_a_model_that_does_more_to_its_last_state_is_not_cut(tmp_path):
    base = load(make_base(tmp_path, "modernbert"))
    base.model.final_norm = torch.nn.Tanh()
    example = base.pad(base.encode(TEXTS, want=Want.FEATURES))
    assert lower(base.model, layer(base), example) is None

"""Features: the mean over a text's own tokens of the middle hidden state and its last one, at length 1,
and beside it how the text is written."""

from __future__ import annotations

import pytest
import torch
from finetunes import TEXTS

from bitswitch.base.features import dim, features, recipe
from bitswitch.base.load import load
from bitswitch.base.style import style
from bitswitch.core import Want


def by_hand(base, text, layer):
    """One text, without padding, by the definition."""
    rows = base.encode([text], want=Want.FEATURES)
    tokens = base.forward(rows).output.hidden_states[layer][0].double()
    vector = sum(part / part.norm() for part in (tokens.mean(dim=0), tokens[-1]))
    written = style((text,) if isinstance(text, str) else text)
    return torch.cat([vector / vector.norm(), 0.4 * torch.from_numpy(written).double()])


def test_each_row_is_what_the_definition_says(folder):
    base = load(folder)
    rows = base.encode(TEXTS, want=Want.FEATURES)
    result = features(base, base.forward(rows), rows)
    assert result.dtype == torch.float32
    assert result.shape == (len(TEXTS), dim(base))
    for text, vector in zip(TEXTS, result.double(), strict=True):
        torch.testing.assert_close(vector, by_hand(base, text, 1), rtol=0, atol=1e-5)
        assert (vector - by_hand(base, text, 2)).abs().max() > 1e-3


@pytest.mark.parametrize(("layers", "expected"), [(1, 1), (2, 1), (3, 2), (6, 3)])
def test_the_recipe_names_half_of_the_layers_rounded_up(tmp_path, layers, expected):
    from transformers import BertConfig, BertModel

    from tiny import tokenizer

    size = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 66}
    BertModel(BertConfig(num_hidden_layers=layers, **size)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert recipe(load(tmp_path)) == f"hidden:{expected}|mean+last|l2|style:0.4|pair:0.2"

"""A row gets the same answer in any batch, and the base can say what its weights are."""

from __future__ import annotations

import pytest
import torch
from finetunes import TEXTS

from bitswitch.base.load import load
from bitswitch.core import Row, Want
from tiny import make_base


@pytest.fixture
def base(folder):
    return load(folder)


def test_a_row_s_answer_does_not_depend_on_its_batch(base):
    rows = [*base.encode(TEXTS, want=Want.CLASSIFY)]
    rows.append(Row({name: value[:1] for name, value in rows[0].fields.items()}))
    assert len({row.length for row in rows}) == len(rows)
    batch = base.forward(rows)
    for i, row in enumerate(rows):
        alone = base.forward([row])
        for whole, part in zip(batch.output.hidden_states, alone.output.hidden_states, strict=True):
            torch.testing.assert_close(whole[i : i + 1, : row.length], part, rtol=0, atol=1e-5)


def test_all_hidden_states_are_given(base):
    hidden = base.forward(base.encode(["who wrote hamlet"], want=Want.FEATURES))
    assert len(hidden.output.hidden_states) == base.model.config.num_hidden_layers + 1


def test_the_padding_is_masked_and_on_the_right(bert):
    rows = bert.encode(["who", "who wrote hamlet"], want=Want.CLASSIFY)
    fields = bert.forward(rows).fields
    assert fields["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert fields["input_ids"][0].tolist() == [*rows[0].fields["input_ids"], 0, 0]


def test_a_share_of_a_batch_is_cut_out_of_every_part(base):
    hidden = base.forward(base.encode(TEXTS, want=Want.CLASSIFY))
    share = hidden.rows(1, 3)
    assert type(share.output) is type(hidden.output)
    assert share.output.keys() == hidden.output.keys()
    assert share.fields.keys() == hidden.fields.keys()
    torch.testing.assert_close(share.fields["input_ids"], hidden.fields["input_ids"][1:3])
    torch.testing.assert_close(share.output.last_hidden_state, hidden.output.last_hidden_state[1:3])
    for cut, whole in zip(share.output.hidden_states, hidden.output.hidden_states, strict=True):
        torch.testing.assert_close(cut, whole[1:3])
        assert cut.data_ptr() == whole[1:3].data_ptr()
    if "pooler_output" in hidden.output:
        torch.testing.assert_close(share.output.pooler_output, hidden.output.pooler_output[1:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_digest_sees_one_bit(tmp_path, dtype):
    base = load(make_base(tmp_path / "a", dtype=dtype))
    before = base.digest()
    assert before.keys() == base.parameters.keys()
    name = "encoder.layer.1.intermediate.dense.weight"
    bits = base.parameters[name].data.view(torch.uint8)
    bits[3, 5] ^= 1
    after = base.digest()
    assert [n for n in before if before[n] != after[n]] == [name]
    bits[3, 5] ^= 1
    assert base.digest() == before


def test_the_bytes_held_are_counted(bert):
    assert bert.nbytes == 4 * sum(parameter.numel() for parameter in bert.parameters.values())
    assert bert.device == torch.device("cpu")

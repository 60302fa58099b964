"""A folder becomes the base it says it is, or is refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest
import torch
from finetunes import drop_tensors, rewrite
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, BartConfig, BartModel, BertConfig
from transformers.utils import logging as transformers_logging

from bitswitch.base.faults import BaseError
from bitswitch.base.load import load
from bitswitch.core import Row, Want
from bitswitch_store.checkpoint import Checkpoint
from tiny import add_sentence_transformers_layout, make_base, tokenizer


def test_every_family_holds_its_files_own_bytes(folder):
    base, checkpoint = load(folder), Checkpoint.open(folder)
    assert tuple(base.parameters) == checkpoint.names
    assert base.identity == checkpoint.identity()
    for name, digest in base.digest().items():
        assert digest == "sha256:" + hashlib.sha256(checkpoint.raw(name)).hexdigest(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_base_stays_as_it_is_stored(tmp_path, dtype):
    folder = make_base(tmp_path / "half", dtype=dtype)
    # What the config says of it is not believed.
    rewrite(folder, "config.json", dtype="float32")
    base, checkpoint = load(folder), Checkpoint.open(folder)
    assert base.dtype == dtype
    assert base.nbytes == sum(2 * checkpoint.numel(name) for name in checkpoint.names)
    name = "encoder.layer.0.output.dense.weight"
    assert base.digest()[name] == "sha256:" + hashlib.sha256(checkpoint.raw(name)).hexdigest()


def test_mixed_dtypes_are_held_in_the_one_that_holds_all(copied):
    tensors = load_file(copied / "model.safetensors")
    first = min(tensors)
    tensors[first] = tensors[first].half()
    save_file(tensors, copied / "model.safetensors", {"format": "pt"})
    assert load(copied).dtype == torch.float32


def test_another_dtype_is_had_by_asking(tiny_base):
    asked, stored = load(tiny_base, dtype="bfloat16"), load(tiny_base)
    assert asked.identity == stored.identity
    assert asked.nbytes * 2 == stored.nbytes
    for name, parameter in asked.parameters.items():
        torch.testing.assert_close(parameter, stored.parameters[name].bfloat16(), rtol=0, atol=0)


def test_the_weights_do_not_hang_on_the_file(copied):
    base = load(copied)
    before = base.digest()
    path = copied / "model.safetensors"
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert base.digest() == before


def test_a_file_with_the_library_s_prefix_keeps_its_names(tmp_path):
    config = BertConfig(
        vocab_size=66, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    base = load(tmp_path)
    stored = set(Checkpoint.open(tmp_path).names)
    assert set(base.parameters) == {name for name in stored if name.startswith("bert.")}
    assert stored - set(base.parameters)
    name = "embeddings.word_embeddings.weight"
    assert base.parameters["bert." + name] is dict(base.model.named_parameters())[name]


def test_tied_parameters_are_there_once(tmp_path):
    config = BartConfig(
        vocab_size=66, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=80,
    )  # fmt: skip
    model = BartModel(config)
    shared = model.shared.weight
    assert sum(p is shared for _, p in model.named_parameters(remove_duplicate=False)) == 3
    model.save_pretrained(tmp_path)
    tied = load_file(tmp_path / "model.safetensors")
    tied["encoder.embed_tokens.weight"] = tied["shared.weight"].clone()
    save_file(tied, tmp_path / "model.safetensors", {"format": "pt"})
    tokenizer(segments=False).save_pretrained(tmp_path)
    base = load(tmp_path)
    addresses = [parameter.data_ptr() for parameter in base.parameters.values()]
    assert len(set(addresses)) == len(addresses) == len(list(base.model.parameters()))


def test_a_pooler_that_the_file_lacks_is_nowhere(copied):
    drop_tensors(copied, "pooler.")
    base = load(copied)
    assert base.model.pooler is None
    assert not any("pooler" in name for name in base.parameters)
    hidden = base.forward(base.encode(["who wrote hamlet"], want=Want.CLASSIFY))
    assert "pooler_output" not in hidden.output


def test_a_missing_layer_is_refused_by_name(copied):
    drop_tensors(copied, "encoder.layer.1.output.dense.weight")
    with pytest.raises(BaseError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load(copied)


@pytest.mark.parametrize(("family", "positions"), [("bert", 80), ("roberta", 79), ("modernbert", 80)])
def test_the_longest_row_is_one_the_model_has_positions_for(tmp_path, family, positions):
    folder = make_base(tmp_path / family, family, max_length=10**30)
    base = load(folder)
    (row,) = base.encode(["spam " * 500], want=Want.CLASSIFY)
    assert row.length == base.encoder.limit == positions
    assert base.forward([row]).output.last_hidden_state.isfinite().all()


def test_one_position_more_would_be_too_many_for_roberta(folders):
    base = load(folders["roberta"])
    with pytest.raises((IndexError, RuntimeError), match=r"out of (range|bounds)"):
        base.forward([Row({"input_ids": [5] * 80})])


def test_embeddings_have_the_folder_s_own_limit(tmp_path):
    folder = add_sentence_transformers_layout(make_base(tmp_path / "a", max_length=20), max_seq_length=32)
    base = load(folder)
    assert (base.encoder.limit, base.encoder.embed_limit) == (20, 32)
    rewrite(folder, "sentence_bert_config.json", max_seq_length=500)
    assert load(folder).encoder.embed_limit == 80
    rewrite(folder, "sentence_bert_config.json", max_seq_length=None)
    assert load(folder).encoder.embed_limit == 20


def test_loading_says_nothing_and_leaves_the_library_as_it_was(copied, capfd):
    drop_tensors(copied, "pooler.")
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    load(copied)
    assert capfd.readouterr() == ("", "")
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
    assert logging.getLogger("transformers").isEnabledFor(logging.WARNING)


def test_a_family_that_hides_padding_is_known_by_it(folder):
    assert load(folder).ragged


def test_one_that_sees_padding_is_too(tmp_path):
    assert not load(make_base(tmp_path / "fnet", "fnet")).ragged


def test_a_base_is_never_trained(bert):
    assert not bert.model.training
    assert not any(parameter.requires_grad for parameter in bert.model.parameters())


def _without(name: str):
    return lambda folder: (folder / name).unlink()


def _remote_code(folder: Path) -> None:
    (folder / "theirs.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    reference = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
    rewrite(folder, "config.json", model_type="theirs", auto_map=reference)


def _dense(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))


def _default_prompt(folder: Path) -> None:
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_without("config.json"), "config.json"),
        (_without("model.safetensors"), "model.safetensors"),
        (lambda f: rewrite(f, "config.json", model_type="theirs"), "theirs"),
        (lambda f: rewrite(f, "config.json", vocab_size=67), "size mismatch|ignore_mismatched_sizes|67"),
        (_remote_code, "does not load"),
        (_dense, "Transformer → Pooling → Normalize → Dense"),
        (_default_prompt, "'query'"),
        (lambda f: rewrite(f / "1_Pooling", "config.json", pooling_mode="median"), "median"),
        (lambda f: (f / "modules.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "modules.json").write_text("{}"), "holds a dict"),
        (lambda f: rewrite(f, "tokenizer_config.json", pad_token=None), "padding token"),
        (_without("tokenizer.json"), "tokenizer"),
    ],
)
def test_what_cannot_be_a_base_is_refused_in_a_sentence(copied, damage, says):
    damage(copied)
    with pytest.raises(BaseError, match=says):
        load(copied)
    assert not (copied / "ran").exists()


def test_what_cannot_be_had_is_refused(tiny_base, tmp_path):
    with pytest.raises(BaseError, match="float64"):
        load(tiny_base, dtype="float64")
    with pytest.raises(BaseError, match="abacus"):
        load(tiny_base, device="abacus")
    with pytest.raises(BaseError, match="cuda:99"):
        load(tiny_base, device="cuda:99")
    with pytest.raises(BaseError, match="is not a folder"):
        load(tmp_path / "nowhere")

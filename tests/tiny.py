"""Tiny models with random weights, built here: every family's real code, at a size a test can afford.

Nothing is downloaded. A base is an ordinary Hugging Face folder (config, safetensors, tokenizer); a
fine-tune of it is the same weights plus seeded noise, and a classification head.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

FAMILIES = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert")
WORDS = """
who what when where why how is the a of in to my card was charged twice please refund free prize
call now movie film great awful boring brilliant wrote hamlet city country many people win cash
money bank account i did not like it loved plot acting question answer spam ham human number place
thing idea
""".split()  # noqa: SIM905 - as a list it fills a page
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_SIZES = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "roberta": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64},
    "albert": {
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    },
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "deberta-v2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "pooler_hidden_size": 32,
    },
    "modernbert": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "attn_implementation": "eager",
        "reference_compile": False,
    },
}


def tokenizer(max_length: int = 64, *, segments: bool = True) -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *dict.fromkeys(WORDS), "?", "!", ".", ","))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
        model_input_names=["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    )


def _config(family: str, **extra: object) -> object:
    words = tokenizer()
    return AutoConfig.for_model(
        family,
        vocab_size=len(words),
        max_position_embeddings=80,
        pad_token_id=words.pad_token_id,
        **_SIZES[family],
        **extra,
    )


def _save(model: PreTrainedModel, folder: Path, max_length: int) -> Path:
    model.save_pretrained(folder)
    segments = model.config.model_type not in ("roberta", "distilbert", "modernbert")
    tokenizer(max_length, segments=segments).save_pretrained(folder)
    return folder


def make_base(
    folder: Path,
    family: str = "bert",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    max_length: int = 64,
) -> Path:
    """A base checkpoint folder; weights are spread wider than transformers' own initialisation."""
    torch.manual_seed(seed)
    model = AutoModel.from_config(_config(family))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return _save(model.to(dtype), folder, max_length)


def make_finetune(
    folder: Path,
    base: Path,
    labels: tuple[str, ...] = ("no", "yes"),
    *,
    seed: int = 1,
    noise: float = 0.02,
    touched: float = 0.3,
    **config: object,
) -> Path:
    """A fine-tune of ``base``: a share ``touched`` of each tensor's weights moved, and a random head."""
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **config,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(model.base_model_prefix + "."):
                mask = torch.rand(parameter.shape) < touched
                parameter.add_((torch.randn(parameter.shape) * noise * mask).to(parameter.dtype))
            else:
                parameter.copy_(torch.randn(parameter.shape) * 0.5)
    max_length = json.loads((base / "tokenizer_config.json").read_text())["model_max_length"]
    return _save(model, folder, max_length)


def add_sentence_transformers_layout(
    folder: Path, *, pooling: str = "mean", normalize: bool = True, max_seq_length: int = 32
) -> Path:
    """Turn a base folder into the layout that sentence-transformers writes."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    if normalize:
        modules.append(
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
        )
    (folder / "modules.json").write_text(json.dumps(modules))
    settings = {"max_seq_length": max_seq_length, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling_config = {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean",
        "pooling_mode_max_tokens": pooling == "max",
        "pooling_mode_mean_sqrt_len_tokens": pooling == "mean_sqrt_len",
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling_config))
    return folder

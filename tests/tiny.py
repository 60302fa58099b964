"""Tiny models with random weights, built here: every family's real code, at a size a test can afford.

Nothing is downloaded. A base is an ordinary Hugging Face folder (config, safetensors, tokenizer); a
fine-tune of it is the same weights plus seeded noise, and a classification head.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BitImageProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
)

IMAGE_FAMILIES = ("vit", "deit", "beit", "dinov2")
FAMILIES = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert", "llama")
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
    "llama": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
    },
    "fnet": {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64},
    "longformer": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "attention_window": 8,
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


def _save(model: PreTrainedModel, folder: Path, max_length: int = 64) -> Path:
    model.save_pretrained(folder)
    if model.main_input_name == "pixel_values":
        square = {"height": 16, "width": 16}
        if model.config.model_type == "dinov2":
            processor = BitImageProcessor(size={"shortest_edge": 20}, crop_size=square)
        else:
            processor = ViTImageProcessor(size=square)
        processor.save_pretrained(folder)
        return folder
    segments = model.config.model_type not in ("roberta", "distilbert", "modernbert", "llama")
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


def make_image_base(folder: Path, family: str = "vit", *, seed: int = 0, **config: object) -> Path:
    """A base for images of 16 by 16 pixels, which it sees as four patches."""
    torch.manual_seed(seed)
    sizes = {**_SIZES["bert"], "image_size": 16, "patch_size": 8, **config}
    model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return _save(model, folder)


def picture(seed: int = 0, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    """Coarse noise, which survives scaling, in a colour of its own."""
    generator = np.random.default_rng(seed)
    colour = generator.integers(0, 128, 3)
    noise = (generator.integers(0, 128, (5, 6, 3)) + colour).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).convert(mode)


def data_url(image: Image.Image, kind: str = "png", **saving: object) -> str:
    """An image as a request has it."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **saving)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
    images = (base / "preprocessor_config.json").exists()
    kind = AutoModelForImageClassification if images else AutoModelForSequenceClassification
    model = kind.from_pretrained(
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
    if images:
        return _save(model, folder)
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

"""From token vectors to one vector per text, as the base's own folder says. Knows nothing of models.

Reads the layout of sentence-transformers: ``modules.json``, ``1_Pooling/config.json`` in its older
form (a boolean per mode) and its newer one (``pooling_mode``), ``2_Normalize``. A folder without
``modules.json`` means the mean, unnormalised: what sentence-transformers itself does with one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import torch

from bitswitch.base.faults import BaseError


def mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are no padding.

    Args:
        tokens: float32 (rows, length, dim).
        mask: (rows, length), 1 for a token and 0 for padding, which is on the right; at least one token each.

    Returns:
        float32 (rows, dim).
    """
    return _sum(tokens, mask) / _count(mask)


def _sum(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (tokens * mask.unsqueeze(-1)).sum(dim=1)


def _count(mask: torch.Tensor) -> torch.Tensor:
    return mask.sum(dim=1, keepdim=True)


def first(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The first token; shapes as for `mean`."""
    return tokens[:, 0]


def last(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last token that is no padding; shapes as for `mean`."""
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1]


def _maximum(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tokens.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(dim=1)


def _mean_sqrt_length(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _sum(tokens, mask) / _count(mask).sqrt()


def _weighted_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return mean(tokens, mask * torch.arange(1, mask.shape[1] + 1, device=mask.device))


_MODES: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": first,
    "max": _maximum,
    "mean": mean,
    "mean_sqrt_len_tokens": _mean_sqrt_length,
    "weightedmean": _weighted_mean,
    "lasttoken": last,
}
# The older form's keys, in the order in which sentence-transformers joins the vectors.
_OLDER_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


_Json = TypeVar("_Json", dict[str, Any], list[Any])


@dataclass(frozen=True)
class Pooling:
    """How a base's token vectors become an embedding.

    Attributes:
        modes: names as sentence-transformers has them; the vectors of several are joined in this order.
        normalize: whether the result is scaled to length 1.
        max_length: the longest text the folder's author embeds, in tokens; None when not stated.
        lowercase: whether texts are lowercased before the tokenizer's own normalisation.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What ``folder`` states.

        Raises:
            BaseError: it states something that is not done here (a Dense layer, a default prompt, …).
        """
        if not (folder / "modules.json").is_file():
            return cls()
        modules = _json(folder / "modules.json", [])
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
            raise BaseError(
                f"{folder / 'modules.json'} chains {' → '.join(kinds)};"
                " a base for embeddings is Transformer → Pooling, and Normalize if it likes"
            )
        prompt = _json(folder / "config_sentence_transformers.json", {}).get("default_prompt_name")
        if prompt is not None:
            raise BaseError(f"{folder} puts the prompt {prompt!r} before every text, which is not supported")
        text = _json(folder / "sentence_bert_config.json", {})
        return cls(
            modes=_modes(folder / str(modules[1]["path"]) / "config.json"),
            normalize=len(kinds) == 3,
            max_length=text.get("max_seq_length"),
            lowercase=bool(text.get("do_lower_case")),
        )

    def __call__(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Pool.

        Args:
            tokens: (rows, length, dim) of any floating dtype.
            mask: (rows, length), 1 for a token and 0 for padding on the right.

        Returns:
            float32 (rows, dim × number of modes).
        """
        wide = tokens.float()
        joined = torch.cat([_MODES[mode](wide, mask) for mode in self.modes], dim=-1)
        return torch.nn.functional.normalize(joined, dim=-1) if self.normalize else joined


def _modes(path: Path) -> tuple[str, ...]:
    config = _json(path, {})
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [mode for key, mode in _OLDER_KEYS.items() if config.get(key)] or ["mean"]
    modes = (stated,) if isinstance(stated, str) else tuple(stated)
    unknown = [mode for mode in modes if mode not in _MODES]
    if unknown:
        raise BaseError(f"{path} pools by {unknown[0]!r}; known are {', '.join(_MODES)}")
    return modes


def _json(path: Path, otherwise: _Json) -> _Json:
    """What a file holds; ``otherwise``, whose type it must have, if there is none."""
    if not path.is_file():
        return otherwise
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise BaseError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, type(otherwise)):
        raise BaseError(f"{path} holds a {type(value).__name__}, not a {type(otherwise).__name__}")
    return value

"""The lower layers of a model as a model of their own, with the same weights. Knows nothing of rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

_Module = TypeVar("_Module", bound=nn.Module)


@torch.inference_mode()
def lower(model: PreTrainedModel, layers: int, example: Mapping[str, torch.Tensor]) -> PreTrainedModel | None:
    """A model that ends after the first ``layers`` of ``model``'s and answers with their hidden state.

    A norm that follows the last layer is left out with the layers above. Its modules are the model's own, so
    whatever sets the weights of one sets those of the other. Never ask it for all its hidden states:
    transformers notes them down in the layers, which both models share.

    Args:
        model: the whole one.
        layers: how many to keep.
        example: an input of the model, to see whether the two agree.

    Returns:
        None where the model cannot be cut, or does more to its last hidden state than its layers do.
    """
    total: int = model.config.num_hidden_layers
    stacks = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == total
    ]
    if len(stacks) != 1 or layers >= total:
        return None
    cut = _cut(model, stacks[0].split("."), layers)
    whole = model(**example, output_hidden_states=True, return_dict=True)["hidden_states"][layers]
    same = torch.equal(cut(**example, return_dict=True)["last_hidden_state"], whole)
    return cut if same else None


def _cut(module: _Module, path: list[str], layers: int) -> _Module:
    """A copy of ``module`` that shares its children, but for the stack at ``path``: that it has a part of."""
    name, *rest = path
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    child = module._modules[name]
    assert child is not None
    for other, norm in module._modules.items():
        if isinstance(norm, nn.LayerNorm):
            twin._modules[other] = nn.Identity()
    twin._modules[name] = (
        _cut(child, rest, layers) if rest else nn.ModuleList(list(child.children())[:layers])
    )
    return twin

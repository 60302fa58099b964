"""A model's twin: modules of its own, the very same parameters and buffers.

Layers can be put into it in the place of others; so nothing is ever hooked onto the model, and nothing has
to be taken off it.
"""

from __future__ import annotations

import copy

from transformers import PreTrainedModel


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A model that shares all its tensors with ``model``, and nothing else."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)

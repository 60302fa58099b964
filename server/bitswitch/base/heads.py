"""A task's own last layers, run by the library's own code. Knows nothing of switches being applied.

The fine-tune's ``…ForSequenceClassification`` or ``…ForImageClassification`` class is built without memory
(on torch's meta device), only what lies outside the backbone gets weights, and in the backbone's place stands
a stub that hands over what the base has computed already.

A head comes from an upload, so its config is not trusted: the class and every size come from the
base's own config, and the head's is asked only for what concerns the head.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils.generic import ModelOutput

from bitswitch.base.model import Base, Hidden
from bitswitch.errors import InvalidSwitchError
from bitswitch_store.switch import Head

_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")
_HEAD_KEYS = ("classifier_", "pooler_", "cls_", "summary_", "seq_classif_")
_REMEMBERED = 32  # empty models; a few kilobytes each


class Heads:
    """Builds the heads of one base, from any thread; itself built where `Base.forward` may run.

    The library takes 10 ms to build a model even without memory, of which all but the head is thrown
    away. What is left is the same for all heads of as many labels, and copying it takes half a
    millisecond; so the last few are remembered.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._sample = base.forward(base.encoder.samples()[:2])
        self._empty = lru_cache(_REMEMBERED)(partial(_empty, base))

    def build(self, head: Head) -> ClassificationHead:
        """One task's head, tried out.

        Raises:
            InvalidSwitchError: the config is of another model or task, tensors are missing, unexpected
                or of another shape, or it does not run; the message names what.
        """
        choices = _choices(self._base, head)
        model = copy.deepcopy(self._empty(len(head.labels), choices))
        return ClassificationHead(self._base, head, model, self._sample)


class ClassificationHead:
    """One task's head over one base. One thread at a time, like `Base.forward`.

    It computes in the base's dtype, as the fine-tune would; probabilities are made in float32.

    Attributes:
        labels: names of the outputs, in order.
        nbytes: bytes of the weights held.
    """

    def __init__(self, base: Base, head: Head, model: PreTrainedModel, sample: Hidden) -> None:
        """See `Heads.build`; ``model`` is the empty one, of which this becomes the owner, ``sample`` what to
        try it on.
        """
        self.labels = head.labels
        self._problem = _problem(head)
        self._model = model
        self._stub: _Precomputed = getattr(model, model.base_model_prefix)
        tensors = {name: torch.tensor(array, dtype=base.dtype) for name, array in head.tensors.items()}
        _check(dict(self._model.named_parameters()), tensors)
        self._model.load_state_dict(tensors, assign=True)
        self._model.train(False).requires_grad_(False).to(base.device)
        self.nbytes = sum(tensor.nbytes for tensor in tensors.values())
        self._try(sample)

    @torch.inference_mode()
    def __call__(self, hidden: Hidden) -> torch.Tensor:
        """Answer.

        Returns:
            float32 (rows, labels): softmax; sigmoid for a multi-label task; the raw values for a
            regression, which a head of one label is unless its config says otherwise.
        """
        self._stub.hidden = hidden
        try:
            logits: torch.Tensor = self._model(**hidden.fields).logits.float()
        finally:
            self._stub.hidden = None
        if self._problem == "regression":
            return logits
        return logits.sigmoid() if self._problem == "multi_label_classification" else logits.softmax(dim=-1)

    def _try(self, sample: Hidden) -> None:
        """Run it once: what only fails when it runs shall fail now, not under a request."""
        try:
            answer = self(sample)
        except Exception as error:
            raise InvalidSwitchError(f"the head does not run: {type(error).__name__}: {error}") from error
        expected = (len(sample.mask), len(self.labels))
        if answer.shape != expected:
            raise InvalidSwitchError(
                f"the head answers {tuple(answer.shape)} for {expected[0]} inputs, not {expected}"
            )


class _Precomputed(torch.nn.Module):
    """Stands where the backbone stood.

    Attributes:
        hidden: what that made of the inputs.
    """

    def __init__(self, pooler: torch.nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler
        self.hidden: Hidden | None = None

    def forward(self, *given: object, **named: object) -> ModelOutput:
        if self.hidden is None:
            raise RuntimeError("a head ran without the backbone's output")
        known = {id(field) for field in self.hidden.fields.values()}
        for name, value in (*enumerate(given), *named.items()):
            # As Longformer's asks for attention from everywhere to the first token.
            if isinstance(value, torch.Tensor) and id(value) not in known:
                raise RuntimeError(f"it gives the backbone an input of its own, {name}, which the base lacks")
        output = self.hidden.output
        if self.pooler is None:
            return output
        pooled = self.pooler(output["last_hidden_state"])
        return type(output)(**{**output, "pooler_output": pooled})


def _problem(head: Head) -> str:
    problem = head.config.get("problem_type")
    if problem is None:
        return "regression" if len(head.labels) == 1 else "single_label_classification"
    if problem not in _PROBLEMS:
        raise InvalidSwitchError(
            f"the head's problem_type {problem!r} is not known; use {', '.join(_PROBLEMS)}"
        )
    return str(problem)


def _empty(base: Base, labels: int, choices: str) -> PreTrainedModel:
    """The fine-tune's class without memory, a stub where the backbone was.

    Args:
        labels: how many outputs it has.
        choices: as `_choices` gives them.
    """
    own = base.model.config
    model_class = _model_class(base)
    config = copy.deepcopy(own)
    try:
        config.num_labels = labels
        for key, value in json.loads(choices).items():
            setattr(config, key, value)
        with torch.device("meta"):
            model: PreTrainedModel = model_class(config)
    except (StrictDataclassError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise InvalidSwitchError(f"the head's config builds no {model_class.__name__}: {error}") from error
    setattr(model, model.base_model_prefix, _Precomputed(_pooler(base, model)))
    return model


def _choices(base: Base, head: Head) -> str:
    """What the head's config says of the head itself, as JSON, once the rest is found to agree with ours."""
    _check_config(base.model.config, _model_class(base).__name__, head)
    chosen = {
        key: value
        for key, value in head.config.items()
        if key.startswith(_HEAD_KEYS) and not key.endswith("_token_id")
    }
    return json.dumps(chosen, sort_keys=True)


def _model_class(base: Base) -> type[PreTrainedModel]:
    own = base.model.config
    known: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if images := base.encoder.kind == "image":
        known = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(own) not in known:
        what = "image" if images else "sequence"
        raise InvalidSwitchError(f"{own.model_type} has no {what} classification in transformers")
    found: Any = known[type(own)]
    return cast("type[PreTrainedModel]", found[0] if isinstance(found, tuple) else found)


def _check_config(own: PretrainedConfig, class_name: str, head: Head) -> None:
    config: Mapping[str, Any] = head.config
    if config.get("model_type") != own.model_type:
        raise InvalidSwitchError(
            f"the head is of a {config.get('model_type')!r}; this base is a {own.model_type!r}"
        )
    stated = config.get("architectures")
    if stated is not None and stated != [class_name]:
        raise InvalidSwitchError(
            f"the head's architecture is {stated!r}; this base answers with [{class_name!r}]"
        )
    if config.get("num_labels", len(head.labels)) != len(head.labels):
        raise InvalidSwitchError(
            f"the head's config has {config['num_labels']} labels and names {len(head.labels)}"
        )
    for key, value in own.to_dict().items():
        size = isinstance(value, int) and not isinstance(value, bool) and not key.endswith("_token_id")
        if size and not key.startswith(_HEAD_KEYS) and config.get(key, value) != value:
            raise InvalidSwitchError(f"the head's config has {key} {config[key]!r}; this base has {value}")


def _pooler(base: Base, model: PreTrainedModel) -> torch.nn.Module | None:
    """The backbone's pooler where the task needs one and the base has none: the head brings it."""
    backbone = getattr(model, model.base_model_prefix)
    pooler: torch.nn.Module | None = getattr(backbone, "pooler", None)
    if pooler is None or getattr(base.model, "pooler", None) is not None:
        return None
    return pooler


def _check(needed: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(needed.keys() - given.keys())
    if missing:
        raise InvalidSwitchError(f"the head lacks {', '.join(missing[:5])}")
    unexpected = sorted(given.keys() - needed.keys())
    if unexpected:
        raise InvalidSwitchError(
            f"the head brings {', '.join(unexpected[:5])}, which is no part of it;"
            f" it is {', '.join(sorted(needed))}"
        )
    for name, tensor in needed.items():
        if given[name].shape != tensor.shape:
            raise InvalidSwitchError(
                f"the head's {name} is {tuple(given[name].shape)}; here it is {tuple(tensor.shape)}"
            )

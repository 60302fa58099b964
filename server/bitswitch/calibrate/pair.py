"""A fine-tune, and beside it the same model at a switch: what both make of the same few texts.

Knows how to run transformers' models and where their linear layers are; nothing of how a switch is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import kl_div
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from bitswitch.base.load import load, quiet
from bitswitch.core import Row, Want

MAX_TOKENS = 8_192
"""Tokens of all texts together, padding included: the layers' answers to them are held in memory."""

_USUAL = 0.95
"""Share of the texts that are read to their end, if `MAX_TOKENS` allows it."""

_AT_ONCE = 25
"""Texts of which gradients are held at once."""

_PROBES = 2
"""Random directions for each text."""

Text = str | tuple[str, str]
Watch = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Told a layer's name, its inputs and its outputs at the texts' tokens, float32 (positions, …)."""
_Hook = Callable[[str, torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor | None]


class Pair:
    """Both models, in float32 and eval mode, and the texts as one padded batch.

    Attributes:
        layers: names in the base's checkpoint of the weights of the backbone's linear layers, in the order
            in which the model runs them; a layer that runs more than once for a text is left out.
        biases: of those that have one, the name of the bias by the name of the weights.
    """

    def __init__(self, base: Path, finetuned: Path, texts: Sequence[Text], *, head: bool) -> None:
        """Load.

        Args:
            base: folder of the base.
            finetuned: folder of the fine-tune.
            texts: example inputs, one or more.
            head: whether the fine-tune has a classification head; its embeddings count if it has none.
        """
        ground = load(base, dtype="float32")
        names = {id(value): name for name, value in ground.model.named_parameters(remove_duplicate=False)}
        kind: Any = AutoModelForSequenceClassification if head else AutoModel
        with quiet():
            models = [
                kind.from_pretrained(finetuned, local_files_only=True, dtype=torch.float32) for _ in "ab"
            ]
        self._finetune, self._switched = (model.eval().requires_grad_(False) for model in models)
        self._pooling = None if head else ground.pooling
        config = self._finetune.config
        self._one_of_many = (
            head
            and config.num_labels > 1
            and getattr(config, "problem_type", None) in (None, "single_label_classification")
        )
        self._fields = ground.encoder.pad(
            _cut(ground.encode(texts, want=Want.CLASSIFY if head else Want.EMBED))
        )
        self._mask = self._fields["attention_mask"].bool()
        place = {name: names[id(value)] for name, value in ground.parameters.items()}
        own = dict(_backbone(self._switched).named_parameters())
        self.base = {name: value.clone() for name, value in ground.parameters.items() if place[name] in own}
        self._parameters = {name: own[place[name]] for name in self.base}
        for name, parameter in self._parameters.items():
            parameter.data = self.base[name].clone()
        by_id = {id(parameter): name for name, parameter in self._parameters.items()}
        self._modules: dict[str, str] = {}
        self.biases: dict[str, str] = {}
        for path, module in self._switched.named_modules():
            if isinstance(module, torch.nn.Linear) and id(module.weight) in by_id:
                name = by_id[id(module.weight)]
                self._modules[name] = path
                if module.bias is not None and id(module.bias) in by_id:
                    self.biases[name] = by_id[id(module.bias)]
        runs: list[str] = []
        self.answers = self.run_finetune(lambda name, *_: runs.append(name))
        self.layers = tuple(name for name in runs if runs.count(name) == 1)

    @torch.no_grad()
    def run_finetune(self, watch: Watch) -> torch.Tensor:
        """Run the fine-tune, watched layer by layer: its answers, float32 (texts, outputs)."""
        with self._hooked(self._finetune, lambda name, _, *seen: watch(name, *self._positions(*seen))):
            return self._answers(self._finetune, self._fields)

    @torch.no_grad()
    def run_switched(self, watch: Watch | None = None) -> torch.Tensor:
        """Run the model at the switch; a layer answers after ``watch``, which may `set` its parameters."""

        def hook(
            name: str, module: torch.nn.Module, inputs: torch.Tensor, outputs: torch.Tensor
        ) -> torch.Tensor | None:
            if watch is None:
                return None
            watch(name, *self._positions(inputs, outputs))
            again: torch.Tensor = module.forward(inputs)
            return again

        with self._hooked(self._switched, hook):
            return self._answers(self._switched, self._fields)

    def set(self, name: str, value: torch.Tensor) -> None:
        """Set a parameter of the model at the switch, by its name in the base's checkpoint."""
        self._parameters[name].data = value

    def distance(self, answers: torch.Tensor) -> float:
        """How far answers are from the fine-tune's, in the mean of the texts: 0 or more.

        The divergence of the labels' probabilities where one label of several holds; otherwise the squared
        error as a share of the answers' variance.
        """
        if self._one_of_many:
            mine, theirs = answers.log_softmax(dim=-1), self.answers.log_softmax(dim=-1)
            return float(kl_div(mine, theirs, log_target=True, reduction="batchmean"))
        spread = (self.answers - self.answers.mean(dim=0)).square().sum().clamp_min(1e-12)
        return float((answers - self.answers).square().sum() / spread)

    def sensitivities(self, seed: int) -> dict[str, torch.Tensor]:
        """How much each output of each layer moves the fine-tune's answers.

        Returns:
            float64 (outputs,) by layer: the squared gradient of the answers along random directions,
            summed over a text's positions, in the mean of the texts: a diagonal Gauss-Newton estimate.
            A layer that has no part in the answers (a pooler, for embeddings) is left out.
        """
        generator = torch.Generator().manual_seed(seed)
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, len(self._mask), _AT_ONCE):
            part = {name: field[start : start + _AT_ONCE] for name, field in self._fields.items()}
            seen: dict[str, torch.Tensor] = {}

            def keep(name: str, _: object, __: object, outputs: torch.Tensor) -> None:
                # The models' own parameters want no gradient: the first layer is where it begins.
                seen[name] = outputs.requires_grad_()  # noqa: B023 - called before the next turn

            with self._hooked(self._finetune, keep):
                answers = self._answers(self._finetune, part)
            for _ in range(_PROBES):
                direction = torch.randn(answers.shape, generator=generator)
                if self._one_of_many:
                    # To add the same to every label's score changes nothing.
                    direction -= direction.mean(dim=1, keepdim=True)
                along = (answers * direction).sum()
                slopes = torch.autograd.grad(
                    along, [seen[name] for name in self.layers], retain_graph=True, allow_unused=True
                )
                for name, slope in zip(self.layers, slopes, strict=True):
                    if slope is not None:
                        square = slope.double().square().reshape(-1, slope.shape[-1]).sum(dim=0)
                        sums[name] = sums.get(name, 0.0) + square / (_PROBES * len(self._mask))
        return sums

    def _answers(self, model: PreTrainedModel, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        output = model(**fields)
        answers: torch.Tensor = (
            output.logits
            if self._pooling is None
            else self._pooling(output.last_hidden_state, fields["attention_mask"])
        )
        return answers

    def _positions(self, *values: torch.Tensor) -> list[torch.Tensor]:
        """Values (texts, length, …) at the tokens that are no padding; others (texts, …) as they are."""
        return [
            value[self._mask] if value.shape[:2] == self._mask.shape else value.reshape(-1, value.shape[-1])
            for value in values
        ]

    @contextmanager
    def _hooked(self, model: PreTrainedModel, hook: _Hook) -> Iterator[None]:
        modules = dict(model.named_modules())

        def called(
            name: str,
        ) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor | None]:
            return lambda module, inputs, outputs: hook(name, module, inputs[0], outputs)

        handles = [modules[path].register_forward_hook(called(name)) for name, path in self._modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _backbone(model: PreTrainedModel) -> torch.nn.Module:
    """The model without its head; itself if it has none."""
    return getattr(model, model.base_model_prefix, model)


def _cut(rows: Sequence[Row]) -> list[Row]:
    """Rows short enough for `MAX_TOKENS` and not much longer than most: all are padded to the longest.

    A long one loses tokens before its last one, which closes it.
    """
    usual = sorted(row.length for row in rows)[int(_USUAL * (len(rows) - 1))]
    longest = max(8, min(usual, MAX_TOKENS // len(rows)))
    return [
        row
        if row.length <= longest
        else Row({name: [*ids[: longest - 1], ids[-1]] for name, ids in row.fields.items()}, truncated=True)
        for row in rows
    ]

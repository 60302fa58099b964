"""A fine-tune, and beside it the same model at a switch: what both make of the same few texts.

Some texts are held out: only the distance between the two is measured on them. Knows how to run
transformers' models and where their linear layers are; nothing of how a switch is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import kl_div
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from bitswitch.base.load import load, quiet
from bitswitch.calibrate.splice import cut, enriched
from bitswitch.core import Row, Want

# Standard errors by which a mean gain has to be above 0.
_SURE = 2.0

_AT_ONCE = 25
"""Texts of which gradients are held at once."""

_PROBES = 2
"""Random directions for each text."""

Text = str | tuple[str, str]
Watch = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Told a layer's name, its inputs and its outputs at the texts' tokens, float32 (positions, …)."""
_Hook = Callable[[str, torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor | None]


class Distance(NamedTuple):
    """How far the switched model's answers are from the fine-tune's, for each text held out or spliced.

    Attributes:
        relabelled: float64 (texts,): 1 for another label, else 0; all 0 where not one label of several holds.
        divergence: float64 (texts,): of the labels' probabilities; without such, the squared error as a
            share of the answers' mean variance.
    """

    relabelled: torch.Tensor
    divergence: torch.Tensor

    def surely_below(self, other: Distance) -> bool:
        """Whether the divergence is less than in ``other`` beyond chance, and no more labels are changed,
        beyond chance either: of the texts on which the two differ, the sign is a coin's."""
        gain = other.divergence - self.divergence
        doubt = float(gain.std()) / math.sqrt(len(gain))
        lost, won = (float((x > y).sum()) for x, y in permutations((self.relabelled, other.relabelled)))
        no_more = lost <= won or lost - won < math.sqrt(lost + won)
        return no_more and float(gain.mean()) > _SURE * doubt


class Pair:
    """Both models, in float32 and eval mode, and each group of texts as one padded batch.

    Attributes:
        layers: names in the base's checkpoint of the weights of the backbone's linear layers, in the order
            in which the model runs them; a layer that runs more than once for a text is left out.
        biases: of those that have one, the name of the bias by the name of the weights.
        lengths: int64 (texts,): tokens of each text to fit to.
    """

    def __init__(
        self, base: Path, finetuned: Path, texts: Sequence[Text], held_out: Sequence[Text], *, head: bool
    ) -> None:
        """Load.

        Args:
            base: folder of the base.
            finetuned: folder of the fine-tune.
            texts: example inputs to fit to, one or more.
            held_out: others to measure by, one or more.
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
        want = Want.CLASSIFY if head else Want.EMBED
        rows = [cut(ground.encode(some, want=want)) for some in (texts, held_out)]
        words = _learned(self._finetune, ground.model, rows[0])
        special = ground.encode([""], want=want)[0].fields["input_ids"]
        self._fields, self._held_out = (
            ground.encoder.pad(enriched(some, words, special, seed=seed)) for seed, some in enumerate(rows)
        )
        self._mask = self._fields["attention_mask"].bool()
        self.lengths = self._mask.sum(dim=1)
        place = {name: names[id(value)] for name, value in ground.parameters.items()}
        own = dict(_backbone(self._switched).named_parameters())
        self.base = {name: value.clone() for name, value in ground.parameters.items() if place[name] in own}
        self._parameters = {name: own[place[name]] for name in self.base}
        paths = {id(parameter): path for path, parameter in self._switched.named_parameters()}
        self._paths = {name: paths[id(parameter)] for name, parameter in self._parameters.items()}
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
        self._fitted = self.run_finetune(lambda name, *_: runs.append(name))
        with torch.no_grad():
            self._wanted = self._answers(self._finetune, self._held_out)
        self.layers = tuple(name for name in runs if runs.count(name) == 1)

    @torch.no_grad()
    def run_finetune(self, watch: Watch) -> torch.Tensor:
        """Run the fine-tune over the texts to fit to, watched layer by layer; its answers, (texts, …)."""
        with self._hooked(self._finetune, lambda name, _, *seen: watch(name, *self._positions(*seen))):
            return self._answers(self._finetune, self._fields)

    @torch.no_grad()
    def run_switched(self, watch: Watch) -> None:
        """Run the model at the switch over the same; a layer answers after ``watch``, which may `set` it."""

        def hook(
            name: str, module: torch.nn.Module, inputs: torch.Tensor, outputs: torch.Tensor
        ) -> torch.Tensor:
            watch(name, *self._positions(inputs, outputs))
            again: torch.Tensor = module.forward(inputs)
            return again

        with self._hooked(self._switched, hook):
            self._answers(self._switched, self._fields)

    def set(self, name: str, value: torch.Tensor) -> None:
        """Set a parameter of the model at the switch, by its name in the base's checkpoint."""
        self._parameters[name].data = value

    @torch.no_grad()
    def distance(self) -> Distance:
        """How far the model at the switch is from the fine-tune on the texts held out."""
        answers, wanted = self._answers(self._switched, self._held_out), self._wanted
        divergence = self._divergence(answers, wanted, wanted)
        if not self._one_of_many:
            return Distance(torch.zeros_like(divergence), divergence)
        return Distance((answers.argmax(dim=-1) != wanted.argmax(dim=-1)).double(), divergence)

    def divergence(self, values: Mapping[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """How far the switched model would be with some parameters at other values.

        Args:
            values: parameters by their names in the base's checkpoint; gradients reach them.
            places: int64 (texts,): which of the texts to fit to.

        Returns:
            float64 (texts,), as in `Distance`.
        """
        longest = int(self.lengths[places].max())
        fields = {name: field[places, :longest] for name, field in self._fields.items()}
        own = {self._paths[name]: value for name, value in values.items()}
        answers = self._answers(
            lambda **given: torch.func.functional_call(self._switched, own, (), given), fields
        )
        return self._divergence(answers, self._fitted[places], self._fitted)

    def _divergence(self, answers: torch.Tensor, wanted: torch.Tensor, all_: torch.Tensor) -> torch.Tensor:
        if self._one_of_many:
            mine, theirs = answers.log_softmax(dim=-1), wanted.log_softmax(dim=-1)
            return kl_div(mine, theirs, log_target=True, reduction="none").sum(dim=-1).double()
        errors = (answers - wanted).double().square().sum(dim=-1)
        return errors / (all_ - all_.mean(dim=0)).double().square().sum(dim=-1).mean().clamp_min(1e-12)

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

    def _answers(self, model: Callable[..., Any], fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
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


def _learned(finetune: PreTrainedModel, base: torch.nn.Module, rows: Sequence[Row]) -> NDArray[np.float64]:
    """How much each token is the task's, (vocabulary,): as far as the fine-tune has moved its embedding.

    Training moves the embeddings of the words that it sees. Where it was kept from them (a LoRA mostly is),
    each token counts as often as the rows have it.
    """
    models: list[Any] = [finetune, base]
    own, ground = (model.get_input_embeddings().weight for model in models)
    moved: NDArray[np.float64] = (own - ground).abs().amax(dim=1).double().numpy()
    if moved.any():
        return moved
    ids = np.concatenate([row.fields["input_ids"] for row in rows])
    return np.bincount(ids, minlength=len(moved)).astype(np.float64)


def _backbone(model: PreTrainedModel) -> torch.nn.Module:
    """The model without its head; itself if it has none."""
    return getattr(model, model.base_model_prefix, model)

"""PEFT's side of a measurement, run by PEFT's own Python: one question per line in, one answer per line out.

    python lora.py BASE ADAPTERS

Random LoRA weights of rank 16 on all Linear layers: what is measured is time and memory, not what they say.
Imports nothing of ours, so that it runs in an environment without it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

RANK = 16


class Lora:
    """A base with many adapters, each named by its number."""

    def __init__(self, base: str, count: int) -> None:
        config = LoraConfig(
            r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False, lora_dropout=0.0
        )
        self.model = get_peft_model(AutoModel.from_pretrained(base), config, adapter_name="0").eval()
        for number in range(1, count):
            self.model.add_adapter(str(number), config)
        self._count = count
        self._other = 0

    def about(self) -> dict[str, float]:
        """Bytes that one adapter holds."""
        own = [p.nbytes for name, p in self.model.named_parameters() if name.endswith(".0.weight")]
        return {"bytes": sum(own)}

    def set_adapter(self) -> dict[str, float]:
        """To one of two adapters and back."""
        return _timed(lambda: [self.model.set_adapter(name) for name in ("1", "0")])

    def merge(self) -> dict[str, float]:
        """Merge one adapter into the weights and take it out again."""

        def run() -> None:
            self.model.base_model.merge_adapter(["0"])
            self.model.base_model.unmerge_adapter()

        return _timed(run)

    def mixed(self, rows: list[list[int]], names: list[str]) -> dict[str, float]:
        """One batch whose rows have an adapter each, by ``adapter_names``."""
        return _timed(lambda: self._embed(rows, adapter_names=names))

    def grouped(self, rows: list[list[int]], names: list[str]) -> dict[str, float]:
        """The rows of each adapter together, after ``set_adapter``."""
        groups: dict[str, list[list[int]]] = {}
        for row, name in zip(rows, names, strict=True):
            groups.setdefault(name, []).append(row)

        def run() -> None:
            for name, own in groups.items():
                self.model.set_adapter(name)
                self._embed(own)

        return _timed(run)

    @torch.inference_mode()
    def _embed(self, rows: list[list[int]], **more: object) -> torch.Tensor:
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        tokens = self.model(input_ids=ids, attention_mask=mask, **more).last_hidden_state
        pooled = (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(pooled, dim=-1)


def _timed(run: Callable[[], object]) -> dict[str, float]:
    started = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    base, count = sys.argv[1:]
    lora = Lora(base, int(count))
    print(json.dumps(lora.about()), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(lora, question.pop("do"))(**question)), flush=True)


if __name__ == "__main__":
    main()

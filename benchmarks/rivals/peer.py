"""Our end of a rival that runs beside us in its own environment: a question per line, an answer per line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.rivals.environment import OURS, environment


class Peer:
    """The rival's process.

    Attributes:
        about: what it said of itself when it was ready.
    """

    def __init__(self, to: IO[str], back: IO[str]) -> None:
        self._to = to
        self._back = back
        self.about = self._read()

    def seconds(self, do: str, **values: object) -> float:
        """Let it do something; how long that took, by its own clock.

        Raises:
            RuntimeError: it ended instead; standard error says why.
        """
        self._to.write(json.dumps({"do": do, **values}) + "\n")
        self._to.flush()
        return float(self._read()["seconds"])

    def _read(self) -> dict[str, Any]:
        line = self._back.readline()
        if not line:
            raise RuntimeError("the rival's process ended; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def lora(folder: Path | None, base: Path, count: int) -> Iterator[Peer]:
    """PEFT with ``count`` random LoRA adapters on ``base``. Raises as `environment` does."""
    binaries = environment("peft", folder)
    command = [binaries / "python", Path(__file__).with_name("lora.py"), base, str(count)]
    # Its own packages and its own defaults: what this process runs with is none of its business.
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    clean |= {
        "PYTHONWARNINGS": "ignore",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Peer(process.stdin, process.stdout)
        process.stdin.close()  # it ends with its questions

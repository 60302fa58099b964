"""The container's recipe: no engine runs here, so its steps are read, and run in a clean virtual environment.

What differs from a real build: the Python is the one of the tests, and the folders ``/base`` and ``/store``
are temporary ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile; ``stage`` counts from 0."""

    stage: int
    word: str
    rest: str


def steps(text: str) -> list[Step]:
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    found, stage = [], -1
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        found.append(Step(stage, word, rest.strip()))
    return found


RECIPE = steps((ROOT / "docker" / "Dockerfile").read_text())


def all_of(word: str) -> list[str]:
    return [step.rest for step in RECIPE if step.word == word]


def only(word: str) -> str:
    (rest,) = all_of(word)
    return rest


def healthcheck() -> list[str]:
    command: list[str] = json.loads(only("HEALTHCHECK").partition("CMD ")[2])
    return command


def test_the_recipe_is_read_whole() -> None:
    assert steps("FROM a AS b\n# no\nRUN x && \\\n    y\nFROM c\nUSER d\n") == [
        Step(0, "FROM", "a AS b"),
        Step(0, "RUN", "x &&      y"),
        Step(1, "FROM", "c"),
        Step(1, "USER", "d"),
    ]


def test_the_server_runs_without_root_and_says_whether_it_lives() -> None:
    last = max(step.stage for step in RECIPE)
    words = [step.word for step in RECIPE if step.stage == last]
    assert only("USER") not in ("root", "0")
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "RUN" not in words[words.index("USER") :]
    assert json.loads(only("ENTRYPOINT")) == ["bitswitch"]
    assert json.loads(only("CMD"))[0] == "serve"
    assert only("VOLUME") in json.loads(only("CMD"))


def test_every_copied_file_exists_and_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert "*" in lines
    let_in = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for copy in all_of("COPY")
        if not copy.startswith("--from")
        for source in shlex.split(copy)[:-1]
    }
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


def test_compose_binds_to_this_machine_alone_and_mounts_what_the_server_reads() -> None:
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    (bitswitch,) = services.values()
    assert all(port.startswith("127.0.0.1:") for port in bitswitch["ports"])
    inside = {volume.removesuffix(":ro").rpartition(":")[2] for volume in bitswitch["volumes"]}
    command = json.loads(only("CMD"))
    assert inside == {command[command.index("--base") + 1], command[command.index("--store") + 1]}
    recipe = ROOT / "docker" / bitswitch["build"]["context"] / bitswitch["build"]["dockerfile"]
    assert recipe.resolve() == ROOT / "docker" / "Dockerfile"


def test_the_pins_name_versions_and_nothing_of_any_machine() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert len(lines) == len({line.partition("=")[0] for line in lines})


def test_an_unknown_device_stops_the_build(tmp_path: Path) -> None:
    (step,) = [rest for rest in all_of("RUN") if "$DEVICE" in rest]
    done = subprocess.run(
        ["sh", "-c", step],
        cwd=tmp_path,
        check=False,
        env={"DEVICE": "tpu", "PATH": os.environ["PATH"]},
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"not 'tpu'" in done.stderr


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that stands for the image: the recipe's install steps have run there."""
    build = tmp_path_factory.mktemp("image") / "build"
    build.mkdir()
    subprocess.run([sys.executable, "-m", "venv", build / "venv"], check=True)
    for step in RECIPE:
        if step.word == "COPY" and not step.rest.startswith("--from"):
            *sources, target = shlex.split(step.rest)
            for source in sources:
                copy(ROOT / source, build / target / source if target == "./" else build / target)
        elif step.word == "RUN" and "pip " in step.rest:
            done = subprocess.run(
                ["sh", "-ec", step.rest],
                cwd=build,
                env=clean(build),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{step.rest}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return build


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def clean(build: Path) -> dict[str, str]:
    """This process's environment without its Python; byte code is left to the imports that need it."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    path = f"{build / 'venv' / 'bin'}:{os.environ['PATH']}"
    return kept | {"PATH": path, "DEVICE": "cpu", "PIP_COMPILE": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.mark.network
@pytest.mark.timeout(900)  # the index may be slow; some 40 s of it is pip's work
def test_the_installed_image_serves_and_its_healthcheck_agrees(
    image: Path, tiny_base: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    stands_for = {
        "/base": str(tiny_base),
        "/store": str(tmp_path / "store"),
        "8000": port,
        "0.0.0.0": "127.0.0.1",
    }
    words = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
    command = [str(image / "venv" / "bin" / words[0]), *(stands_for.get(word, word) for word in words[1:])]
    check = [word.replace(":8000/", f":{port}/") for word in healthcheck()]
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=tmp_path, env=clean(image), stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 240
        while subprocess.run(check, env=clean(image), capture_output=True, check=False).returncode != 0:
            assert server.poll() is None, f"the server stopped:\n{log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"not healthy after 240 s:\n{log.read_text()[-2000:]}"
            time.sleep(1)
    finally:
        server.terminate()
        ended = server.wait(timeout=60)
    assert ended in (0, -signal.SIGTERM), log.read_text()[-2000:]  # uvicorn ends by the signal it was sent

"""The rivals' virtual environments: made when first asked for, made anew when their pins change.

Knows how pip is called, and nothing of what it installs.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from bitswitch.cli.threads import SETTINGS

PINS = Path(__file__).parent
OURS = ("PYTHONPATH", *SETTINGS)
"""Variables of this process's environment that no rival inherits."""


class RivalUnavailableError(RuntimeError):
    """A rival cannot be had here; the message says why, and the tables are written without it."""


def environment(name: str, folder: Path | None) -> Path:
    """The ``bin`` folder of a rival's environment, made first if need be: minutes, once.

    Args:
        name: of a file of pins in this folder.
        folder: holds all environments; None if no rival is wanted.

    Raises:
        RivalUnavailableError: it is not wanted, or pip could not install it.
    """
    if folder is None:
        raise RivalUnavailableError(f"{name}: left out, as --no-rivals says")
    pins = PINS / f"{name}.txt"
    home = folder / name
    settled = home / "installed.txt"
    if settled.is_file() and settled.read_text() == pins.read_text():
        return home / "bin"
    print(f"installing {name} into {home}: some minutes, the first time", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    command = [
        home / "bin/python",
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += ["--prefer-binary", "--no-compile", *shlex.split(os.environ.get("PIP_ARGS", "")), "-r", pins]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
        raise RivalUnavailableError(f"{name}: not installed here: {said[0]}")
    settled.write_text(pins.read_text())
    return home / "bin"

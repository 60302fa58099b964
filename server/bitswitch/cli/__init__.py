"""The command line: builds the settings, wires the parts, prints. One module per command."""

from bitswitch.cli.main import main

__all__ = ["main"]

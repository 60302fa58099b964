"""``python -m bitswitch.cli``: the same as ``bitswitch``."""

from bitswitch.cli.main import main

main()

"""Entry point of `python -m replay.cli`."""

from . import main

main()

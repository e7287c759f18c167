"""`python -m replay.cli`: the command without its script."""

from . import main

main()

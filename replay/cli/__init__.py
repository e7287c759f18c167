"""The command's entry point. It sets up signal handling before the slow imports."""

from __future__ import annotations

import sys

from replay import garbage

from . import interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .commands import VERBS as VERBS
    from .commands import invoke as invoke
    from .commands import replay as replay


def main() -> NoReturn:
    """Run the command line of `sys.argv` and exit with the command's code.

    The console script and `python -m replay.cli` call this.
    """
    interrupts.prepare()
    garbage.collect_rarely()
    try:
        from . import streams

        streams.prepare()
        from .commands import invoke

        code = invoke()
    except KeyboardInterrupt:
        code = interrupts.exit_code()
    interrupts.settle()
    sys.exit(code)


def __getattr__(name: str) -> Any:
    """Import `VERBS`, `invoke` and `replay` from `replay.cli.commands` when a program first uses them."""
    if name not in ("VERBS", "invoke", "replay"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(".commands", __name__), name)

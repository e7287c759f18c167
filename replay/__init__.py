"""Replays recorded traffic at the moments it was recorded, and reports the latency that users would have seen.

The library in five verbs: `open` a trace, `import_log` to make one, `prepare` a run to see what it would send, `run` it
onto a target, `load` what a run left. Under Trio: `await replay.engine.run(schedule, scenario, out)`, or
`await prepared.run_async(out)`.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # the command sets its signal handlers before it can afford to import typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from types import ModuleType
    from typing import Unpack

    from . import engine as engine
    from . import errors as errors
    from . import plan as plan
    from . import protocols as protocols
    from . import settings as settings
    from . import trace as trace
    from .engine import Prepared
    from .engine.sinks import Sink
    from .results.run import Run
    from .settings.scenario import Scenario
    from .settings.typed import Settings
    from .trace import Trace

__all__ = ["__version__", "import_log", "load", "open", "prepare", "run"]

_PACKAGES = ("engine", "errors", "plan", "protocols", "settings", "trace")


def __getattr__(name: str) -> ModuleType:
    """`replay.engine` and the other packages, imported at first use."""
    if name in _PACKAGES:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(path: str | PathLike[str]) -> Trace:
    """The trace in the folder `path`. InputError where there is none, or it is not whole."""
    from pathlib import Path

    from .trace import Trace

    return Trace.open(Path(path))


def import_log(*logs: str | PathLike[str], out: str | PathLike[str]) -> Trace:
    """Make a trace of access logs (rotated, gzipped, in any order) in the new folder `out`.

    InputError where a log cannot be read as one; OutputError where `out` exists or cannot be written.
    """
    from pathlib import Path

    from .trace.importing import import_files

    return import_files([Path(log) for log in logs], Path(out))


def run(
    trace: Trace | str | PathLike[str],
    *,
    target: str,
    out: str | PathLike[str],
    sinks: Sequence[Sink | str] = (),
    **settings: Unpack[Settings],
) -> Run:
    """Replay a trace onto `target` into the new run folder `out`, and return the run.

    `sinks` get each second as it is measured: objects (`replay.engine.sinks.Sink`), or texts such as `csv=seconds.csv`.

    `settings` are those of a scenario file by name (`speed=10`, `methods="all"`, `connections=64`, `rate="500/s"`).
    Blocks; in any thread, also beside an event loop. In the main thread SIGINT and SIGTERM end the run in order. Raises
    a ReplayError (`replay.errors`) before anything is sent where a setting is wrong, the plan is over a limit or the
    target cannot be reached.
    """
    import sys

    from .audience import audience
    from .engine.prepare import prepare
    from .engine.sinks import make_sinks
    from .settings.instant import instant_of

    made, scenario = make_sinks(sinks), _scenario(target, settings)
    instant_ns = instant_of(scenario)
    with (
        audience(scenario, lambda line: print(line, file=sys.stderr, flush=True)) as watching,
        prepare(_opened(trace), scenario) as prepared,
    ):
        prepared.run(out, sinks=[*made, *watching.sinks], start_at_ns=instant_ns)
    return load(out)


def prepare(trace: Trace | str | PathLike[str], *, target: str, **settings: Unpack[Settings]) -> Prepared:
    """Plan a replay without sending anything: `.plans` says what would be sent, `.run(out)` sends it.

    `settings` are as for `run`. Raises a ReplayError as `run` does.
    """
    from .engine.prepare import prepare
    from .errors import UsageError

    scenario = _scenario(target, settings)
    for name in ("live", "notify", "start_at"):
        if getattr(scenario, name):
            hint = "replay.run takes it; the .run of what is prepared takes sinks and start_at_ns"
            raise UsageError(f"{name}: nothing is run here", hint=hint)
    return prepare(_opened(trace), scenario)


def _opened(trace: Trace | str | PathLike[str]) -> Trace:
    from pathlib import Path

    from .trace import Trace

    return trace if isinstance(trace, Trace) else Trace.open(Path(trace))


def _scenario(target: str, settings: Mapping[str, object]) -> Scenario:
    from .settings.file import load as load_scenario

    names = {name: name for name in ("target", *settings)}
    return load_scenario(None, {"target": target, **settings}, names)


def load(path: str | PathLike[str]) -> Run:
    """The run in the folder `path`, whole or killed. InputError where there is none."""
    from .results.run import load_run

    return load_run(path)

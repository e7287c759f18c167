"""Replays recorded traffic at the moments it was recorded, and says what users would have felt.

The library in four verbs: `open` a trace, `import_log` to make one, `run` it onto a target, `load` what a run left. Inside a
Trio program use `await replay.engine.run(...)` with a schedule of `replay.plan.schedule.make_schedule`.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # the command sets its signal handlers before it can afford to import typing
if TYPE_CHECKING:
    from os import PathLike
    from typing import Any

    from .results.run import Run
    from .trace import Trace

__all__ = ["__version__", "import_log", "load", "open", "run"]


def __getattr__(name: str) -> Any:
    """`replay.engine` and the other rooms, imported at first use."""
    if name in ("engine", "errors", "formats", "scenario", "schedule", "trace"):
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


def run(trace: Trace | str | PathLike[str], *, target: str, out: str | PathLike[str], **knobs: Any) -> Run:
    """Replay a trace onto `target` into the new run folder `out`, and return the run.

    `knobs` are those of a scenario file by name (`speed=10`, `methods="all"`, `connections=64`, `rate="500/s"`). Blocks;
    SIGINT and SIGTERM end the run in order. Raises a ReplayError (`replay.errors`) before anything is sent where the plan
    is over a limit or the target cannot be reached.
    """
    import tempfile
    from pathlib import Path

    from .engine.nursery import run_blocking
    from .plan.schedule import make_schedules
    from .protocols.kafka import fit_for
    from .settings.file import load as load_scenario
    from .trace import Trace

    recording = trace if isinstance(trace, Trace) else Trace.open(Path(trace))
    scenario = load_scenario(None, {"target": target, **knobs}, {name: name for name in ("target", *knobs)})
    with tempfile.TemporaryDirectory(prefix="replay-") as area:
        first, *also = make_schedules(recording, scenario, area=Path(area))
        fit = fit_for(first.target, *(schedule.target for schedule in also))
        run_blocking(first, scenario, out, fit=fit, also=also)
    return load(out)


def load(path: str | PathLike[str]) -> Run:
    """The run in the folder `path`, whole or killed. InputError where there is none."""
    from .results.run import load_run

    return load_run(path)

"""Replays recorded traffic with its recorded timing, and reports the latency that users would have seen.

Traces: `import_log` makes one, `open` opens one, `inspect` shows its contents, `transform` makes another from it.
Runs: `prepare` plans one without sending, `run` sends, `load` opens the results, `peak` searches for the highest load,
`compare` judges runs of two builds. Under Trio: `await prepared.run_async(out)`.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # The command sets its signal handlers before it imports typing, which takes long.
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path
    from types import ModuleType
    from typing import TypeAlias, Unpack

    from . import engine as engine
    from . import errors as errors
    from . import plan as plan
    from . import protocols as protocols
    from . import settings as settings
    from . import trace as trace
    from .comparison.design import Asked
    from .comparison.verdict import Comparison
    from .engine import Prepared
    from .engine.sinks import Sink
    from .peaks.climb import Climb
    from .results.run import Run
    from .settings.scenario import Scenario
    from .settings.typed import PeakSettings, Settings, TransformSettings
    from .trace import Trace
    from .trace.inspection import Inspection

    Runs: TypeAlias = Run | str | PathLike[str] | Sequence[Run | str | PathLike[str]]

__all__ = [
    "__version__",
    "compare",
    "import_log",
    "inspect",
    "load",
    "open",
    "peak",
    "prepare",
    "run",
    "transform",
]

_PACKAGES = ("engine", "errors", "plan", "protocols", "settings", "trace")


def __getattr__(name: str) -> ModuleType:
    """Import `replay.engine` and the other packages at first use."""
    if name in _PACKAGES:
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(path: str | PathLike[str]) -> Trace:
    """Open the trace in the folder `path`.

    Raises InputError if it is missing, incomplete, damaged, or of a newer version.
    """
    from pathlib import Path

    from .trace import Trace

    return Trace.open(Path(path))


def import_log(*logs: str | PathLike[str], out: str | PathLike[str]) -> Trace:
    """Import access logs or other recordings (rotated, compressed, in any order) as a trace in the new folder `out`.

    Raises InputError if a file cannot be read or has an unknown format, or if there are no requests; OutputError if
    `out` exists or cannot be written.
    """
    from pathlib import Path

    from .trace.importing import import_files

    return import_files([Path(log) for log in logs], Path(out))


def inspect(trace: Trace | str | PathLike[str]) -> Inspection:
    """Return the contents of a trace: rates, peaks, routes with their recorded latencies, and statuses.

    `.document` is what `replay inspect --json` prints. Raises InputError if the trace is missing or damaged.
    """
    from .trace.inspection import inspect

    return inspect(_opened(trace))


def transform(
    trace: Trace | str | PathLike[str],
    *,
    out: str | PathLike[str],
    overwrite: bool = False,
    **settings: Unpack[TransformSettings],
) -> Trace:
    """Make the new trace `out` from another: a window, a share, a multiple of it, or a faster one.

    The steps are applied in this order: window, routes, sample, scale, peak, speed, rewrite. Raises UsageError if
    a setting is wrong; InputError if `trace` is missing or damaged, or if no request is left; OutputError if `out`
    exists (unless `overwrite`) or cannot be written.
    """
    from pathlib import Path

    from .plan.transforms import transform_of
    from .settings.file import load
    from .settings.verbs import OF_TRANSFORM, refuse_others, tables_of
    from .workload.transform import transform

    refuse_others("transform", settings, tables_of(OF_TRANSFORM))
    recording = _opened(trace)
    scenario = load(None, settings, {name: name for name in settings})
    return transform(recording, Path(out), transform_of(recording, scenario), overwrite=overwrite)


def run(
    trace: Trace | str | PathLike[str],
    *,
    target: str,
    out: str | PathLike[str],
    sinks: Sequence[Sink | str] = (),
    **settings: Unpack[Settings],
) -> Run:
    """Replay a trace onto `target` into the new run folder `out`, and return the run.

    `sinks` receive each second as it is measured: objects (`replay.engine.sinks.Sink`), or texts such as
    `csv=seconds.csv`. `settings` are those of a scenario file by name (`speed=10`, `methods="all"`,
    `connections=64`, `rate="500/s"`).

    Blocks until the run ends, in any thread, even if an event loop runs in it. In the main thread without an event
    loop, SIGINT and SIGTERM stop the run cleanly. Raises a ReplayError (`replay.errors`) before anything is sent if
    a setting is invalid, the plan exceeds a limit or the target cannot be reached; EngineError if the run fails
    later.
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
        prepared.on_end = _remembered
        prepared.run(out, sinks=[*made, *watching.sinks], start_at_ns=instant_ns)
    return load(out)


def prepare(trace: Trace | str | PathLike[str], *, target: str, **settings: Unpack[Settings]) -> Prepared:
    """Plan a replay without sending anything: `.plans` shows what would be sent, `.run(out)` sends it.

    `settings` are as for `run`. Raises a ReplayError as `run` does.
    """
    from .engine.prepare import prepare
    from .errors import UsageError

    scenario = _scenario(target, settings)
    for name in ("live", "notify", "start_at"):
        if getattr(scenario, name):
            hint = "give it to replay.run; the run method of a prepared run accepts sinks and start_at_ns"
            raise UsageError(
                f"{name}: `prepare` does not start a run, so it does not accept this setting", hint=hint
            )
    prepared = prepare(_opened(trace), scenario)
    prepared.on_end = _remembered
    return prepared


def _remembered(folder: Path) -> None:
    """Record the run in the database of runs, as the commands do; print one line on standard error if that fails."""
    import sys

    from .history.remembering import remember_result

    if problem := remember_result(folder):
        print(problem, file=sys.stderr, flush=True)


def _scenario(target: str, settings: Mapping[str, object]) -> Scenario:
    from .protocols.scenario import load_scenario

    names = {name: name for name in ("target", *settings)}
    return load_scenario(None, {"target": target, **settings}, names)


def load(path: str | PathLike[str]) -> Run:
    """Load the run in the folder `path`, even if it was killed.

    Raises InputError if the run is missing, damaged or still in progress, or of a newer version.
    """
    from .results.run import load_run

    return load_run(path)


def peak(
    trace: Trace | str | PathLike[str],
    *,
    target: str,
    out: str | PathLike[str],
    lowest: float | str = 0.25,
    highest: float | str = 64,
    width: float | str = "2%",
    trial: str | float = "15s",
    hold: str | float = "60s",
    votes: int = 3,
    **settings: Unpack[PeakSettings],
) -> Climb:
    """Find the highest scale of a trace that meets the objectives (`slo`), hold it, and descend again.

    The folder `out` receives the runs and peak.json. `lowest` and `highest` are scales, `trial` and `hold` times;
    see `replay peak --help`. Blocks, as `run` does. Raises a ReplayError if a setting is wrong, and RefusedError
    if the target already refuses most of the lowest load.
    """
    from pathlib import Path

    from .peaks.find import find_in_folder
    from .protocols.scenario import load_scenario
    from .settings.typed import PeakSettings
    from .settings.verbs import refuse_others

    refuse_others("peak", settings, PeakSettings.__annotations__)
    given = {"target": target, **settings}
    scenario = load_scenario(None, given, {name: name for name in given})
    try:
        return find_in_folder(
            _opened(trace), scenario, Path(out), (lowest, highest, width, votes), (trial, hold)
        )
    finally:
        _remembered(Path(out))


def compare(
    base: Runs,
    new: Runs,
    *,
    tolerance: float | str = 0.1,
    error_tolerance: float | str = 0.001,
    metrics: Sequence[str] = (),
    routes: int | Sequence[str] = 5,
    design: Asked = "auto",
    unit: str = "",
    sequential: bool = False,
    labels: tuple[str, str] = ("base", "new"),
) -> Comparison:
    """Judge whether the new build is slower than the base.

    Each side is a run, a folder of runs or a `.hlog` file, or several of them. Tolerances are ratios (0.1) or
    texts ("10%"). `metrics` are names such as p50, p99.9, service.p99 and errors. Raises InputError if a side has
    no runs, UsageError if an option is invalid or a run is given twice.
    """
    from .comparison.given import compare_given

    return compare_given(
        (base, new), labels, tolerance=tolerance, error_tolerance=error_tolerance, metrics=metrics,
        routes=routes, design=design, unit=unit, sequential=sequential,
    )  # fmt: skip


def _opened(trace: Trace | str | PathLike[str]) -> Trace:
    from pathlib import Path

    from .trace import Trace

    return trace if isinstance(trace, Trace) else Trace.open(Path(trace))

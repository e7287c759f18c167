"""`replay run --cluster`: the coordinator of a run over many machines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import EngineError, UsageError

from .streams import tell

if TYPE_CHECKING:
    from replay.cluster.messages import Report
    from replay.cluster.transports import Transport
    from replay.engine.prepare import Prepared
    from replay.engine.sinks import Sink
    from replay.peaks.trial import RunTrial
    from replay.results.document import RunDocument
    from replay.settings.scenario import Scenario


def over_cluster(given: Mapping[str, Any], scenario: Scenario) -> Over:
    """Return the transport that `--cluster` selects.

    UsageError if the transport is unknown, or if a cluster does not support one of the settings. With `k8s:`, print
    the manifest and exit.
    """
    from replay.cluster.clusters import make_transport
    from replay.cluster.transports import Identity
    from replay.cluster.values import check_fits

    check_fits(scenario)
    cluster = given["cluster"]
    kind, _, rest = cluster.partition(":")
    if kind == "k8s":
        _print_manifest(rest, scenario)
        raise SystemExit(0)
    identity = Identity(*(given[f"cluster_{name}"] or "" for name in ("ca", "cert", "key")))
    make = partial(make_transport, cluster, identity)
    return Over(make, make(), given["on_lost"] or "stop")


def trials_over_cluster(
    given: Mapping[str, Any], scenario: Scenario, name: str, sinks: Sequence[Sink]
) -> RunTrial:
    """Return a function that runs one trial of `replay peak --cluster`.

    Each trial is a run of its own, with its own agents. The function raises EngineError if an agent did not send all of
    its share, because the trial then shows nothing about its load. UsageError for `k8s:`, and the errors of
    `over_cluster`.
    """
    if given["cluster"].partition(":")[0] == "k8s":
        raise UsageError(
            "--cluster k8s: prints the manifest of a single run, and replay peak makes several",
            hint="give --cluster listen:HOST:PORT,agents=N",
        )
    over = over_cluster(given, scenario)

    def run(prepared: Prepared, folder: Path) -> RunDocument:
        document = over.run(prepared, name, folder, quiet=True, sinks=sinks)
        for reason in document.validity.reasons:
            if reason.code in ("AGENT_LOST", "AGENT_ENDED_EARLY"):
                raise EngineError(f"a trial is incomplete: {reason.message}", hint=f"its run is in {folder}")
        return document

    return run


def _print_manifest(text: str, scenario: Scenario) -> None:
    """Print the manifest of an Indexed Job whose coordinator gets the arguments of this command."""
    from replay.cluster.kubernetes import manifest, parse_job

    click.echo(manifest(parse_job(text), words_of_run(sys.argv), scenario), nl=False)


def words_of_run(argv: Sequence[str]) -> list[str]:
    """Return the arguments of a `replay run` without those for the cluster (except --on-lost) and the result folder."""
    words = list(argv[argv.index("run") + 1 :]) if "run" in argv else []
    kept: list[str] = []
    skips = False
    for word in words:
        flag = word.partition("=")[0]
        if skips:
            skips = False
        elif flag in (
            "--cluster",
            "-o",
            "--out",
            "--output",
            "--cluster-ca",
            "--cluster-cert",
            "--cluster-key",
        ):
            skips = "=" not in word
        else:
            kept.append(word)
    return kept


@dataclass
class Over:
    """Runs plans over agents, one run after another.

    Each run has its own transport. `first` is that of the first run; `over_cluster` makes it early to check the
    options.
    """

    make: Callable[[], Transport]
    first: Transport | None
    on_lost: Any

    def run(
        self, prepared: Prepared, name: str, folder: Path, *, quiet: bool, start_at_ns: int | None = None,
        sinks: Sequence[Sink] = (),
    ) -> RunDocument:  # fmt: skip
        """Run the plan over the agents, and merge their runs into the new folder.

        `sinks` receive each second of the merged run.
        """
        import trio

        from replay.cluster.broadcast import Broadcast
        from replay.cluster.coordinator import Coordinator
        from replay.cluster.orders import Order
        from replay.cluster.result import merged
        from replay.cluster.transports import make_folder

        agents = folder.with_name(f"{folder.name}.agents")
        broadcast = Broadcast(prepared.scenario, sinks)
        make_folder(agents)
        transport, self.first = self.first or self.make(), None
        order = Order(prepared.trace, name, prepared.scenario, prepared.schedules, self.on_lost, start_at_ns)
        began = False
        try:
            progress = Progress(prepared.plans[0].rows or 0, lambda line: None if quiet else _say(line))
            coordinator = Coordinator(
                order, transport, agents, _quiet if quiet else _say, progress.reported, broadcast
            )
            gathered = trio.run(lambda: coordinator.run(signals=True))
            began = True
            return broadcast.end(merged(gathered, agents, folder), folder)
        finally:
            broadcast.close()
            if not began and not list(agents.glob("agent-*/share.json")):
                shutil.rmtree(agents, ignore_errors=True)


PROGRESS_EVERY_S = 10.0


class Progress:
    """Prints how many requests all agents have sent, every PROGRESS_EVERY_S."""

    def __init__(self, planned: int, say: Callable[[str], object]) -> None:
        self._planned, self._say = planned, say
        self._sent: dict[int, int] = {}
        self._next_s = PROGRESS_EVERY_S

    def reported(self, agent: int, report: Report) -> None:
        """Store how much an agent has sent, and print the sum of all agents if PROGRESS_EVERY_S have passed."""
        self._sent[agent] = report.totals.get("sent", 0)
        if report.at_s >= self._next_s:
            self._next_s = report.at_s + PROGRESS_EVERY_S
            self._say(f"{report.at_s:.0f} s: {sum(self._sent.values()):,} requests sent of {self._planned:,}")


def _say(line: str) -> None:
    tell(line, err=True)


def _quiet(line: str) -> None:
    if line.startswith("LOST"):
        _say(line)

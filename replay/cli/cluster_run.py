"""`replay run --cluster`: the coordinator of a run over many machines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replay.errors import UsageError

from .streams import tell

if TYPE_CHECKING:
    from replay.cluster.transports import Transport
    from replay.engine.prepare import Prepared
    from replay.engine.sinks import Sink
    from replay.results.document import RunDocument
    from replay.settings.scenario import Scenario


def over_cluster(cluster: str, on_lost: str, scenario: Scenario, sinks: Sequence[Sink]) -> Over:
    """What `--cluster` names. UsageError for one that is unknown, or a setting that it does not support."""
    from replay.cluster.transports import make_transport
    from replay.cluster.values import check_fits

    transport = make_transport(cluster)
    check_fits(scenario)
    if sinks:
        raise UsageError("--cluster and --sink do not go together yet", hint="leave one of them out")
    return Over(transport, on_lost)


@dataclass
class Over:
    """The machines of a run."""

    transport: Transport
    on_lost: Any

    def run(self, prepared: Prepared, name: str, folder: Path, *, quiet: bool) -> RunDocument:
        """Run what was planned over the agents, and merge their runs into the new folder."""
        import trio

        from replay.cluster.coordinator import Coordinator, Order
        from replay.cluster.result import merged
        from replay.cluster.transports import make_folder

        agents = folder.with_name(f"{folder.name}.agents")
        make_folder(agents)
        order = Order(prepared.trace, name, prepared.scenario, prepared.schedules, self.on_lost)
        began = False
        try:
            coordinator = Coordinator(order, self.transport, agents, _quiet if quiet else _say)
            gathered = trio.run(lambda: coordinator.run(signals=True))
            began = True
        finally:
            if not began and not list(agents.glob("agent-*/share.json")):
                shutil.rmtree(agents, ignore_errors=True)
        return merged(gathered, agents, folder)


def _say(line: str) -> None:
    tell(line, err=True)


def _quiet(line: str) -> None:
    if line.startswith("LOST"):
        _say(line)

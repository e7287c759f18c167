"""The result of a Kafka recording, and what a reader of the trace must know about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay.trace import Trace
from replay.units import counted

from .cluster import COMMITTED, UNCOMMITTED
from .left_out import LeftOut


@dataclass(slots=True)
class Recording:
    """The result of a recording. `complete` means that every partition was read to its requested end.

    `open_offsets` counts offsets from the first open transaction on, which read_committed does not reach.
    `disordered` has, by `topic/partition`, the number of records with an earlier timestamp than a record at a
    lower offset. `refused` are hosts that the cluster advertised but that are not allowed.
    """

    trace: Trace | None = None
    records: int = 0
    complete: bool = True
    interrupted: bool = False
    isolation: str = COMMITTED
    left_out: LeftOut = field(default_factory=LeftOut)
    open_offsets: int = 0
    disordered: dict[str, int] = field(default_factory=dict)
    refused: tuple[str, ...] = ()

    def remarks(self) -> list[str]:
        """Return lines about records that are not in the trace or are out of order."""
        found = [self._left_out(), self._open(), self._disordered(), self._refused()]
        return [text for text in found if text]

    def _left_out(self) -> str:
        aborted, markers = self.left_out.aborted_records, self.left_out.control_batches
        if not aborted and not markers:
            return ""
        control = counted(markers, "control batch", "control batches")
        if self.isolation != COMMITTED:
            return f"left out: {control}; records of open and aborted transactions are recorded"
        return (
            f"left out: {counted(aborted, 'record')} of aborted transactions"
            f" (--isolation {UNCOMMITTED} records them), {control}"
        )

    def _open(self) -> str:
        if not self.open_offsets:
            return ""
        return (
            f"not read: {counted(self.open_offsets, 'offset')} from the first open transaction on;"
            " --resume reads them once it has ended"
        )

    def _disordered(self) -> str:
        count = sum(self.disordered.values())
        if not count:
            return ""
        where = ", ".join(f"{name} ({count:,})" for name, count in self.disordered.items())
        stamped = "is stamped" if count == 1 else "are stamped"
        return (
            f"out of time order: {counted(count, 'record')} {stamped} earlier than a record at a lower offset,"
            f" in {where}; a replay keeps time order, not offset order"
        )

    def _refused(self) -> str:
        if not self.refused:
            return ""
        return (
            f"not read from {', '.join(self.refused)}: advertised by the cluster, but not listed in --allow"
        )

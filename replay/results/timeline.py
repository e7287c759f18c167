"""A row of `timeline.jsonl`: one second of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from replay.ledger.catalog import EACH_SECOND_COUNTERS, FIGURES
from replay_native.ledger.hdr_layout import HIGHEST_NS


class _Accounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields of a row that do not depend on the catalog: time, requests by account, connections."""

    t_s: float
    length_s: float
    wall_ns: int
    planned: int
    sent: int
    ok: int
    error: int
    timeout: int
    unsent: int
    in_flight: int
    waiting: int
    open: int
    bytes_sent: int
    bytes_received: int
    unsent_of_target: int = 0
    outcomes: dict[str, int] = {}
    outcomes_measured: dict[str, int] | None = None
    status_worse: int = 0
    unknown_4xx: int = 0
    lag: dict[str, int] = {}
    watched: dict[str, float | None] = {}
    actions: dict[str, tuple[int, int]] = {}

    def figure_ns(self, name: str) -> tuple[int, bool] | None:
        """Return the percentile of this name, and whether it is a lower bound; None if nothing ended."""
        value: int | None = getattr(self, name)
        return None if value is None else (min(value, HIGHEST_NS), value >= HIGHEST_NS)

    @property
    def measured(self) -> dict[str, int]:
        """Outcomes without the warm-up."""
        return self.outcomes if self.outcomes_measured is None else self.outcomes_measured


_MEANING = """One row of the timeline: the `length_s` seconds from `t_s` (since the start).

    Each event counts in the second in which it happens: a request is planned when it is due, and ok when its response
    is complete. Percentiles cover the requests that ended in the second; null if none did. A value of an hour or more
    is a lower bound, because histograms end there. `outcomes_measured` are the outcomes without the warm-up, if they
    differ. `status_worse` counts responses with a worse status than recorded, and `unknown_4xx` responses with a 4xx
    if the recording has no status; both without the warm-up. `unsent_of_target` counts requests in `unsent` that were
    not sent because of the target. `lag` is the lag of the Kafka consumer in records, by partition. `watched` holds
    the newest samples of watched figures; null if there is none. `actions` holds, by business action, the number of
    requests that ended and how many of them failed (docs/actions.md), without the warm-up.
    """

if TYPE_CHECKING:

    class Second(_Accounts, frozen=True, kw_only=True):
        """One second of a run.

        The other fields follow from the catalog, so a type checker knows the type of percentiles but not their names.
        """

        handshakes_full: int
        handshakes_resumed: int
        handshakes_failed: int

        def __init__(self, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> int | None: ...

else:
    Second = msgspec.defstruct(
        "Second",
        [
            *((name, int, 0) for name in EACH_SECOND_COUNTERS),
            *((name, int | None, None) for name in FIGURES),
        ],
        bases=(_Accounts,),
        frozen=True,
        kw_only=True,
        omit_defaults=True,
        module=__name__,
        namespace={"__doc__": _MEANING},
    )

"""The messages of notifications, as a sink of the run. Chat services show `text`; the other keys are for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.failures import failures_of
from replay.results.latencies import Latency
from replay.results.so_far import SoFar
from replay.results.standing import StandingNow
from replay.results.timeline import Second
from replay.shown import shown
from replay.units import counted, format_duration, format_latency

Message = dict[str, Any]

ACTIONS_SHOWN = 5
"""Maximum number of business actions with a sentence in a message."""


class Notifications:
    """A sink that passes messages to `send`.

    For a command with many runs (`peak`, `ab`) there is at most one message of each kind: the start of the first run, the
    first breach in any of them, its recovery, and the end of the last one. `finish` sends the last message, when the
    command ends.
    """

    name = "notify"

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._so_far: SoFar | None = None
        self._started: Started | None = None
        self._document: RunDocument | None = None
        self._runs = 0
        self._breach = ""
        self._has_recovered = False

    def start(self, started: Started) -> None:
        """Send the message on the start of the first run."""
        self._so_far, self._started, self._document = SoFar(started), started, None
        self._runs += 1
        if self._runs > 1:
            return
        rows, length_ns = started.plan.get("rows"), started.plan.get("length_ns")
        words = f"run {started.run_id} against {started.target} starts"
        words += f": {counted(rows, 'request')}" if isinstance(rows, int) else ""
        words += f" in {format_duration(length_ns)}" if isinstance(length_ns, int) and length_ns else ""
        self._say("start", words, rows=rows)

    def second(self, second: Second, deltas: Deltas) -> None:
        """Send messages on the first breach, and on the recovery from it."""
        assert self._so_far is not None
        standings = self._so_far.take(second, deltas)
        at_s = round(second.t_s + second.length_s, 3)
        missed = [each for each in standings if each.met_now is False]
        if missed and not self._breach:
            self._breach = missed[0].text
            self._say_breach(missed, at_s)
        elif (
            self._breach and not self._has_recovered and standings and all(each.met_now for each in standings)
        ):
            self._has_recovered = True
            words = f"every objective is met again, {_after(at_s)}; the first breach was of {self._breach}"
            business = self._so_far.business_sentences[:ACTIONS_SHOWN]
            self._say("recovery", "; ".join([words, *business]), at_s=at_s, business=business)

    def _say_breach(self, missed: list[StandingNow], at_s: float) -> None:
        each = ", ".join(f"{standing.text}: {standing.now}" for standing in missed)
        assert self._so_far is not None
        business = self._so_far.business_sentences[:ACTIONS_SHOWN]
        self._say(
            "breach",
            "; ".join([f"breach {_after(at_s)}: {each}", *business]),
            at_s=at_s,
            slo=[standing.text for standing in missed],
            business=business,
        )

    def end(self, document: RunDocument) -> None:
        """Keep the document of a run, which has ended and is saved."""
        self._document = document

    def close(self) -> None:
        """Do nothing: `finish` sends the last message."""

    def finish(self, *, is_cancelled: bool = False) -> None:
        """Send the message about the end of the command, unless no run began."""
        document = self._document
        if self._started is None:
            return
        if document is None:
            self._say("end", f"run {self._started.run_id} ended without a result")
            return
        ending, failed = document.ending, failures_of(document)
        latency = document.latency.service if document.closed_loop else document.latency.response
        p99 = f", p99 {format_latency(latency.p99_ns)}" if isinstance(latency, Latency) else ""
        runs = f" (the last of {self._runs} runs)" if self._runs > 1 else ""
        words = (
            f"run {document.run_id}{runs} ended after {format_duration(round(document.duration_s * 1e9))}:"
        )
        words += f" {document.validity.verdict}, {document.accounts.sent:,} sent{p99}"
        words += f"; {ending.detail or ending.how}" if ending.how != "whole" else ""
        words += f"; {'; '.join(failed)}" if failed else ""
        words += "; the command was interrupted" if is_cancelled and ending.how == "whole" else ""
        business = (
            []
            if document.business is None
            else [one.words for one in document.business.actions if one.failed]
        )
        words = "; ".join([words, *business[:ACTIONS_SHOWN]])
        verdict = document.validity.verdict
        self._say(
            "end",
            words,
            verdict=verdict,
            ending=ending.how,
            failed=failed,
            runs=self._runs,
            business=business,
        )

    def _say(self, event: str, words: str, **more: Any) -> None:
        assert self._started is not None
        facts = {"event": event, "run_id": self._started.run_id, "target": self._started.target, **more}
        self._send({"text": escaped(f"replay: {words}"), **facts})


def _after(at_s: float) -> str:
    return f"{format_duration(round(at_s) * 10**9)} after the start"


def escaped(text: str) -> str:
    """Return text from outside in a form that Slack shows without links, mentions and hidden characters."""
    return shown(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

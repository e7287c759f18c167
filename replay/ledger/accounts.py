"""The accounts of a run: every planned request is in exactly one place, and the sums say so.

`docs/lane-contract.md` states the two identities; a run that breaks them is a fault of this program.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from replay_native.ledger.lane_metrics import (
    COUNTERS,
    FIRST_OUTCOME,
    N_OUTCOMES,
    OUTCOMES,
)

AT = {name: index for index, name in enumerate(COUNTERS)}
"""Where each counter stands in a lane's `counters`."""

OK = ("2xx", "3xx", "4xx", "5xx")
ERRORS = ("refused", "reset", "truncated", "malformed", "generator", "rejected", "tls")
UNSENT_REASONS = ("max_wait", "interrupted", "limit", "capture")
UNSENT_OF_TARGET = ("max_wait", "limit")
"""Reasons for which the target is to blame, but for the requests of `unsent_own`."""


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of requests. planned = sent + unsent; sent = ok + error + timeout + in_flight.

    `ok` is a whole answer of any status; `error` is no whole answer. `skipped` requests stand outside
    `planned`.
    """

    planned: int = 0
    skipped: int = 0
    sent: int = 0
    unsent: int = 0
    ok: int = 0
    error: int = 0
    timeout: int = 0
    in_flight: int = 0


class AccountsDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What the accounts consist of. `warm_up` of the planned requests are in no histogram; `resent` ones went
    out twice.
    """

    unsent: dict[str, int] = {}
    error: dict[str, int] = {}
    skipped: dict[str, int] = {}
    status_class: dict[str, int] = {}
    resent: int = 0
    warm_up: int = 0


def unsent_of_target(words: np.ndarray) -> int:
    """Of a lane's counters, or of differences of them: the requests that the target kept from being sent."""
    return int(sum(words[AT[f"unsent_{reason}"]] for reason in UNSENT_OF_TARGET) - words[AT["unsent_own"]])


class Unbalanced(Exception):
    """The accounts do not balance: a fault of this program. The message holds the sums."""


def sum_counters(counters: Sequence[np.ndarray]) -> dict[str, int]:
    """The sum over lanes of each counter (one array a lane), by name. Sums of stamps say nothing."""
    rows = np.array([np.array(words) for words in counters], np.int64).reshape(-1, len(COUNTERS))
    return {name: int(rows[:, index].sum()) for name, index in AT.items()}


def lanes_cpu_ns(counters: Sequence[np.ndarray]) -> int:
    """CPU time of all lanes from the first due to the last done, by their threads' clocks."""
    return sum(max(int(words[AT["cpu_last_ns"]]) - int(words[AT["cpu_first_ns"]]), 0) for words in counters)


def balance(
    counters: Sequence[np.ndarray], *, skipped: dict[str, int] | None = None, killed: bool = False
) -> tuple[Accounts, AccountsDetail]:
    """Sum the lanes' counters and check both identities.

    A killed run may have stopped between two words of one request: what is not settled goes to `in_flight`,
    or to `unsent` (interrupted) where it was planned but never sent. Raises Unbalanced where more is amiss
    than that.
    """
    words = [np.array(lane, np.int64) for lane in counters]
    if killed:
        words = [_settled(lane) for lane in words]
    by_name = sum_counters(words)
    skipped = {reason: n for reason, n in (skipped or {}).items() if n}
    unsent = {reason: by_name[f"unsent_{reason}"] for reason in UNSENT_REASONS}
    accounts = Accounts(
        skipped=sum(skipped.values()),
        unsent=sum(unsent.values()),
        **{name: by_name[name] for name in ("planned", "sent", "ok", "error", "timeout", "in_flight")},
    )
    detail = AccountsDetail(
        unsent=unsent,
        error={name: by_name[f"outcome_{name}"] for name in ERRORS},
        skipped=skipped,
        status_class={name: by_name[f"outcome_{name}"] for name in OK},
        resent=by_name["resent"],
        warm_up=by_name["warm_up"],
    )
    _check(accounts, detail, by_name)
    return accounts, detail


def _outcomes(words: np.ndarray) -> dict[str, int]:
    return dict(zip(OUTCOMES, map(int, words[FIRST_OUTCOME : FIRST_OUTCOME + N_OUTCOMES]), strict=True))


def _settled(words: np.ndarray) -> np.ndarray:
    """One lane's counters with the request that it was killed in put where it belongs. Outcomes are the
    truth.
    """
    outcomes = _outcomes(words)
    unsettled = max(
        abs(sum(outcomes[name] for name in OK) - int(words[AT["ok"]])),
        abs(sum(outcomes[name] for name in ERRORS) - int(words[AT["error"]])),
        abs(outcomes["timeout"] - int(words[AT["timeout"]])),
        abs(outcomes["unsent"] - sum(int(words[AT[f"unsent_{reason}"]]) for reason in UNSENT_REASONS)),
    )
    if unsettled > 1:
        raise Unbalanced(f"{unsettled} requests of one lane are counted in one word but not in the other")
    words = words.copy()
    words[AT["ok"]] = sum(outcomes[name] for name in OK)
    words[AT["error"]] = sum(outcomes[name] for name in ERRORS)
    words[AT["timeout"]] = outcomes["timeout"]
    ended = int(words[AT["ok"]] + words[AT["error"]] + words[AT["timeout"]])
    words[AT["sent"]] = max(int(words[AT["sent"]]), ended)
    words[AT["in_flight"]] = int(words[AT["sent"]]) - ended
    unsent = sum(int(words[AT[f"unsent_{reason}"]]) for reason in UNSENT_REASONS)
    missing = int(words[AT["planned"]]) - int(words[AT["sent"]]) - unsent
    if missing < -1:
        raise Unbalanced(f"a lane sent {-missing} requests more than were planned")
    if missing >= 0:
        words[AT["unsent_interrupted"]] += missing
        words[FIRST_OUTCOME + OUTCOMES.index("unsent")] = unsent + missing
    else:
        words[AT["planned"]] = int(words[AT["sent"]]) + unsent
        words[FIRST_OUTCOME + OUTCOMES.index("unsent")] = unsent
    return words


def _check(accounts: Accounts, detail: AccountsDetail, by_name: dict[str, int]) -> None:
    ended = accounts.ok + accounts.error + accounts.timeout + accounts.in_flight
    sums = (
        ("planned", accounts.planned, "sent + unsent", accounts.sent + accounts.unsent),
        ("sent", accounts.sent, "ok + error + timeout + in_flight", ended),
        ("ok", accounts.ok, "the sum of its status classes", sum(detail.status_class.values())),
        ("error", accounts.error, "the sum of its outcomes", sum(detail.error.values())),
        ("unsent", accounts.unsent, "its outcome", by_name["outcome_unsent"]),
        ("timeout", accounts.timeout, "its outcome", by_name["outcome_timeout"]),
    )
    wrong = [f"{name} is {value}, {what} {other}" for name, value, what, other in sums if value != other]
    if accounts.in_flight < 0:
        wrong.append(f"in_flight is {accounts.in_flight}")
    if wrong:
        raise Unbalanced("the accounts do not balance: " + "; ".join(wrong))

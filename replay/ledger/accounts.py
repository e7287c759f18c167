"""The accounts of a run: every planned request is in exactly one of them.

Two identities, which `docs/lane-contract.md` states, verify this. A run that violates them reveals a bug in replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from replay_native.ledger.catalog import COUNTERS

from . import catalog
from .catalog import ERRORS, OK

AT = {name: index for index, name in enumerate(COUNTERS)}
"""The index of each counter in a lane's `counters`."""

UNSENT_REASONS = tuple(reason.name for reason in catalog.UNSENT_REASONS)

_UNSENT = [AT[reason.counter] for reason in catalog.UNSENT_REASONS]
_UNSENT_OF_TARGET = [AT[reason.counter] for reason in catalog.UNSENT_REASONS if reason.of_target]
_OUTCOMES_OF = {
    account: [AT[outcome.counter] for outcome in catalog.OUTCOMES if outcome.account == account]
    for account in ("ok", "error", "timeout", "unsent")
}
"""For each account, the indices of its outcomes' counters."""

_LARGEST = [counter.name for counter in catalog.COUNTERS if counter.kind == "longest"]
COUNTED = ("planned", "sent", "ok", "error", "timeout", "in_flight")
"""The accounts for which a lane has one counter each."""


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of requests, for which two identities hold.

    They are planned = sent + unsent + unknown, and sent = ok + error + timeout + in_flight. `ok` requests have a
    complete response of any status; `error` requests have none. `skipped` requests are not part of `planned`. Only a
    run over several machines has `unknown` requests: they were due between the last report of a lost agent and its
    death, so that nobody knows whether they were sent.
    """

    planned: int = 0
    skipped: int = 0
    sent: int = 0
    unsent: int = 0
    ok: int = 0
    error: int = 0
    timeout: int = 0
    in_flight: int = 0
    unknown: int | msgspec.UnsetType = msgspec.UNSET


class AccountsDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the accounts, by reason, outcome or status class.

    `warm_up` counts the planned requests that are in no histogram. `resent` counts sends that were repeated on a new
    connection, because the target had closed an idle one.
    """

    unsent: dict[str, int] = {}
    error: dict[str, int] = {}
    skipped: dict[str, int] = {}
    status_class: dict[str, int] = {}
    resent: int = 0
    warm_up: int = 0


def with_rest(
    accounts: Accounts, detail: AccountsDetail, unsent: Mapping[str, int], unknown: int
) -> tuple[Accounts, AccountsDetail]:
    """Return the accounts and their parts, including the planned requests that no lane counted.

    `unsent` counts those that were not sent, by reason. `unknown` is the number of those that may or may not have
    been sent.
    """
    added = sum(unsent.values())
    whole = msgspec.structs.replace(
        accounts,
        planned=accounts.planned + added + unknown,
        unsent=accounts.unsent + added,
        unknown=(accounts.unknown or 0) + unknown,
    )
    return whole, msgspec.structs.replace(detail, unsent=detail.unsent | dict(unsent))


def unsent(words: np.ndarray) -> int:
    """Return how many requests were not sent, for any reason.

    `words` are the counters of a lane, or the difference between two readings of them.
    """
    return int(words[_UNSENT].sum())


def unsent_of_target(words: np.ndarray) -> int:
    """Return how many requests were not sent because of the target.

    `words` are the counters of a lane, or the difference between two readings of them.
    """
    return int(words[_UNSENT_OF_TARGET].sum() - words[AT["unsent_own"]])


class Unbalanced(Exception):
    """The accounts do not balance, which is a bug in replay."""


def sum_counters(counters: Sequence[np.ndarray]) -> dict[str, int]:
    """Return each counter by name, summed over all lanes (one array per lane).

    A counter of the kind `longest` is the largest over all lanes. The sum of a counter of the kind `stamp` has no
    meaning.
    """
    rows = np.array([np.array(words) for words in counters], np.int64).reshape(-1, len(COUNTERS))
    sums = dict(zip(COUNTERS, rows.sum(axis=0).tolist(), strict=True))
    return sums | {name: int(rows[:, AT[name]].max(initial=0)) for name in _LARGEST}


def lanes_cpu_ns(counters: Sequence[np.ndarray]) -> int:
    """Return the CPU time of all lanes in ns, each from its first due request to its end."""
    return sum(max(int(words[AT["cpu_last_ns"]]) - int(words[AT["cpu_first_ns"]]), 0) for words in counters)


def balance(
    counters: Sequence[np.ndarray], *, skipped: dict[str, int] | None = None, killed: bool = False
) -> tuple[Accounts, AccountsDetail]:
    """Sum the lanes' counters and check both identities.

    Raises Unbalanced if they do not hold. If `killed`, each lane may have stopped between two counters of one
    request, which `settled` then assigns to one account.
    """
    words = [np.array(lane, np.int64) for lane in counters]
    if killed:
        words = [settled(lane) for lane in words]
    by_name = sum_counters(words)
    skipped = {reason: n for reason, n in (skipped or {}).items() if n}
    reasons = {reason.name: by_name[reason.counter] for reason in catalog.UNSENT_REASONS}
    accounts = Accounts(
        skipped=sum(skipped.values()),
        unsent=sum(reasons.values()),
        **{name: by_name[name] for name in COUNTED},
    )
    detail = AccountsDetail(
        unsent=reasons,
        error={name: by_name[f"outcome_{name}"] for name in ERRORS},
        skipped=skipped,
        status_class={name: by_name[f"outcome_{name}"] for name in OK},
        resent=by_name["resent"],
        warm_up=by_name["warm_up"],
    )
    _check(accounts, detail, by_name)
    return accounts, detail


def settled(words: np.ndarray) -> np.ndarray:
    """Return the counters of a killed lane after the request that was being counted is assigned to one account.

    The counters by outcome decide; for unsent requests, the counters by reason. A request without either is
    `in_flight` if it was sent, and otherwise unsent (interrupted). Raises Unbalanced if more than one request is
    inconsistent.
    """
    by_outcome = {account: int(words[columns].sum()) for account, columns in _OUTCOMES_OF.items()}
    counted = {account: int(words[AT[account]]) for account in ("ok", "error", "timeout")} | {
        "unsent": unsent(words)
    }
    unsettled = max(abs(by_outcome[account] - counted[account]) for account in by_outcome)
    if unsettled > 1:
        raise Unbalanced(
            f"{unsettled} requests of one lane are in one of their counters but not in the other"
        )
    words = words.copy()
    for account in ("ok", "error", "timeout"):
        words[AT[account]] = by_outcome[account]
    ended = by_outcome["ok"] + by_outcome["error"] + by_outcome["timeout"]
    words[AT["sent"]] = max(int(words[AT["sent"]]), ended)
    words[AT["in_flight"]] = int(words[AT["sent"]]) - ended
    missing = int(words[AT["planned"]]) - int(words[AT["sent"]]) - counted["unsent"]
    if missing < -1:
        raise Unbalanced(f"a lane counts {-missing} more requests as sent or unsent than as planned")
    if missing >= 0:
        words[AT["unsent_interrupted"]] += missing
    else:
        words[AT["planned"]] = int(words[AT["sent"]]) + counted["unsent"]
    words[AT["outcome_unsent"]] = unsent(words)
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

"""The requests of a generated trace: expanded templates, and their weights."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.errors import InputError, UsageError
from replay.trace import Trace, TraceWriter
from replay_native.ground.jit import warm
from replay_native.trace import dictionary
from replay_native.workload import mixes

from .recipe import RequestRule

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MIX_MAX = 1 << 20
"""Only the first 2^20 distinct requests of a trace are used."""

_PLACEHOLDER = re.compile(r"\{(id|uuid|email)\}")


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The requests of a generated trace: the writer's id, weight and recorded response of each entry.

    Unknown fields of a response are -1.
    """

    ids: npt.NDArray[np.uint32]
    weights: Floats
    status: Int64s
    took_ns: Int64s
    bytes: Int64s


def alias_of(weights: Floats, where: str) -> mixes.Alias:
    """Build the alias table of weights. UsageError if all weights are 0."""
    if not weights.sum() > 0:
        raise UsageError(f"{where}: every weight is 0", hint="give one of them a weight above 0")
    warm(["workload.mixes"])
    share, alias = np.empty(len(weights)), np.empty(len(weights), np.int64)
    mixes.build_alias(weights, share, alias, np.empty(len(weights), np.int64))
    return mixes.Alias(share, alias)


def _filled(template: str, seed: int, number: int) -> str:
    """Return a template with its placeholders filled in for variant `number`."""

    def value(match: re.Match[str]) -> str:
        if match[1] == "id":
            return str(number + 1)
        digest = hashlib.blake2b(f"{seed} {number} {match[1]}".encode(), digest_size=16).digest()
        return (
            str(uuid.UUID(bytes=digest, version=4)) if match[1] == "uuid" else f"u{digest.hex()}@example.com"
        )

    return _PLACEHOLDER.sub(value, template)


def _variants(writer: TraceWriter, rule: RequestRule, seed: int) -> list[int]:
    """Add the requests of a rule to the writer, and return their ids."""
    if not rule.path.startswith("/") or not all("!" <= character <= "~" for character in rule.path):
        raise UsageError(
            f"{rule.path!r} is not a path",
            hint="write it like /users/{id}: visible ASCII characters, starting with a slash",
        )
    count = rule.ids if _PLACEHOLDER.search(rule.path + (rule.body or "")) else 1
    kind = ((b"Content-Type", rule.content_type.encode()),) if rule.body is not None else None
    return [
        writer.add_request(
            rule.method,
            _filled(rule.path, seed, number).encode(),
            headers=kind,
            body=None if rule.body is None else _filled(rule.body, seed, number).encode(),
        )
        for number in range(count)
    ]


def of_rules(writer: TraceWriter, rules: Sequence[RequestRule], seed: int) -> tuple[Catalogue, Int64s]:
    """Add the requests of all rules to the writer.

    Returns their catalogue, and the start of each rule's requests in it (int64[rules + 1]).
    """
    ids, weights, begins = list[int](), list[Floats](), [0]
    answers: list[tuple[int, int, int]] = []
    for rule in rules:
        variants = _variants(writer, rule, seed)
        ids += variants
        begins.append(len(ids))
        popularity = np.arange(1, len(variants) + 1, dtype=np.float64) ** -rule.zipf
        weights.append(rule.weight * popularity / popularity.sum())
        took = -1 if rule.took_ns is None else int(rule.took_ns)
        answers += [(rule.status, took, rule.bytes)] * len(variants)
    columns = np.array(answers, np.int64).reshape(-1, 3)
    catalogue = Catalogue(
        np.array(ids, np.uint32), np.concatenate(weights), *(columns[:, place].copy() for place in range(3))
    )
    return catalogue, np.array(begins, np.int64)


def of_trace(writer: TraceWriter, trace: Trace) -> Catalogue:
    """Add the requests of a trace to the writer, and return their catalogue, weighted by their frequency.

    Requests beyond the first MIX_MAX are left out, and so are recorded responses. InputError if the trace is empty.
    """
    if not trace.rows:
        raise InputError(f"{trace.path} holds no requests: there is nothing to draw from")
    warm(["trace.dictionary"])
    counts = np.zeros(min(trace.manifest.requests, MIX_MAX), np.int64)
    for batch in trace.batches():
        dictionary.tally(batch.request, counts)
    requests, wanted = trace.requests, np.flatnonzero(counts)
    ids = []
    for number in wanted.tolist():
        asked = requests.get(number)
        ids.append(
            writer.add_request(
                requests.methods[asked.method],
                asked.target,
                requests.hosts[asked.host] if asked.host >= 0 else None,
                requests.headers(asked.headers) if asked.headers >= 0 else None,
                requests.body(asked.body) if asked.body >= 0 else None,
            )
        )
    unknown = np.full(len(ids), -1, np.int64)
    return Catalogue(np.array(ids, np.uint32), counts[wanted].astype(np.float64), unknown, unknown, unknown)

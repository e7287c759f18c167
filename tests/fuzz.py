"""`make fuzz`: the property tests at length, 100,000 cases each, 5,000 of damage. Ends with 1 after a complaint.

`python -m tests.fuzz NAME...` runs those whose names have one of these words in them. Each run tries other cases;
`--from SEED` tries those of a run that named this seed first.
"""

from __future__ import annotations

import functools
import secrets
import sys
import time
from collections.abc import Callable

from replay_native.ground import jit

from .oracles import (
    damage_oracle,
    format_oracle,
    framing_oracle,
    http1_oracle,
    log_oracle,
    recordbatch_oracle,
)

CASES = 100_000

DAMAGE = "damage to a"
DAMAGE_CASES = 5_000
"""Each runs two whole commands."""

FUZZERS: dict[str, Callable[[int], str]] = {
    "http1 against h11": http1_oracle.one_case,
    "log scanner against its twin": log_oracle.one_case,
    "log scanner's secrets against the cleaner": log_oracle.target_case,
    **{
        f"{name} on mutated files": functools.partial(format_oracle.one_case, name=name)
        for name in format_oracle.SEEDS
    },
    "csv records against the standard library": format_oracle.records_case,
    "csv records cut by blocks": format_oracle.cut_case,
    "record batches against aiokafka": recordbatch_oracle.one_case,
    ".gor records at once and one by one": format_oracle.gor_case,
    **{
        f"{DAMAGE} {kind}": functools.partial(damage_oracle.one_case, kind=kind)
        for kind in damage_oracle.VERBS
    },
    "JSON cutter against the standard library": format_oracle.json_case,
    "JSON lines together and alone": format_oracle.alike_case,
    "pairs against plain Python": format_oracle.pairs_case,
    "JSON lines with headers in any order": format_oracle.orders_case,
    "recording proxy's requests against h11": framing_oracle.request_case,
    "recording proxy's responses on mutated bytes": framing_oracle.response_case,
}
"""What is fuzzed: a name, and a function from a seed to a complaint (or nothing)."""


def _fuzz(name: str, first: int) -> bool:
    """Run a fuzzer from a seed on, until its first complaint; whether there was none."""
    started = time.monotonic()
    cases = DAMAGE_CASES if name.startswith(DAMAGE) else CASES
    for seed in range(first, first + cases):
        try:
            complaint = FUZZERS[name](seed)
        except Exception as error:
            complaint = repr(error)
        if complaint:
            print(f"{name}: seed {seed} (again by --from {seed}): {complaint}", flush=True)
            return False
    print(f"{name}: {cases:,} cases agree ({time.monotonic() - started:,.0f} s)", flush=True)
    return True


def main() -> int:
    """Run every fuzzer, or those asked for."""
    jit.warm(["ground.shared", "ledger.hdr", "http1.parser", "kafka.recordbatch"])
    words, first = sys.argv[1:], secrets.randbelow(1 << 40)
    if words[:1] == ["--from"]:
        words, first = words[2:], int(words[1])
    asked = [name for name in FUZZERS if not words or any(word in name for word in words)]
    print(f"from seed {first}", flush=True)
    complaints = [name for name in asked if not _fuzz(name, first)]
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())

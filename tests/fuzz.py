"""`make fuzz`: the property tests at length, 100,000 cases each. Ends with 1 and the seed at the first complaint."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from replay_native import jit

from . import format_oracle, http1_oracle, log_oracle, recordbatch_oracle

CASES = 100_000

FUZZERS: dict[str, Callable[[int], str]] = {
    "http1 against h11": http1_oracle.one_case,
    "log scanner against its twin": log_oracle.one_case,
    **{
        f"{name} on mutated files": functools.partial(format_oracle.one_case, name=name)
        for name in format_oracle.SEEDS
    },
    "record batches against aiokafka": recordbatch_oracle.one_case,
    ".gor records at once and one by one": format_oracle.gor_case,
    "JSON cutter against the standard library": format_oracle.json_case,
    "JSON lines together and alone": format_oracle.alike_case,
    "JSON lines with headers in any order": format_oracle.orders_case,
}
"""What is fuzzed: a name, and a function from a seed to a complaint (or nothing)."""


def main() -> int:
    """Run every fuzzer."""
    jit.warm(["shared", "hdr", "http1", "recordbatch"])
    for name, one_case in FUZZERS.items():
        for seed in range(CASES):
            if complaint := one_case(seed):
                print(f"{name}: seed {seed}: {complaint}")
                return 1
        print(f"{name}: {CASES:,} cases agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())

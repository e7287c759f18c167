"""A service of known capacity: requests wait for one of k servers, each with a fixed service time (M/D/k).

With `--retries` it shows the retry storm of a service that calls another one with a short timeout: work that
takes longer than `--patience` is requested again, while the servers still process the abandoned request. It is a
sink with servers, so its responses are accurate to microseconds. As a separate process (`python -m
replay.staging.queue`), it prints its port, and ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from replay import units
from replay.errors import ReplayError

from .sink import Servers, Sink


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a process until standard input is closed, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--service", type=units.parse_duration_ns, default="20ms")
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--patience", type=units.parse_duration_ns, default="1s")
    parser.add_argument(
        "--spin", action="store_true", help="never sleep, so that no answer waits for a wake-up"
    )
    given = parser.parse_args(arguments)
    try:
        servers = Servers(given.servers, given.service, given.retries, given.patience)
        with Sink(port=given.port, servers=servers, spin=given.spin) as sink:
            print(sink.port, flush=True)
            sys.stdin.read()
    except ReplayError as error:
        print(f"queue: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())

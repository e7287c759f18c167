"""Whether the twin's queue obeys the formulas of queues, on a virtual clock and in real time.

    python -m benchmarks.queues               # M/M/k and M/D/k: 10 seeds of 1,000,000 customers for each cell
    python -m benchmarks.queues --real        # M/M/4 at utilization 0.6 in real time, for 120 s

A cell on the virtual clock agrees if utilization, mean wait and p99 of the wait are within 2% of the formula. The standard
error over the seeds is printed beside each. A figure decides nothing if three standard errors exceed 2%.

The cell in real time is a service of a twin with exponential times and Poisson arrivals. Its timers end late. Their mean
lateness is measured, and lengthens each service. So the mean wait must lie between that of the formula for the requested
service time, and that for the lengthened one plus one lateness, because a worker is also released late. It may exceed
these bounds by its 99% batch-means interval. If the mean lateness is more than 5% of a service, the cell decides nothing:
on a machine that delays the process, lateness occurs in bursts, and the bounds do not hold. `chrt -r 1` before the command
gives it priority over other programs.

The exit code is 1 if a cell disagrees or decides nothing.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from functools import partial
from itertools import repeat
from typing import NamedTuple

import trio

from replay.staging.twin.clock import clock_ns
from replay.staging.twin.virtual import drive, exponential_ns
from replay.staging.twin.wire import Request
from tests.reference.queues import Truth, md_k, mm_k
from tests.support.twins import hosted

SERVICE_NS = 1_000_000
UNBOUNDED = 10**9
WITHIN = 0.02
CELLS = (("M", 1, 0.6), ("M", 4, 0.7), ("M", 8, 0.7), ("D", 1, 0.6), ("D", 4, 0.7), ("D", 8, 0.7))

REAL_WORKERS, REAL_UTILIZATION, REAL_SERVICE_S = 4, 0.6, 0.020
LATE_SHARE = 0.05
BATCHES = 20
T_99 = 2.861
"""Student's t for 19 degrees of freedom, 99% two-sided."""


class Figure(NamedTuple):
    """The ratio of a figure to its formula, with its standard error over the seeds."""

    name: str
    ratio: float
    error: float

    @property
    def agrees(self) -> bool:
        """Whether the ratio is within the limit, and its error small enough to decide."""
        return abs(self.ratio - 1) <= WITHIN and 3 * self.error <= WITHIN


def cell(kind: str, workers: int, utilization: float, seeds: int, customers: int) -> list[Figure]:
    """Return the figures of one cell; `kind` is "M" (exponential service) or "D" (fixed service)."""
    truth = mm_k(workers, utilization) if kind == "M" else md_k(workers, utilization)
    runs = [run(kind, workers, utilization, seed, customers) for seed in range(1, seeds + 1)]
    figures = []
    for name in Truth.__dataclass_fields__:
        ratios = [getattr(each, name) / getattr(truth, name) for each in runs]
        figures.append(Figure(name, statistics.fmean(ratios), statistics.stdev(ratios) / math.sqrt(seeds)))
    return figures


def run(kind: str, workers: int, utilization: float, seed: int, customers: int) -> Truth:
    """Simulate one seed; return the utilization, and the waits in units of the service time."""
    times = exponential_ns(SERVICE_NS, 1_000_000 + seed) if kind == "M" else repeat(SERVICE_NS)
    service_ns = partial(next, times)
    gap_ns = SERVICE_NS / (workers * utilization)
    seen = drive(workers, UNBOUNDED, gap_ns, service_ns, customers, seed)
    return Truth(seen.utilization, seen.mean_wait_ns / SERVICE_NS, seen.p99_wait_ns / SERVICE_NS)


def on_the_virtual_clock(kinds: str, seeds: int, customers: int) -> bool:
    """Print the cells of these kinds, and return whether all agree."""
    print(f"{seeds} seeds of {customers:,} customers each; ratio to the formula (standard error)")
    agree = True
    for kind, workers, utilization in (each for each in CELLS if each[0] in kinds):
        figures = cell(kind, workers, utilization, seeds, customers)
        agree = agree and all(figure.agrees for figure in figures)
        words = "  ".join(f"{f.name} {f.ratio:.4f} ({f.error:.4f})" for f in figures)
        differs = any(abs(f.ratio - 1) > WITHIN >= 3 * f.error for f in figures)
        verdict = (
            "DISAGREES" if differs else "agrees" if all(f.agrees for f in figures) else "decides nothing"
        )
        print(f"M/{kind}/{workers} at {utilization}: {words}  {verdict}", flush=True)
    return agree


async def _arrivals(length_s: float, waits_ns: list[int], late_ns: list[int]) -> None:
    """Send Poisson arrivals to one service, each at its due time, and record waits and the lateness of timers."""
    service = {
        "workers": REAL_WORKERS,
        "queue": 100_000,
        "routes": {"all": {"time": f"exponential {REAL_SERVICE_S * 1e3:g}ms"}},
    }
    draw = random.Random(1)
    async with hosted({"seed": 1, "services": {"one": service}}) as host, trio.open_nursery() as nursery:
        world, places = host._world, host._replicas[0].places
        take, work = places.take, world.work

        async def timed_take(wait_ns: int = 0) -> int:
            waited_ns = await take(wait_ns)
            waits_ns.append(waited_ns)
            return waited_ns

        async def timed_work(time_ns: int, kind: str) -> None:
            begin_ns = clock_ns()
            await work(time_ns, kind)
            late_ns.append(clock_ns() - begin_ns - time_ns)

        places.take, world.work = timed_take, timed_work  # type: ignore[method-assign]
        due_s = begin_s = trio.current_time()
        while due_s < begin_s + length_s:
            due_s += draw.expovariate(REAL_WORKERS * REAL_UTILIZATION / REAL_SERVICE_S)
            await trio.sleep_until(due_s)
            nursery.start_soon(host.handle, Request("GET", "/"))


def in_real_time(length_s: float) -> bool:
    """Print the cell in real time, and return whether it agrees; False also if it decides nothing."""
    waits_ns: list[int] = []
    late_ns: list[int] = []
    trio.run(_arrivals, length_s, waits_ns, late_ns)
    size = len(waits_ns) // BATCHES
    batches = [statistics.fmean(waits_ns[at * size : (at + 1) * size]) / 1e6 for at in range(BATCHES)]
    mean_ms, half_ms = statistics.fmean(batches), T_99 * statistics.stdev(batches) / math.sqrt(BATCHES)
    late_ms, service_ms = statistics.fmean(late_ns) / 1e6, REAL_SERVICE_S * 1e3
    longer_ms = service_ms + late_ms
    low_ms = mm_k(REAL_WORKERS, REAL_UTILIZATION).mean_wait * service_ms
    high_utilization = REAL_UTILIZATION * longer_ms / service_ms
    high_ms = mm_k(REAL_WORKERS, high_utilization).mean_wait * longer_ms + late_ms
    decides = late_ms <= LATE_SHARE * service_ms
    agrees = low_ms - half_ms <= mean_ms <= high_ms + half_ms
    verdict = "decides nothing" if not decides else "agrees" if agrees else "DISAGREES"
    print(
        f"M/M/{REAL_WORKERS} at {REAL_UTILIZATION} in real time, {len(waits_ns):,} customers in {length_s:g} s:"
        f" mean wait {mean_ms:.3f} ms, 99% batch-means interval +-{half_ms:.3f} ms;"
        f" formula {low_ms:.3f} ms, or up to {high_ms:.3f} ms with timers that are {late_ms:.3f} ms late on average:"
        f" {verdict}"
    )
    return decides and agrees


def main() -> None:
    """Measure and print; exit with 1 unless all measured cells agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--customers", type=int, default=1_000_000, help="customers per seed")
    parser.add_argument("--kinds", default="MD", help="M: exponential service, D: fixed service")
    parser.add_argument("--real", action="store_true", help="measure only the cell in real time")
    parser.add_argument(
        "--length", type=float, default=120.0, metavar="S", help="length of the cell in real time"
    )
    given = parser.parse_args()
    if given.real:
        agrees = in_real_time(given.length)
    else:
        agrees = on_the_virtual_clock(given.kinds, given.seeds, given.customers)
    raise SystemExit(0 if agrees else 1)


if __name__ == "__main__":
    main()

"""How often change points over runs are found, and how often they are false: simulated runs of known steps.

    python benchmarks/change_points.py [--series N] [--histories N] [--seed N]

A history is 500 runs of a build each (run sd 2%), 20 steps of 0.5 to 4 run sds at random builds at least 12 apart, and
a host that drifts by 15% on the way, as its control workload shows (with an error of 0.5%). An oracle that knows the
number of steps puts them where the squares are least (dynamic programming).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from replay.history.change_points import Series, find_steps

RUNS, STEPS, RUN_SD, APART = 500, 20, 0.02, 12
SIZES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def history(
    rng: np.random.Generator, columns: int, sizes: np.ndarray
) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Values, where the steps are, and the control workload; the first column has every step."""
    slack = RUNS - APART * (len(sizes) + 1)
    places = (np.sort(rng.integers(0, slack + 1, len(sizes))) + APART * np.arange(1, len(sizes) + 1)).tolist()
    signs = rng.choice([-1.0, 1.0], len(sizes))
    drift = 0.15 * np.sin(np.linspace(0, 3, RUNS))
    values = rng.normal(0, RUN_SD, (RUNS, columns)) + drift[:, None]
    for place, size, sign in zip(places, sizes, signs, strict=True):
        values[place:, 0] += sign * size * RUN_SD
    return values, places, drift + rng.normal(0, 0.005, RUNS)


def series_of(values: np.ndarray, control: np.ndarray, hosts: list[str] | None = None) -> Series:
    builds = [f"b{number}" for number in range(len(values))]
    return Series(
        values, builds, hosts or ["one"] * len(values), control, np.full(values.shape[1], 0.01 * RUN_SD)
    )


def oracle(values: np.ndarray, steps: int) -> list[int]:
    """The places of `steps` steps with the least squares."""
    runs = len(values)
    sums, squares = np.concatenate([[0], np.cumsum(values)]), np.concatenate([[0], np.cumsum(values**2)])
    ends = np.arange(runs + 1)
    best, back = np.full(runs + 1, np.inf), []
    best[1:] = squares[1:] - sums[1:] ** 2 / ends[1:]
    for _ in range(steps):
        length = ends[:, None] - ends[None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            cost = (
                squares[:, None]
                - squares[None, :]
                - (sums[:, None] - sums[None, :]) ** 2 / length
                + best[None, :]
            )
        cost[length <= 0] = np.inf
        cost = np.where(np.isnan(cost), np.inf, cost)
        back.append(cost.argmin(axis=1))
        best = cost.min(axis=1)
    found, at = [], runs
    for choice in reversed(back):
        at = int(choice[at])
        found.append(at)
    return sorted(found)


def near(place: int, found: list[int]) -> bool:
    return any(abs(place - one) <= 1 for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=9, help="series in a history: routes times metrics")
    parser.add_argument("--histories", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    began = time.monotonic()
    print(
        "steps within one build: found, by the oracle (no drift, number known), detections that are no step"
    )
    for size in SIZES:
        hits = total = of_oracle = wrong = 0
        for _ in range(given.histories):
            values, places, control = history(rng, given.series, np.full(STEPS, size))
            found = [step.at for step in find_steps(series_of(values, control)) if not step.doubt]
            known = oracle(values[:, 0] - 0.15 * np.sin(np.linspace(0, 3, RUNS)), STEPS)
            hits += sum(near(place, found) for place in places)
            of_oracle += sum(near(place, known) for place in places)
            wrong += sum(all(abs(one - place) > 5 for place in places) for one in found)
            total += len(places)
        print(
            f"  {size:.1f} sd: {hits / total:.1%}, oracle {of_oracle / total:.1%}, no step {wrong}",
            flush=True,
        )
    none = np.empty(0)
    for name, noise in (("normal", None), ("t with 3 degrees of freedom", 3)):
        alarms = 0
        for _ in range(given.histories):
            values, _, control = history(rng, given.series, none)
            if noise:
                values = rng.standard_t(noise, values.shape) * RUN_SD
            alarms += sum(not step.doubt for step in find_steps(series_of(values, control)))
        builds = given.histories * RUNS
        print(
            f"A/A, {name}: {alarms} false alarms in {builds:,} builds (promised: at most {builds // 200})",
            flush=True,
        )
    for name in ("in turns", "moved once"):
        alarms = doubts = 0
        for _ in range(given.histories):
            values, _, _ = history(rng, given.series, none)
            values = rng.normal(0, RUN_SD, values.shape)
            at = rng.random(RUNS) < 0.5 if name == "in turns" else np.arange(RUNS) >= 250
            values += 0.15 * at[:, None]
            hosts = ["slow" if slow else "fast" for slow in at]
            steps = find_steps(series_of(values, np.full(RUNS, np.nan), hosts))
            alarms += sum(not step.doubt for step in steps)
            doubts += sum(bool(step.doubt) for step in steps)
        print(f"hosts that differ by 15%, {name}: {alarms} alarms, {doubts} times 'cannot tell'", flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

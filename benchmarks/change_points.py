"""How often change points over runs are found, and how often they are false: simulated runs of known steps.

    python benchmarks/change_points.py [--only steps|none|hosts|control] [--case TEXT] [--series N]
                                       [--histories N] [--seed N]

A history has 500 runs, each of its own build (run sd 2%), with or without 20 steps of 1.5 to 4 run sds at random builds at
least 12 apart. The host drifts by 15% meanwhile, and the control workload shows this with an error of 0.5%. The noise is
added to the drift. An oracle that knows the number of steps and the drift places the steps by least squares (dynamic
programming). A false alarm is more than 5 builds from any step.

`hosts`: two hosts that differ by 15%, without a control figure. An alarm is at a switch if it is within one build of a run
on another host than the run before it. `control`: the error of the control workload is up to the size of the drift that it
corrects, on a host that drifts and on one that does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.history.change_points import Series, find_steps

Floats = npt.NDArray[np.float64]

RUNS, STEPS, RUN_SD, APART = 500, 20, 0.02, 12
SIZES = (1.5, 2.0, 2.5, 3.0, 4.0)
DRIFT, HOSTS_DIFFER, CONTROL_SD = 0.15, 0.15, 0.005
CONTROL_SDS = (0.005, 0.02, 0.05, 0.15)


def normal(rng: np.random.Generator, columns: int) -> Floats:
    """Return normal run-to-run noise with the standard deviation RUN_SD, float64[RUNS, columns]."""
    return rng.normal(0, RUN_SD, (RUNS, columns))


def heavy(rng: np.random.Generator, columns: int) -> Floats:
    """Return noise with the same standard deviation and the tails of Student's t with 3 degrees of freedom."""
    return np.asarray(rng.standard_t(3, (RUNS, columns)) / np.sqrt(3) * RUN_SD)


NOISES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": normal,
    "t with 3 degrees of freedom": heavy,
}


@dataclass
class History:
    """Simulated runs with one column per series; only the first has the steps. `drift` is the drift of the host."""

    values: Floats
    places: list[int]
    drift: Floats
    control: Floats
    hosts: list[str]

    def found(self) -> tuple[list[int], int]:
        """Return the places of the alarms, and the number of steps that were found with a doubt."""
        builds = [f"b{number}" for number in range(RUNS)]
        floors = np.full(self.values.shape[1], 0.01 * RUN_SD)
        steps = find_steps(Series(self.values, builds, self.hosts, self.control, floors))
        return [step.at for step in steps if not step.doubt], sum(bool(step.doubt) for step in steps)


def history(
    rng: np.random.Generator, noise: Floats, size: float = 0.0, *, drift: float = DRIFT,
    control_sd: float = CONTROL_SD,
) -> History:  # fmt: skip
    """Return a history on one host, with steps of `size` run sds unless `size` is 0."""
    steps = STEPS if size else 0
    slack = RUNS - APART * (steps + 1)
    places = (np.sort(rng.integers(0, slack + 1, steps)) + APART * np.arange(1, steps + 1)).tolist()
    drifted = drift * np.sin(np.linspace(0, 3, RUNS))
    values = noise + drifted[:, None]
    for place, sign in zip(places, rng.choice([-1.0, 1.0], steps), strict=True):
        values[place:, 0] += sign * size * RUN_SD
    return History(values, places, drifted, drifted + rng.normal(0, control_sd, RUNS), ["one"] * RUNS)


def on_two_hosts(rng: np.random.Generator, noise: Floats, how: str, size: float = 0.0) -> History:
    """Return a history on two hosts without drift and control figure.

    `how` is "at random", "moved once" or "20 moves".
    """
    made = history(rng, noise, size, drift=0.0)
    if how == "at random":
        slow = rng.random(RUNS) < 0.5
    elif how == "moved once":
        slow = np.arange(RUNS) >= RUNS // 2
    else:
        slow = (
            np.cumsum(np.isin(np.arange(RUNS), rng.choice(np.arange(12, RUNS), 20, replace=False))) % 2 == 1
        )
    made.values += HOSTS_DIFFER * slow[:, None]
    made.control = np.full(RUNS, np.nan)
    made.hosts = ["slow" if each else "fast" for each in slow]
    return made


def oracle(values: Floats, steps: int) -> list[int]:
    """Return the places of `steps` steps that fit the values best by least squares."""
    sums, squares = np.concatenate([[0], np.cumsum(values)]), np.concatenate([[0], np.cumsum(values**2)])
    ends = np.arange(len(values) + 1)
    best, back = np.full(len(values) + 1, np.inf), []
    best[1:] = squares[1:] - sums[1:] ** 2 / ends[1:]
    length = ends[:, None] - ends[None, :]
    for _ in range(steps):
        with np.errstate(divide="ignore", invalid="ignore"):
            within = squares[:, None] - squares[None, :] - (sums[:, None] - sums[None, :]) ** 2 / length
            cost = within + best[None, :]
        cost = np.where((length <= 0) | np.isnan(cost), np.inf, cost)
        back.append(cost.argmin(axis=1))
        best = cost.min(axis=1)
    found, at = [], len(values)
    for choice in reversed(back):
        at = int(choice[at])
        found.append(at)
    return sorted(found)


def near(place: int, found: list[int], within: int = 1) -> bool:
    return any(abs(place - one) <= within for one in found)


@dataclass(frozen=True)
class Given:
    """The options of the command line. Only cases whose name contains `case` are run."""

    rng: np.random.Generator
    columns: int
    histories: int
    case: str

    def wants(self, name: str) -> bool:
        return self.case in name


def steps_table(given: Given) -> None:
    """Print the share of planted steps that are found within one build, by replay and by the oracle."""
    print("steps found within one build")
    for name, noise in NOISES.items():
        for size in SIZES if noise is normal else SIZES[-2:]:
            if not given.wants(f"{name}, {size:.1f} sd"):
                continue
            hits = of_oracle = wrong = 0
            for _ in range(given.histories):
                made = history(given.rng, noise(given.rng, given.columns), size)
                alarms, _ = made.found()
                known = oracle(made.values[:, 0] - made.drift, STEPS)
                hits += sum(near(place, alarms) for place in made.places)
                of_oracle += sum(near(place, known) for place in made.places)
                wrong += sum(not near(one, made.places, 5) for one in alarms)
            total = given.histories * STEPS
            print(
                f"  {name}, {size:.1f} sd: {hits / total:.1%} of {total}, oracle {of_oracle / total:.1%};"
                f" {wrong} false alarms in {given.histories * RUNS:,} builds",
                flush=True,
            )


def none_table(given: Given) -> None:
    """Print the number of alarms in histories without steps."""
    for name, noise in NOISES.items():
        if not given.wants(name):
            continue
        alarms = sum(
            len(history(given.rng, noise(given.rng, given.columns)).found()[0])
            for _ in range(given.histories)
        )
        builds = given.histories * RUNS
        print(
            f"A/A, {name}: {alarms} alarms in {builds:,} builds (the aim is at most {builds // 200})",
            flush=True,
        )


def hosts_table(given: Given) -> None:
    """Print the false alarms of histories on two hosts, and how many of them are at a change of host."""
    for how in ("at random", "moved once", "20 moves"):
        for size in (0.0, 3.0):
            if not given.wants(how):
                continue
            alarms = doubts = at_switch = hits = before = 0
            near_switch = 0.0
            for _ in range(given.histories):
                made = on_two_hosts(given.rng, normal(given.rng, given.columns), how, size)
                found, doubtful = made.found()
                switches = [at for at in range(1, RUNS) if made.hosts[at] != made.hosts[at - 1]]
                false = [at for at in found if not near(at, made.places, 5)]
                alarms, doubts = alarms + len(false), doubts + doubtful
                at_switch += sum(near(at, switches) for at in false)
                before += sum(at < switches[0] for at in false)
                near_switch += sum(near(at, switches) for at in range(RUNS)) / RUNS
                hits += sum(near(place, found) for place in made.places)
            share = near_switch / given.histories
            found_text = (
                f"{hits / (given.histories * STEPS):.1%} of steps of {size:g} sd found, " if size else ""
            )
            print(
                f"hosts that differ by {HOSTS_DIFFER:.0%}, {how}: {found_text}{alarms} false alarms in"
                f" {given.histories * RUNS:,} builds, {before} of them before the first switch, {at_switch} at a switch"
                f" (as are {share:.0%} of all builds); 'cannot tell' {doubts} times",
                flush=True,
            )


def control_table(given: Given) -> None:
    """Print power and false alarms by the error of the control figure, also without a control figure."""
    for drift in (DRIFT, 0.0):
        for control_sd in (*CONTROL_SDS, None):
            error = "not used" if control_sd is None else f"error {control_sd:.1%}"
            if not given.wants(f"drift {drift:.0%}, control {error}"):
                continue
            hits = alarms = doubts = none = 0
            for _ in range(given.histories):
                for size in (3.0, 0.0):
                    made = history(
                        given.rng,
                        normal(given.rng, given.columns),
                        size,
                        drift=drift,
                        control_sd=control_sd or 0.0,
                    )
                    if control_sd is None:
                        made.control = np.full(RUNS, np.nan)
                    found, doubtful = made.found()
                    if size:
                        hits += sum(near(place, found) for place in made.places)
                        doubts += doubtful
                        alarms += sum(not near(one, made.places, 5) for one in found)
                    else:
                        none += len(found)
            print(
                f"drift {drift:.0%}, control {error}: {hits / (given.histories * STEPS):.1%} of steps of 3 sd found,"
                f" {doubts} times 'cannot tell', {alarms} false alarms; without steps {none} alarms"
                f" ({given.histories * RUNS:,} builds with steps, and as many without)",
                flush=True,
            )


TABLES = {"steps": steps_table, "none": none_table, "hosts": hosts_table, "control": control_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(TABLES), help="print only this table")
    parser.add_argument("--case", default="", help="run only cases whose name contains this text")
    parser.add_argument("--series", type=int, default=9, help="series per history (routes times metrics)")
    parser.add_argument("--histories", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"seed {given.seed}, {given.histories} histories, {given.series} series", flush=True)
    began = time.monotonic()
    for name, table in TABLES.items():
        if given.only in (None, name):
            table(Given(np.random.default_rng(given.seed), given.series, given.histories, given.case))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

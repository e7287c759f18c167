"""How often change points over runs are found, and how often they are false: simulated runs of known steps.

    python benchmarks/change_points.py [--only steps|none|hosts|control] [--case TEXT] [--series N]
                                       [--histories N] [--seed N]

A history is 500 runs of a build each (run sd 2%), with or without 20 steps of 1.5 to 4 run sds at random builds at least 12
apart. The host drifts by 15% on the way, as its control workload shows (with an error of 0.5%); the noise is added to the
drift, whatever its shape. An oracle that knows the number of steps and the drift puts the steps where the squares are least
(dynamic programming).

`hosts`: two hosts that differ by 15%, no control figure. An alarm is at a switch if it is within one build of a run on
another host than the run before it. `control`: the control workload has an error of its own, up to the size of what it
corrects, on a host that drifts and on one that is steady.
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
    """Run-to-run noise of sd RUN_SD."""
    return rng.normal(0, RUN_SD, (RUNS, columns))


def heavy(rng: np.random.Generator, columns: int) -> Floats:
    """The same sd, with the tails of Student's t with 3 degrees of freedom."""
    return np.asarray(rng.standard_t(3, (RUNS, columns)) / np.sqrt(3) * RUN_SD)


NOISES: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": normal,
    "t with 3 degrees of freedom": heavy,
}


@dataclass
class History:
    """Simulated runs: a column per series, of which the first has the steps; `drift` is the host's."""

    values: Floats
    places: list[int]
    drift: Floats
    control: Floats
    hosts: list[str]

    def found(self) -> tuple[list[int], int]:
        """Where alarms are, and how many steps have a doubt."""
        builds = [f"b{number}" for number in range(RUNS)]
        floors = np.full(self.values.shape[1], 0.01 * RUN_SD)
        steps = find_steps(Series(self.values, builds, self.hosts, self.control, floors))
        return [step.at for step in steps if not step.doubt], sum(bool(step.doubt) for step in steps)


def history(
    rng: np.random.Generator, noise: Floats, size: float = 0.0, *, drift: float = DRIFT,
    control_sd: float = CONTROL_SD,
) -> History:  # fmt: skip
    """A history on one host; with steps of `size` run sds, unless that is 0."""
    steps = STEPS if size else 0
    slack = RUNS - APART * (steps + 1)
    places = (np.sort(rng.integers(0, slack + 1, steps)) + APART * np.arange(1, steps + 1)).tolist()
    drifted = drift * np.sin(np.linspace(0, 3, RUNS))
    values = noise + drifted[:, None]
    for place, sign in zip(places, rng.choice([-1.0, 1.0], steps), strict=True):
        values[place:, 0] += sign * size * RUN_SD
    return History(values, places, drifted, drifted + rng.normal(0, control_sd, RUNS), ["one"] * RUNS)


def on_two_hosts(rng: np.random.Generator, noise: Floats, how: str, size: float = 0.0) -> History:
    """A history without drift and control figure whose runs are on two hosts: `how` says when."""
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
    """The places of `steps` steps with the least squares."""
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
    """What was asked for. `case` is a text that the names of the cases to run contain."""

    rng: np.random.Generator
    columns: int
    histories: int
    case: str

    def wants(self, name: str) -> bool:
        return self.case in name


def steps_table(given: Given) -> None:
    """Power: the share of planted steps that are found within one build."""
    print("steps within one build: found, by the oracle, alarms more than 5 builds from any step")
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
                f"  {name}, {size:.1f} sd: {hits / total:.1%} of {total}, oracle {of_oracle / total:.1%},"
                f" no step {wrong} in {given.histories * RUNS:,} builds",
                flush=True,
            )


def none_table(given: Given) -> None:
    """False alarms without any step."""
    for name, noise in NOISES.items():
        if not given.wants(name):
            continue
        alarms = sum(
            len(history(given.rng, noise(given.rng, given.columns)).found()[0])
            for _ in range(given.histories)
        )
        builds = given.histories * RUNS
        print(f"A/A, {name}: {alarms} alarms in {builds:,} builds (limit {builds // 200})", flush=True)


def hosts_table(given: Given) -> None:
    """Alarms on hosts that differ: how many, and whether they gather where the host changes."""
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
                f"hosts that differ by {HOSTS_DIFFER:.0%}, {how}: {found_text}{alarms} alarms that are no step in"
                f" {given.histories * RUNS:,} builds, {before} of them before the first switch, {at_switch} at a switch"
                f" (where {share:.0%} of builds are), {doubts} times 'cannot tell'",
                flush=True,
            )


def control_table(given: Given) -> None:
    """What the control figure does to power and false alarms if it has an error of its own."""
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
                f" {doubts} times 'cannot tell', {alarms} alarms that are no step; without steps {none} alarms,"
                f" in {given.histories * RUNS:,} builds each",
                flush=True,
            )


TABLES = {"steps": steps_table, "none": none_table, "hosts": hosts_table, "control": control_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(TABLES), help="one table")
    parser.add_argument("--case", default="", help="cases whose name has this text")
    parser.add_argument("--series", type=int, default=9, help="series in a history: routes times metrics")
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

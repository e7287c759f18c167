"""How often the diagnosis names the limit of a twin: `python -m benchmarks.bottlenecks --seed 1 --twins 60`.

Each twin has one limit of six kinds (`benchmarks.limited_twins`). `replay run` loads it with `[[watch]]` on the twin's own
figures, and the diagnosis of the run names what gave way. It is `right` if it names the limit, and `wrong` if it names
something else. Otherwise it is `cannot tell`, or `no harm` if it found no harm.

The same run is also judged by latency alone. A claim that routes share a cause is right if the limit slows all of them.

`--keep FOLDER` keeps the runs, and `--again FOLDER` judges kept runs by the current rules.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from replay.diagnosis.diagnose import diagnose
from replay.rehearsal.toml_text import toml_text
from replay.results.run import load_run
from replay.staging.twin import RunningTwin, read_twin, running

from .limited_twins import KINDS, Draw, LimitedTwin

SLO = ("errors<2%", "p99<1s")
TIMEOUT = "3s"
ANSWERS = ("right", "wrong", "cannot tell", "no harm")
POLL_S = 0.05
RUN_SECONDS_MORE = 120.0
"""How much longer than its load a run may take on a crowded machine."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The diagnosis of one twin, and whether it is right.

    `shared` lists the routes that share a cause by latency alone. `shared_answer` is empty if there are none.
    """

    number: int
    kind: str
    limited: tuple[str, ...]
    answer: str
    named: str
    words: str
    shared: tuple[str, ...]
    shared_answer: str
    has_bystander: bool
    validity: str


def play(twin: LimitedTwin, folder: Path) -> None:
    """Run a twin under load by `replay run`, with all files in a new folder."""
    folder.mkdir(parents=True)
    (folder / "truth.json").write_bytes(msgspec.json.encode(twin))
    for name, document in (("twin", twin.document), ("load", twin.recipe)):
        (folder / f"{name}.toml").write_text(toml_text(document))
    _command(["generate", "load.toml", "-o", "load.trace"], folder)
    with contextlib.ExitStack() as stack:
        with _before_others():
            app = stack.enter_context(running(read_twin(folder / "twin.toml"), log=folder / "twin.log"))
        scenario = {
            "target": app.front, "trace": "load.trace", "timeout": TIMEOUT, "slo": list(SLO),
            "breaker": {"on": False}, "watch": [{"name": "", "json": app.figures_url, "members": True}],
        }  # fmt: skip
        (folder / "scenario.toml").write_text(toml_text(scenario))
        with _process(["run", "scenario.toml", "-o", "run"], folder) as process:
            _raise_threads(process, folder / "run")
            if twin.bystander and _wait_for_load(app, process):
                time.sleep(twin.rises_s)
                for name, value in twin.bystander.items():
                    app.set(name, value)
            length_s = float(str(twin.recipe["duration"]).removesuffix("s"))
            process.wait(length_s + RUN_SECONDS_MORE)


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """Give processes that are started in this context real-time priority, if that is permitted.

    A twin that waits for a core has other limits than its file states. It needs a tenth of a core.
    """
    _set_first(0)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _set_first(thread: int) -> None:
    """Give a thread real-time priority, if that is permitted."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1))


def _raise_threads(process: subprocess.Popen[bytes], out: Path) -> None:
    """Give the generator real-time priority once it has made its folder.

    If the generator is late, its run is INVALID and shows nothing about the diagnosis.
    """
    while not out.exists() and process.poll() is None:
        time.sleep(POLL_S)
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            _set_first(int(thread.name))


@contextlib.contextmanager
def _process(arguments: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of replay in a folder, with its output in COMMAND.txt there; kill it at the end of the context."""
    with (folder / f"{arguments[0]}.txt").open("wb") as output:
        command = [sys.executable, "-m", "replay.cli", *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _command(arguments: Sequence[str], folder: Path) -> None:
    with _process(arguments, folder) as process:
        if process.wait(RUN_SECONDS_MORE):
            raise OSError((folder / f"{arguments[0]}.txt").read_text()[-500:])


def _wait_for_load(app: RunningTwin, process: subprocess.Popen[bytes]) -> bool:
    """Wait until the first request has reached the twin; return False if the run ends before that."""
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError):
            if app.figures().get("balancer.requests", 0) > 0:
                return True
        time.sleep(POLL_S)
    return False


def judge(number: int, folder: Path) -> Judged:
    """Diagnose a kept run, and compare the diagnosis with the truth in its folder."""
    truth = msgspec.json.decode((folder / "truth.json").read_bytes(), type=LimitedTwin)
    run = load_run(folder / "run")
    found = diagnose(run)
    named = found.first_resource
    answer = "wrong" if named else "no harm" if found.harmed_s is None else "cannot tell"
    if named in truth.limited:
        answer = "right"
    shared = tuple(found.shared_cause)
    shared_answer = ("right" if set(shared) <= set(truth.affected) else "wrong") if shared else ""
    return Judged(
        number=number, kind=truth.kind, limited=truth.limited, answer=answer, named=named or "", words=found.words,
        shared=shared, shared_answer=shared_answer, has_bystander=bool(truth.bystander),
        validity=run.document.validity.verdict,
    )  # fmt: skip


def played(folder: Path, seed: int, twins: int, length_s: float, together: int) -> Iterator[Judged]:
    """Play twins, up to `together` of them at once, and judge each; one that cannot be played is printed and skipped."""

    def one(number: int) -> str:
        try:
            play(Draw(seed, number, length_s).made(), folder / f"{number:03}")
        except Exception as error:  # one twin that cannot be played must not end the others; it is listed
            return f"{error!r}"
        return ""

    pool = ThreadPoolExecutor(together)
    try:
        for number, failed in enumerate(pool.map(one, range(twins))):
            if failed:
                print(f"{number:3} NOT PLAYED: {failed}", flush=True)
            else:
                yield _printed(judge(number, folder / f"{number:03}"))
    finally:
        pool.shutdown(cancel_futures=True)


def again(folder: Path) -> Iterator[Judged]:
    """Judge the kept runs of a folder, without those that have no result."""
    for place in sorted(folder.iterdir()):
        if (place / "run" / "run.json").is_file():
            yield _printed(judge(int(place.name), place))


def _printed(one: Judged) -> Judged:
    bystander = ", a bystander" if one.has_bystander else ""
    print(f"{one.number:3} {one.kind}{bystander}, {one.validity}: {one.answer.upper()}")
    print(f"      limit {one.limited[0]}: {one.words}", flush=True)
    if one.shared:
        print(f"      {one.shared_answer.upper()}: {', '.join(one.shared)} share a cause")
    return one


def table(all_judged: Sequence[Judged]) -> str:
    """Return the counts by kind of limit as a table in Markdown."""
    lines = ["| limit | twins | " + " | ".join(ANSWERS) + " | share a cause: right | wrong |"]
    lines.append("|---" * (len(ANSWERS) + 4) + "|")
    for kind in (*KINDS, "all"):
        of = [each for each in all_judged if kind in (each.kind, "all")]
        answers, shared = Counter(each.answer for each in of), Counter(each.shared_answer for each in of)
        cells = [len(of), *(answers[name] for name in ANSWERS), shared["right"], shared["wrong"]]
        lines.append(f"| {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Play twins, or judge kept runs again; print each result and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--twins", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load")
    parser.add_argument("--together", type=int, default=1, help="number of twins played at once")
    parser.add_argument("--keep", type=Path, help="keep the runs in this new folder")
    parser.add_argument("--again", type=Path, help="judge the runs of this folder again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-bottlenecks-") as name:
        if given.again:
            found = list(again(given.again))
        else:
            folder = given.keep or Path(name)
            found = list(played(folder, given.seed, given.twins, given.seconds, given.together))
    print()
    print(table(found))


if __name__ == "__main__":
    main()

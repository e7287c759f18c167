"""Damage to the files of a trace, of a run and of a killed run, and every verb that reads them: a sentence and an exit
code, never a traceback, never a hang, never gigabytes.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replay.cli import invoke
from replay.staging.sink import Sink
from tests.support.metrics_data import trial

TIME_LIMIT_S = 60
MEMORY_KB_MAX = 1 << 20

GOR = "".join(
    f"1 {number:024x} {1_700_000_000_000_000_000 + number * 10_000_000} 0\n"
    f"{'POST' if number % 3 else 'GET'} /users/{number % 7}?q={number} HTTP/1.1\r\nHost: shop.example\r\n"
    f"Accept: a/{number % 5}\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"
    f'{{"n":{number % 10}}}\n\U0001f435\U0001f648\U0001f649\n'
    for number in range(200)
)

VERBS: dict[str, list[list[str]]] = {
    "trace": [
        ["inspect", "{it}"],
        ["inspect", "{it}", "--json"],
        ["inspect", "{it}", "--stats"],
        ["run", "{it}", "--target", "http://127.0.0.1:9", "--dry-run"],
        ["run", "{it}", "--target", "http://127.0.0.1:9", "--dry-run", "--send-headers", "all"],
        ["transform", "{it}", "--scale", "2", "-o", "{out}/t.trace"],
        ["transform", "{it}", "--rewrite", "^/users -> /people", "-o", "{out}/t.trace"],
        ["generate", "--poisson", "10/s", "-d", "10s", "--mix-of", "{it}", "-o", "{out}/t.trace"],
        ["generate", "--rate", "10/s", "-d", "10s", "--bursts-of", "{it}", "-o", "{out}/t.trace"],
        ["init", "{it}", "--target", "http://127.0.0.1:9", "-o", "{out}/s.toml"],
        *(["export", "{it}", "-o", f"{{out}}/x.{ending}"] for ending in ("csv", "parquet", "gor", "json", "log")),
    ],
    "run": [
        ["report", "{it}"],
        ["report", "{it}", "--json"],
        ["report", "{it}", "--hgrm", "{out}/hgrm"],
        ["report", "{it}", "--html", "{out}/page.html"],
        ["compare", "base={it}", "new={other}", "--html", "{out}/page.html"],
        ["compare", "base={it}", "new={other}", "--json", "-", "--junit", "{out}/j.xml", "--markdown", "{out}/m.md"],
        ["compare", "base={it}/totals.hlog", "new={other}/totals.hlog"],
        ["compare", "base={it}/latency.hlog", "new={other}/latency.hlog"],
    ],
    "killed": [["report", "{it}"], ["report", "{it}", "--html", "{out}/page.html"]],
}  # fmt: skip
"""What reads each kind of folder. `{it}` is the damaged one, `{other}` a whole one, `{out}` an empty folder."""

ALLOWED = {"compare": {0, 2, 3, 4, 99}}
"""Exit codes of a verb that may come; of the others 0 and 2."""


@functools.cache
def seeds() -> Path:
    """A folder with a whole trace, run and killed run, made once a process. It is removed when the process ends."""
    holder = tempfile.TemporaryDirectory(prefix="replay-damage-")
    seeds.holder = holder  # type: ignore[attr-defined]
    area = Path(holder.name)
    (area / "a.gor").write_text(GOR)
    with Sink() as sink:
        for command in (
            ["import", str(area / "a.gor"), "-o", str(area / "trace")],
            ["run", str(area / "trace"), "--target", f"http://127.0.0.1:{sink.port}", "--speed", "2", "-q",
             "--slo", "p99<1s over 1s", "-o", str(area / "run")],
        ):  # fmt: skip
            code, said = run(command, limit_s=400)
            assert code in (0, 4, 99), said
    made = trial(area / "killed")
    made.lanes[0].many(50)
    made.lanes[0].request(outcome="reset")
    made.lanes[0].unsent()
    made.recorder.tick(made.recorder._started.start.monotonic_ns + 1_000_000_000)
    made.recorder.close()
    return area


def damaged(data: bytes, random_: random.Random) -> bytes:
    """The bytes with a few of them changed, taken out, put in or zeroed, or the rest cut off."""
    changed = bytearray(data)
    for _ in range(random_.choice([1, 1, 1, 2, 8])):
        at = random_.randrange(max(len(changed), 1))
        if random_.random() < 0.3:
            at = random_.randrange(max(min(len(changed), 512), 1))
        how = random_.randrange(7)
        if how == 0:
            del changed[at:]
        elif how == 1:
            changed[at : at + random_.choice([1, 8, 100])] = b""
        elif how == 2:
            changed[at:at] = random_.choice(
                [b"\0", b"\xff", b"9", b'"', b"[" * 3_000, b"-", b",", b"\n", b"e9"]
            )
        elif how == 3 and changed[at:]:
            changed[at] ^= 1 << random_.randrange(8)
        elif how == 4 and changed[at:]:
            changed[at] = random_.choice(b'0919-"{}[],\x00\xff\x80')
        elif how == 5:
            size = random_.choice([1, 4, 8, 64])
            changed[at : at + size] = bytes(len(changed[at : at + size]))
        else:
            size = random_.choice([4, 8])
            changed[at : at + size] = b"\xff" * len(changed[at : at + size])
    return bytes(changed)


HOSTILE: list[Any] = [
    -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 2**64, 1e308, -1e308, 1e-308, 0.5, "", "\x1b[31m", "a" * 100_000, "../../x",
    "\ud800", "Mars/Olympus", None, True, [], {}, [[[[]]]], "2026-01-01", "kafka://[::1", [1], {"a": 1},
]  # fmt: skip


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in JSON, by what holds it and its key."""
    for key in [*value] if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def falsified(data: bytes, random_: random.Random) -> bytes:
    """Lines of JSON of which one has a value, or a few, that is not plausible; other bytes as they are."""
    rows = data.splitlines() if data.count(b"\n}") == 0 else [data]
    number = random_.randrange(max(len(rows), 1))
    try:
        value = json.loads(rows[number])
        places = list(_places(value))
    except (ValueError, IndexError, TypeError):
        return data
    for holder, key in random_.sample(places, min(random_.choice([1, 1, 1, 4]), len(places))):
        with contextlib.suppress(KeyError, IndexError):
            if random_.random() < 0.1:
                del holder[key]
            elif isinstance(holder[key], int | float) and random_.random() < 0.5:
                holder[key] = random_.choice([-holder[key], holder[key] * 10**9, holder[key] + 1, 2**62])
            else:
                holder[key] = random_.choice(HOSTILE)
    rows[number] = json.dumps(value).encode("utf-8", "surrogatepass")
    return b"\n".join(rows) + b"\n"


def run(command: list[str], limit_s: int = TIME_LIMIT_S) -> tuple[int, str]:
    """A command in this process: its exit code, and what it said."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said), _limited(limit_s):
            code = invoke(command)
        said.seek(0)
        return code, said.read()


@contextlib.contextmanager
def _limited(limit_s: int) -> Iterator[None]:
    """TimeoutError where what is inside takes too long, in Python at least."""

    def stop(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(limit_s)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def complaint_of(command: list[str]) -> str:
    """What is wrong with how a command ended; nothing where it ended as documented."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, said = run(command)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    if code not in ALLOWED.get(command[0], {0, 2}) or "Traceback" in said or "crashed" in said:
        return f"{' '.join(command)}: exit {code}: {said[-2000:]}"
    if code == 2 and not said.splitlines()[-1:][0].startswith("replay: "):
        return f"{' '.join(command)}: exit 2 without a sentence: {said[-500:]}"
    if grown_kb > MEMORY_KB_MAX:
        return f"{' '.join(command)}: memory grew by {grown_kb:,} KiB"
    return ""


def files_of(kind: str) -> list[str]:
    """The files of a folder, by their paths in it."""
    folder = seeds() / kind
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def one_case(seed: int, kind: str, *, verbs: int = 2) -> str:
    """Damage one file of a folder; a complaint where a verb that reads it ends badly, else nothing."""
    random_ = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="replay-damage-") as name:
        area = Path(name)
        shutil.copytree(seeds() / kind, area / "it")
        file = random_.choice(files_of(kind))
        path = area / "it" / file
        change = falsified if ".json" in file and random_.random() < 0.6 else damaged
        path.write_bytes(data := change(path.read_bytes(), random_))
        for number, verb in enumerate(random_.sample(VERBS[kind], min(verbs, len(VERBS[kind])))):
            (out := area / str(number)).mkdir()
            names = {"it": str(area / "it"), "other": str(seeds() / "run"), "out": str(out)}
            if complaint := complaint_of([word.format(**names) for word in verb]):
                kept = f"{os.environ.get('REPLAY_DAMAGE_KEPT', '')}"
                if kept:
                    shutil.copytree(area / "it", Path(kept) / f"{kind}-{seed}", dirs_exist_ok=True)
                return f"{file} (bytes {base64.b64encode(data[:60]).decode()}): {complaint}"
    return ""

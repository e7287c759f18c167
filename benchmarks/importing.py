"""How fast recordings become traces, in how much memory, and how fast other programs read them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from . import peers, recordings

BLOCKS = {"common": 2, "combined": 2, "nginx-json": 2, "caddy": 2, "csv": 2, "gor": 1}
GOR_ROWS = 200_000
PEER_ROWS = 200_000
LONG_BLOCKS = (1, 50)
ROUNDS = 3

_IMPORT = """
    import json, sys, time
    from replay.trace.importing import import_files
    from replay.ledger.host import peak_rss_bytes
    small, recording, out = sys.argv[1:]
    import_files([small], out, overwrite=True)
    started = time.process_time()
    trace = import_files([recording], out, overwrite=True)
    took_s = time.process_time() - started
    print(json.dumps([trace.rows, took_s, peak_rss_bytes() / 2**20]))
"""

_READ = """
    import json, sys, time
    from replay.trace import Trace
    trace, rows, latest = Trace.open(sys.argv[1]), 0, 0
    started = time.process_time()
    for batch in trace.batches():
        columns = (batch.at_ns, batch.request, batch.client, batch.status, batch.took_ns, batch.bytes)
        rows, latest = rows + len(batch), max(latest, *(int(column.max()) for column in columns))
    print(json.dumps([rows, time.process_time() - started, 0]))
"""

PATTERN = r'^(\S+) \S+ \S+ \[([^\]]+)\] "(\S+) (\S+)[^"]*" (\d\d\d) (\d+|-)'
"""How the other programs parse a combined line: the fields that replay reads, without hashes, jitter, secrets or routes."""

_RE = f"""
    import datetime as dt, json, re, sys, time
    pattern, stamps, rows = re.compile(r'{PATTERN}'), {{}}, []
    started = time.process_time()
    for line in open(sys.argv[1]):
        client, at, method, target, status, size = pattern.match(line).groups()
        if at not in stamps:
            stamps[at] = dt.datetime.strptime(at, "%d/%b/%Y:%H:%M:%S %z").timestamp()
        rows.append((stamps[at], client, method, target, int(status), int(size)))
    print(json.dumps([len(rows), time.process_time() - started, 0]))
"""

_POLARS = f"""
    import json, os, sys, time
    os.environ["POLARS_MAX_THREADS"] = "1"
    import polars as pl
    started = time.process_time()
    lines = pl.scan_csv(sys.argv[1], has_header=False, separator="\\x01", quote_char=None, new_columns=["line"])
    fields = pl.col("line").str.extract_groups(r'{PATTERN}').alias("f")
    found = lines.select(fields).unnest("f").with_columns(
        pl.col("2").str.to_datetime("%d/%b/%Y:%H:%M:%S %z"), pl.col("5").cast(pl.Int16), pl.col("6").cast(pl.Int64))
    found.sink_parquet(sys.argv[2])
    print(json.dumps([pl.scan_parquet(sys.argv[2]).select(pl.len()).collect().item(), time.process_time() - started, 0]))
"""

_DUCKDB = f"""
    import json, sys, time
    import duckdb
    started = time.process_time()
    duckdb.sql("SET threads = 1; SET enable_progress_bar = false")
    duckdb.sql(f'''COPY (SELECT strptime(f.at, '%d/%b/%Y:%H:%M:%S %z') AS at, f.client, f.method, f.target,
        f.status::SMALLINT AS status, f.size::BIGINT AS size FROM (
        SELECT regexp_extract(line, '{PATTERN}', ['client', 'at', 'method', 'target', 'status', 'size']) AS f
        FROM read_csv('{{sys.argv[1]}}', columns={{{{'line': 'VARCHAR'}}}}, delim='\\x01', quote='', escape='', header=false)
        )) TO '{{sys.argv[2]}}' (FORMAT parquet)''')
    rows = duckdb.sql(f"SELECT count(*) FROM '{{sys.argv[2]}}'").fetchall()[0][0]
    print(json.dumps([rows, time.process_time() - started, 0]))
"""


@dataclass(frozen=True)
class Imported:
    """The import of one recording by one program; `peak_rss_mib` is 0 if it was not measured."""

    name: str
    rows: int
    rows_per_cpu_s: float
    mb_per_cpu_s: float
    peak_rss_mib: float


def _ran(name: str, code: str, size_bytes: int, *arguments: Path) -> Imported:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    rows, took_s, rss_mib = json.loads(peers.finish(command).out.splitlines()[-1])
    return Imported(name, rows, rows / took_s, size_bytes / took_s / 1e6, rss_mib)


def _goaccess(recording: Path, out: Path, rows: int) -> Imported:
    command = ["goaccess", str(recording), "--log-format=COMBINED", "--no-progress", "-o", f"{out}.json"]
    took_s = peers.finish(command).cpu_s
    return Imported("goaccess", rows, rows / took_s, recording.stat().st_size / took_s / 1e6, 0)


def recording_of(folder: Path, name: str, blocks: int, rows: int = recordings.BLOCK_ROWS) -> Path:
    """Return the path of a recording in `folder`, and write it if it does not exist."""
    path = folder / f"{name}-{blocks}x{rows}"
    return path if path.exists() else recordings.write(path, name, blocks, rows)


def _import(folder: Path, name: str, recording: Path) -> Imported:
    small = recording_of(folder, name, 1, 2_000)
    return _ran(name, _IMPORT, recording.stat().st_size, small, recording, folder / "made.trace")


def _peers(folder: Path, recording: Path) -> list[Imported]:
    """Read a combined log once with each other program that is installed."""
    size_bytes, out = recording.stat().st_size, folder / "peer.parquet"
    found = [_ran("re loop", _RE, size_bytes, recording)]
    for name, code in (("polars", _POLARS), ("duckdb", _DUCKDB)):
        if importlib.util.find_spec(name) is not None:
            found.append(_ran(name, code, size_bytes, recording, out))
    if shutil.which("goaccess"):
        found.append(_goaccess(recording, folder / "peer", found[0].rows))
    return found


def _medians(rounds: list[list[Imported]]) -> list[Imported]:
    """Return the median round of each program, by rows per CPU second."""
    each = zip(*rounds, strict=True)
    return [sorted(runs, key=lambda run: run.rows_per_cpu_s)[len(rounds) // 2] for runs in each]


def measure(folder: Path) -> dict[str, list[Imported]]:
    """Measure the import of every format, other programs on the combined one, and memory on a short and a long log.

    `reading` is the time to read the trace of the long log.
    """
    files = {
        name: recording_of(folder, name, blocks, GOR_ROWS if name == "gor" else recordings.BLOCK_ROWS)
        for name, blocks in BLOCKS.items()
    }
    one = recording_of(folder, "combined", 1, PEER_ROWS)
    formats, beside = [], []
    for _ in range(ROUNDS):
        formats.append([_import(folder, name, path) for name, path in files.items()])
        beside.append([_import(folder, "combined", one), *_peers(folder, one)])
    memory = [_import(folder, "common", recording_of(folder, "common", blocks)) for blocks in LONG_BLOCKS]
    trace = folder / "made.trace"
    reads = [
        [_ran("reading a trace", _READ, sum(f.stat().st_size for f in trace.iterdir()), trace)]
        for _ in range(ROUNDS)
    ]
    return {
        "formats": _medians(formats),
        "peers": _medians(beside),
        "memory": memory,
        "reading": _medians(reads),
    }

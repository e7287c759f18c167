"""The database beside a folder of runs: `runs.sqlite` beside `runs`.

Except for the record of reported changes, it only holds data that is in the folders, too. A fault in it therefore
loses no result. A database that cannot be used is reported, and the folders are read instead.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from replay.decoding import examined
from replay.errors import reason_of

from .finding import stamps_in, stamps_of
from .rows import Figures, Row, read_row

VERSION = 2
APPLICATION = 0x5245504C
WAIT_S = 5.0
"""Maximum time for which a command waits while another one writes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    name BLOB PRIMARY KEY, stamp TEXT NOT NULL, started_ns INTEGER NOT NULL, scenario TEXT NOT NULL, load TEXT NOT NULL,
    build TEXT NOT NULL, host TEXT NOT NULL, control_ns INTEGER, verdict TEXT NOT NULL, validity TEXT NOT NULL,
    ending TEXT NOT NULL, problem TEXT NOT NULL, kind TEXT NOT NULL DEFAULT 'run', peak REAL, peak_per_s REAL);
CREATE TABLE IF NOT EXISTS figures (
    name BLOB NOT NULL REFERENCES runs ON DELETE CASCADE, route TEXT NOT NULL, requests INTEGER NOT NULL,
    failed REAL NOT NULL, p50_ns INTEGER, p99_ns INTEGER);
CREATE INDEX IF NOT EXISTS figures_of_runs ON figures (name);
CREATE TABLE IF NOT EXISTS reported (
    scenario TEXT NOT NULL, load TEXT NOT NULL, run BLOB NOT NULL, newest BLOB NOT NULL,
    PRIMARY KEY (scenario, load, run));
"""
_SINCE_1 = (
    "ALTER TABLE runs ADD COLUMN kind TEXT NOT NULL DEFAULT 'run'",
    "ALTER TABLE runs ADD COLUMN peak REAL",
    "ALTER TABLE runs ADD COLUMN peak_per_s REAL",
)
"""Statements that migrate a database of version 1 to version 2. They keep the record of reported changes."""

_FIGURES = ("route", "requests", "failed", "p50_ns", "p99_ns")
_RUN = (
    "name, stamp, started_ns, scenario, load, build, host, control_ns, verdict, validity, ending, problem, kind, peak,"
    " peak_per_s"
)


_Kind = TypeVar("_Kind", Row, Figures)


class Unusable(Exception):
    """A database that cannot be used; the message has the reason."""


def database_of(folder: Path) -> Path:
    """Return the path of the database of a folder of runs, which is beside the folder."""
    whole = folder.absolute()
    whole = whole.resolve() if whole.name in ("", "..") else whole
    return whole.with_name(f"{whole.name}.sqlite")


class History:
    """The runs of a folder, as stored in its database.

    `problem` is the reason why the database could not be used or written; empty if it could. Rows that are not stored
    are read from the folders every time.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection, problem: str = "") -> None:
        self.folder, self.problem, self._connection = folder, problem, connection

    def update(self) -> None:
        """Update the rows to match the folders. Raise OSError if the folder cannot be read."""
        found = dict(stamps_in(self.folder))
        known = {os.fsdecode(name): stamp for name, stamp in self._all("SELECT name, stamp FROM runs")}
        fresh = [
            read_row(self.folder, name, stamp) for name, stamp in found.items() if known.get(name) != stamp
        ]
        gone = [name for name in known if name not in found]
        if not fresh and not gone:
            return
        try:
            self.write(fresh, gone)
        except sqlite3.Error as error:
            self._without_database(error)
            self.write([read_row(self.folder, name, stamp) for name, stamp in found.items()])

    def write(self, rows: Iterable[Row], gone: Iterable[str] = ()) -> None:
        """Write rows in one transaction, and delete the rows of `gone` folders."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for name in gone:
                self._connection.execute("DELETE FROM runs WHERE name = ?", (os.fsencode(name),))
            for row in rows:
                self._write(row)

    def _write(self, row: Row) -> None:
        key = os.fsencode(row.name)
        values = [getattr(row, column.strip()) for column in _RUN.split(",")]
        self._connection.execute("DELETE FROM runs WHERE name = ?", (key,))
        self._connection.execute(
            f"INSERT INTO runs ({_RUN}) VALUES ({', '.join('?' * len(values))})", (key, *values[1:])
        )
        self._connection.executemany(
            "INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?)",
            [(key, f.route, f.requests, f.failed, f.p50_ns, f.p99_ns) for f in row.figures],
        )

    def rows(self) -> list[Row]:
        """Return every row, the oldest first.

        If a row has an impossible value, the database is damaged, and the folders are read instead.
        """
        try:
            return self._rows()
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            self._without_database(sqlite3.DatabaseError(str(error)))
            self.write(read_row(self.folder, name, stamp) for name, stamp in stamps_in(self.folder))
            return self._rows()

    def _rows(self) -> list[Row]:
        figures: dict[bytes, list[Figures]] = {}
        for name, *values in self._all(
            "SELECT name, route, requests, failed, p50_ns, p99_ns FROM figures ORDER BY rowid"
        ):
            figures.setdefault(name, []).append(_checked(Figures, dict(zip(_FIGURES, values, strict=True))))
        columns = _RUN.replace(" ", "").split(",")
        found = []
        for name, *values in self._all(f"SELECT {_RUN} FROM runs"):
            fields = dict(zip(columns, (os.fsdecode(name), *values), strict=True))
            found.append(_checked(Row, fields | {"figures": figures.get(name, [])}))
        return sorted(found, key=lambda row: (row.started_ns, row.name))

    def reported(self, scenario: str, load: str) -> dict[str, str]:
        """Return the changes that were reported earlier.

        The keys are the runs with which changes begin, the values the newest runs when they were reported.
        """
        rows = self._all("SELECT run, newest FROM reported WHERE scenario = ? AND load = ?", scenario, load)
        return {os.fsdecode(run): os.fsdecode(newest) for run, newest in rows}

    def report(self, scenario: str, load: str, runs: Iterable[str], newest: str) -> None:
        """Store that changes were reported. A failure to write is stored in `problem`."""
        rows = [(scenario, load, os.fsencode(run), os.fsencode(newest)) for run in runs]
        try:
            with self._connection:
                self._connection.executemany("INSERT OR IGNORE INTO reported VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            self.problem = self.problem or _why(database_of(self.folder), error)

    def _all(self, query: str, *values: str) -> list[tuple]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._without_database(error)
            if "reported" not in query:
                rows = [read_row(self.folder, name, stamp) for name, stamp in stamps_in(self.folder)]
                self.write(rows)
            return self._connection.execute(query, values).fetchall()

    def _without_database(self, error: sqlite3.Error) -> None:
        """Continue with an empty database in memory; raise `error` if there was a problem before."""
        if self.problem:
            raise error
        self.problem = _why(database_of(self.folder), error)
        self._connection.close()
        self._connection = _in_memory()

    def close(self) -> None:
        """Close the database; the history cannot be used afterwards."""
        self._connection.close()


@contextlib.contextmanager
def opened(folder: Path, *, rebuild: bool = False) -> Iterator[History]:
    """Open the history of a folder, and update it.

    It is in memory if the database cannot be used. `rebuild` creates the database again. Raise OSError if the folder
    cannot be read.
    """
    path = database_of(folder)
    try:
        if rebuild:
            _set_aside(path)
        history = History(folder, _connect(path))
    except Unusable as error:
        history = History(folder, _in_memory(), str(error))
    try:
        history.update()
        yield history
    finally:
        history.close()


def remember(folder: Path, run: str) -> str:
    """Write the rows of one run, search or session that has ended.

    Return the reason if that failed; empty if it succeeded, or if there is nothing to write.
    """
    path = database_of(folder)
    rows = [read_row(folder, name, stamp) for name, stamp in stamps_of(folder, run)]
    if not rows:
        return ""
    try:
        connection = _connect(path)
    except Unusable as error:
        return str(error)
    try:
        History(folder, connection).write(rows)
    except (sqlite3.Error, OSError) as error:
        return _why(path, error)
    finally:
        connection.close()
    return ""


def _checked(kind: type[_Kind], fields: dict[str, Any]) -> _Kind:
    """Convert values of the database to a struct.

    Raise ValidationError or ValueError if no run can have such values.
    """
    for key in ("p50_ns", "p99_ns", "control_ns", "peak_per_s"):
        if fields.get(key) is not None and not fields[key] > 0:
            raise ValueError(f"{key} is not above 0")
    return msgspec.convert(fields, examined(kind))


def _in_memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(_TABLES)
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    """Open or create a database. Raise Unusable if that is not possible."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Unusable(f"{path} is not a regular file")
    if path.exists() and path.stat().st_uid not in (os.geteuid(), 0):
        raise Unusable(f"{path} belongs to another user")
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
        connection.execute("PRAGMA trusted_schema = OFF")
        # A power failure may lose a transaction, but cannot leave half of one, and lost rows are read from the folders
        # again. A writer that does not wait for the disk holds the lock for a shorter time.
        connection.execute("PRAGMA synchronous = NORMAL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        if version > VERSION:
            raise Unusable(
                f"{path} was written by a newer replay: it has version {version}, and this replay reads up to {VERSION}"
            )
        has_tables = bool(connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone())
        if has_tables and application != APPLICATION:
            raise Unusable(f"{path} is a database of another program")
        if version < VERSION or not has_tables:
            _make(connection)
        connection.execute("PRAGMA foreign_keys = ON")
    except (sqlite3.Error, OSError, Unusable) as error:
        if connection is not None:
            connection.close()
        if isinstance(error, Unusable):
            raise
        raise Unusable(_why(path, error)) from None
    return connection


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")  # Another process may have created the tables in the meantime.
    if connection.execute("PRAGMA user_version").fetchone()[0] == 1:
        for statement in _SINCE_1:
            connection.execute(statement)
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _set_aside(path: Path) -> None:
    """Rename a database and its journals, so that a new database can be created. Raise Unusable if that fails."""
    if path.is_symlink():
        raise Unusable(f"{path} is not a regular file")
    try:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            if path.with_name(name).exists():
                path.with_name(name).replace(path.with_name(f"{name}.old"))
    except OSError as error:
        raise Unusable(f"{path} cannot be replaced: {reason_of(error)}") from None


def _why(path: Path, error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return f"{path} is locked by another program"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return f"{path} is damaged ({error}): `replay runs --rebuild` creates it again from the folders"
    return f"{path} cannot be used: {reason_of(error)}"

"""Writes a trace in constant memory, in a temporary folder that is renamed when it is complete.

While a trace is written, its folder holds a file that marks it as incomplete. The file is locked as long as its
writer lives. Only folders with this mark, or that contain a trace and nothing else, are ever deleted.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from replay._version import __version__
from replay.errors import OutputError, reason_of
from replay.files import delete_named
from replay_native.trace import dictionary as kernels

from .batch import Batch
from .columns import ALL_COLUMNS, EVENT_COLUMNS, Columns
from .manifest import FORMAT_VERSION, Manifest, write_manifest
from .reader import (
    PARTIAL_FILE,
    PARTIAL_MARK,
    Trace,
    is_partial_of,
    is_trace_file,
    strangers,
)
from .request_writer import DEDUPE_ENTRIES_MAX, RequestWriter
from .requests import BODIES, REQUESTS, Headers
from .responses import CUT_BODY, KEPT_BODY, RESPONSE_BODIES, RecordedResponse, ResponseWriter
from .route_rules import RouteRules
from .routes import assign_routes
from .sorting import EventSorter
from .sums import sums_of

Column = npt.NDArray[np.generic]

PRIVATE_FILES = (BODIES, RESPONSE_BODIES)
"""Files with bodies. A trace with any of them is readable only by its user."""


def is_private(manifest: Manifest) -> bool:
    """Return whether only the user may read a trace and its exports, because it holds bodies or unchanged secrets."""
    return bool(manifest.options.get("keep_secrets")) or any(name in manifest.files for name in PRIVATE_FILES)


def _cannot_write(path: Path, error: OSError) -> Exception:
    """Return the OutputError, with the trace's path, that a disk error becomes.

    An error about open files or memory is returned unchanged, because it is not about the trace.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error
    if error.errno == errno.ENOSPC:
        return OutputError(f"no space left to write {path}", hint="free space, or give another -o")
    return OutputError(f"cannot write {path}: {reason_of(error)}", hint="give another place with -o")


@contextlib.contextmanager
def _written_to(path: Path) -> Iterator[None]:
    """Convert disk errors to OutputError (see `_cannot_write`)."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def _give_back_memory() -> None:
    """Return freed memory to the system, which glibc would otherwise keep.

    The next step maps files, which cannot use that memory.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _mark(folder: Path) -> int:
    """Mark a new folder as incomplete, and return the descriptor of the mark, which holds a lock while it is open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / PARTIAL_FILE, flags, 0o600)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _is_left_over(folder: Path) -> bool:
    """Return whether a folder has a writer's mark, but no running writer."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(folder / PARTIAL_FILE, flags)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


class TraceWriter:
    """Writes the trace at `path`; use it in a `with` block.

    At the end of the block, the trace is renamed into place, and `trace` is the opened trace. If the block raises,
    nothing is left behind. OutputError is raised if `path` exists or cannot be written. With `overwrite`, `path`
    may be an existing trace, which is replaced.

    The importer sets its own fields in `manifest`; the writer adds counts, lists and segments. `rules` are the
    user's route rules. A `private` trace, and any trace with bodies or unchanged secrets, is readable only by the user.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        rules: RouteRules | None = None,
        private: bool = False,
    ) -> None:
        self.path, self._rules, self._private = Path(path), rules, private
        self.overwrite = overwrite
        self.manifest = Manifest(written_by=f"replay {__version__}")
        self.trace: Trace | None = None
        self._folder = self.path.parent / f"{self.path.name}{PARTIAL_MARK}{os.getpid()}"

    def __enter__(self) -> TraceWriter:
        with _written_to(self.path):
            self.refuse_existing()
            self._remove_leftovers()
            self._folder.mkdir()
            self._mode = stat.S_IMODE(self._folder.stat().st_mode)
            self._folder.chmod(0o700)
            self._marked = -1
            try:
                self._marked = _mark(self._folder)
                self._open_dictionaries()
                self._events = EventSorter(self._folder)
            except BaseException:
                self._discard_folder()
                raise
        self._clients = 0
        self._kept = np.empty(0, np.uint8)
        return self

    def _open_dictionaries(self) -> None:
        """Create the dictionary files in the folder."""
        self._requests = RequestWriter(self._folder)
        self._responses = ResponseWriter(self._folder)
        self._weights = np.zeros(DEDUPE_ENTRIES_MAX, dtype=np.int64)

    def _weigh(self, request: npt.NDArray[np.uint32]) -> None:
        """Count how many events refer to each request."""
        kernels.tally(request, self._weights)

    def _end_dictionaries(self) -> None:
        """Finish adding requests."""
        self._requests.end()

    def _close_dictionaries(self) -> None:
        """Write and close the dictionaries, assign the routes, and describe both in the manifest."""
        manifest, requests = self.manifest, self._requests
        requests.close()
        _give_back_memory()
        self._responses.close()
        manifest.requests = requests.rows
        if requests.bodies:
            manifest.format_version = FORMAT_VERSION
        manifest.methods, manifest.hosts = requests.methods, requests.hosts
        weights = self._weights[: requests.repeated_rows]
        manifest.routes, manifest.routes_folded = assign_routes(
            self._folder / REQUESTS, manifest.methods, weights, self._rules
        )

    def _discard_dictionaries(self) -> None:
        """Release temporary files that are needed only while the dictionaries are written."""
        self._requests.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with _written_to(self.path):
                    self._finish()
        finally:
            try:
                self._discard_dictionaries()
            finally:
                self._discard_folder()

    def _discard_folder(self) -> None:
        """Remove the folder if it was not renamed into place, and release the lock."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._marked >= 0:
            os.close(self._marked)
            self._marked = -1

    def refuse_existing(self) -> None:
        """Raise OutputError if `path` exists and must not be replaced."""
        if not os.path.lexists(self.path):
            return
        if not self.overwrite:
            raise OutputError(f"{self.path} exists", hint="give another -o, or --force to replace it")
        other = strangers(self.path)
        if other is None:
            raise OutputError(
                f"{self.path} exists and is not a trace folder: it will not be replaced",
                hint="give another -o",
            )
        if other:
            raise OutputError(
                f"{self.path} exists and holds {other[0]}, which is not a file of a trace: it will not be replaced",
                hint="move it elsewhere, or give another -o",
            )

    def _remove_leftovers(self) -> None:
        """Remove the folders of killed writers of the same path: those with a mark, but no running writer."""
        with contextlib.suppress(OSError):
            for entry in [*self.path.parent.iterdir()]:
                if is_partial_of(entry.name, self.path.name) and _is_left_over(entry):
                    delete_named(entry, is_trace_file)

    def use_rules(self, rules: RouteRules) -> None:
        """Replace the route rules, which are applied at the end."""
        self._rules = rules

    def method_id(self, name: str) -> int:
        """Return the index of a method name, for `add_requests`.

        Raises InputError for an invalid name, and beyond 256 different ones.
        """
        return self._requests.method_id(name)

    def host_id(self, name: str) -> int:
        """Return the index of a host, for `add_requests`, or -1 beyond 65,536 different ones."""
        return self._requests.host_id(name)

    def add_headers(self, headers: Headers) -> int:
        """Add a header set, given as (name, value) pairs, and return its index."""
        try:
            return self._requests.headers_id(headers)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def add_body(self, body: bytes) -> int:
        """Add a body and return its index."""
        try:
            return self._requests.body_id(body)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def add_response(self, response: RecordedResponse) -> int:
        """Add a recorded response and return its index, for `add_events`."""
        try:
            return self._responses.add(response)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def add_request(
        self,
        method: str,
        target: bytes,
        host: str | None = None,
        headers: Headers | None = None,
        body: bytes | None = None,
    ) -> int:
        """Add one request and return its id, for `add_events`.

        `target` is exactly what the request line contains.
        """
        with _written_to(self.path):
            return self._requests.add(
                self.method_id(method),
                target,
                -1 if host is None else self.host_id(host),
                -1 if headers is None else self.add_headers(headers),
                -1 if body is None else self.add_body(body),
            )

    def add_requests(
        self,
        data: npt.NDArray[np.uint8],
        offsets: npt.NDArray[np.int64],
        method: npt.NDArray[np.int64],
        host: npt.NDArray[np.int64],
        headers: npt.NDArray[np.int64] | None = None,
        body: npt.NDArray[np.int64] | None = None,
    ) -> npt.NDArray[np.uint32]:
        """Add n requests and return their ids, for `add_events`.

        Target i is data[offsets[i]:offsets[i + 1]]. The other columns are indexes; -1 is none.
        """
        with _written_to(self.path):
            return self._requests.add_many(data, offsets, method, host, headers, body)

    def add_events(
        self,
        at_ns: npt.NDArray[np.int64],
        request: npt.NDArray[np.uint32],
        client: npt.NDArray[np.uint32],
        status: Column | None = None,
        took_ns: Column | None = None,
        bytes: Column | None = None,
        *,
        response: Column | None = None,
        first_byte_ns: Column | None = None,
        in_order: bool = False,
    ) -> None:
        """Add events, in any order, that refer to requests and responses that were added before.

        The columns have equal lengths; None means that all values are unknown. With `in_order`, the events must be
        in time order, and none may be earlier than those already added; they are then added faster.
        """
        given = (at_ns, request, client, status, took_ns, bytes, response, first_byte_ns)
        wide = response is not None or first_byte_ns is not None
        columns = {
            name: np.full(len(at_ns), -1, dtype=dtype) if column is None else np.asarray(column, dtype=dtype)
            for (name, dtype), column in zip(ALL_COLUMNS.items(), given, strict=True)
            if wide or name in EVENT_COLUMNS
        }
        if not len(at_ns):
            return
        self._weigh(columns["request"])
        if wide:
            self._count_responses(columns)
        self._clients = max(self._clients, int(client.max()) + 1)
        self.manifest.rows += len(at_ns)
        with _written_to(self.path):
            if in_order:
                self._events.add_in_order(columns)
            else:
                self._events.add(columns)

    def add_batch(self, batch: Batch, *, later_ns: int = 0, in_order: bool = False) -> None:
        """Add events of another trace whose requests and responses have the same ids here.

        `later_ns` is added to the timestamps.
        """
        self.add_events(
            batch.at_ns + later_ns if later_ns else batch.at_ns, batch.request, batch.client, batch.status,
            batch.took_ns, batch.bytes, response=batch.response, first_byte_ns=batch.first_byte_ns, in_order=in_order,
        )  # fmt: skip

    def _kept_responses(self) -> npt.NDArray[np.uint8]:
        """Return the flags of each response (see `Responses.kept`)."""
        if len(self._kept) != len(self._responses):
            self._kept = self._responses.kept()
        return self._kept

    def _count_responses(self, columns: Columns) -> None:
        """Count the responses of events and their bodies in the manifest."""
        manifest, response = self.manifest, columns["response"]
        kept = self._kept_responses()[response[response >= 0]]
        manifest.responses += len(kept)
        manifest.response_bodies += int(np.count_nonzero(kept & KEPT_BODY))
        manifest.response_bodies_cut += int(np.count_nonzero(kept & CUT_BODY))
        if len(kept) or (columns["first_byte_ns"] >= 0).any():
            manifest.format_version = FORMAT_VERSION

    def _finish(self) -> None:
        """Complete events, dictionaries and routes, write the manifest last, and rename the folder."""
        manifest = self.manifest
        self._end_dictionaries()
        manifest.segments, manifest.files = self._events.finish()
        _give_back_memory()
        self._close_dictionaries()
        manifest.clients = self._clients
        manifest.lines = manifest.lines or manifest.rows + sum(manifest.rejected.values())
        if manifest.segments:
            manifest.start_ns = manifest.segments[0].start_ns
            manifest.end_ns = manifest.segments[-1].end_ns
        manifest.files = {
            entry.name: manifest.files.get(entry.name) or sums_of(entry)
            for entry in sorted(self._folder.iterdir())
            if entry.name.endswith(".arrow")
        }
        write_manifest(self._folder, manifest)
        self._open_to_others()
        self._rename()
        self.trace = Trace.open(self.path)

    def _open_to_others(self) -> None:
        """Give the folder its usual mode, or make the files private, too, if the trace must stay private."""
        if self._private or is_private(self.manifest):
            for entry in self._folder.iterdir():
                entry.chmod(0o600)
        else:
            self._folder.chmod(self._mode)

    def _rename(self) -> None:
        self.refuse_existing()
        (self._folder / PARTIAL_FILE).unlink()
        if not os.path.lexists(self.path):
            self._folder.rename(self.path)
            return
        old = self._folder.with_name(f"{self._folder.name}-old")
        self.path.rename(old)
        try:
            self._folder.rename(self.path)
        except BaseException:
            old.rename(self.path)
            raise
        delete_named(old, is_trace_file)

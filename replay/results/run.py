"""A run as other commands read it: its document, and its histograms on demand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import msgspec

from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole

from .document import Latency, RunDocument, refuse_newer
from .folder import DOCUMENT_BYTES_MAX, RunFolder, read_rows
from .measured import Measured, from_folder
from .recover import recover
from .samples import Lookup, Sample
from .timeline import Second


@dataclass(frozen=True)
class Run:
    """A complete run. `recovered`: it had been killed, and was completed just now."""

    folder: RunFolder
    document: RunDocument
    recovered: bool = False

    @cached_property
    def measured(self) -> Measured:
        """The histograms of totals.hlog, each decoded when it is asked for."""
        return from_folder(self.folder, self.document)

    def latency(self, name: str = "response") -> Latency:
        """The latencies of this name over all routes: response, service, wait, generator lag ("lateness") and so on.

        UsageError where the run has none of this name; a closed loop has `service` and `first_byte` alone.
        """
        latencies = self.document.latency
        found = getattr(latencies, name.replace(".", "_"), None)
        if not isinstance(found, Latency):
            there = [
                field
                for field in latencies.__struct_fields__
                if isinstance(getattr(latencies, field), Latency)
            ]
            raise UsageError(f"the run measured no {name!r}", hint=f"it measured {', '.join(there)}")
        return found

    def timeline(self) -> list[Second]:
        """The rows of timeline.jsonl, without an incomplete last one."""
        return read_rows(self.folder.timeline, Second)

    def samples(self) -> list[Sample]:
        """The slowest and the first failed requests, by route."""
        return read_rows(self.folder.samples, Sample)


def load_run(path: str | os.PathLike[str], lookup: Lookup | None = None) -> Run:
    """Open the folder of a run; a killed run is completed first. InputError where it is none, or of a newer version."""
    folder = RunFolder.open(path)
    recovered = not folder.is_whole
    if recovered:
        recover(folder, lookup)
    try:
        data = read_whole(folder.run, DOCUMENT_BYTES_MAX)
        refuse_newer(folder.run, data)
        return Run(folder, msgspec.json.decode(data, type=RunDocument), recovered)
    except OSError as error:
        raise InputError(f"{folder.run} cannot be read: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{folder.run} is not the document of a run: {error}") from None

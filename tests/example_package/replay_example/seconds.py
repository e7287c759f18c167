"""A sink: a CSV with a line for each second, and one for the whole run. `--sink seconds=FILE`."""

from __future__ import annotations

from pathlib import Path

from replay.engine.sinks import Deltas, RunDocument, Second, Sink, Started


class Seconds(Sink):
    def __init__(self, value: str) -> None:
        if not value.endswith(".csv"):
            raise ValueError(f"{value!r} is no .csv file")
        self._path = Path(value)

    def start(self, started: Started) -> None:
        self._file = self._path.open("x")
        self._file.write("second,sent,ok,responses\n")

    def second(self, second: Second, deltas: Deltas) -> None:
        responses = sum(delta.count for delta in deltas.histograms if delta.tag == "response.all")
        self._file.write(f"{second.t_s},{deltas.counters['sent']},{deltas.counters['ok']},{responses}\n")

    def end(self, document: RunDocument) -> None:
        self._file.write(f"all,{document.accounts.sent},{document.accounts.ok},\n")

    def close(self) -> None:
        self._file.close()

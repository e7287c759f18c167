"""`--sink prometheus=HOST:PORT[,linger=TIME]`: serves the run's figures for Prometheus to scrape at `/metrics`.

A run is often shorter than the interval at which it is scraped. So the port stays open after the end of the run
until the final figures were scraped once, for at most the linger time.

Histograms are classic ones. Neighboring bounds differ by a factor of 10^(1/20), from 100 us to 100 s.
`histogram_quantile` interpolates between two bounds, so a percentile in that range is wrong by 12.2% at most.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np

from replay.engine.sinks.interface import Sink
from replay.errors import UsageError, reason_of
from replay.ledger.histogram import Histogram
from replay.ledger.metrics import METRICS, Metric
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay.settings.listening import parse_place, place_text
from replay.units import SECOND_NS

from .options import missing_extra, take_apart
from .totals import Snapshot, Totals

if TYPE_CHECKING:
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.metrics_core import Metric as Family

FORM = "prometheus=HOST:PORT[,linger=TIME]"
LINGER_S = 20.0
"""The default linger time, which is longer than the interval of 15 s at which Prometheus usually scrapes."""

BOUNDS_PER_DECADE = 20
BOUNDS_S = tuple(
    float(f"{10 ** (step / BOUNDS_PER_DECADE):.3g}")
    for step in range(-4 * BOUNDS_PER_DECADE, 2 * BOUNDS_PER_DECADE + 1)
)
"""The upper bounds of the buckets, in seconds."""

_BOUNDS_NS = np.array([round(bound * SECOND_NS) for bound in BOUNDS_S], np.int64)
_CLIENT_TIMEOUT_S = 5.0
_SHUTDOWN_S = 2.0


def prometheus(value: str) -> PrometheusSink:
    """Return the sink of `--sink prometheus=...`.

    Raises UsageError if the value is invalid, the port cannot be used or the library is missing, before anything is
    sent.
    """
    address, options = take_apart("prometheus", value, {"linger": LINGER_S}, FORM)
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise missing_extra("prometheus", error) from None
    try:
        host, port = parse_place(address)
    except UsageError as error:
        raise UsageError(f"--sink prometheus: {error}", hint=f"write --sink {FORM}") from None
    sink = PrometheusSink(host, port, options["linger"])
    sink.check()
    return sink


class PrometheusSink(Sink):
    """Serves `/metrics` during the run, and until the final figures were scraped."""

    def __init__(self, host: str, port: int, linger_s: float) -> None:
        self._host, self._port, self._linger_s = host, port, linger_s
        self._place = place_text(host, port)
        self.name = f"prometheus={self._place}"
        self._totals = Totals()
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._scraped = threading.Event()
        """Set when the final figures have been scraped."""

    def _listen(self) -> WSGIServer:
        server = _Server6 if ":" in self._host else _Server
        return make_server(self._host, self._port, _app(self), server, _Handler)

    def check(self) -> None:
        """Raise UsageError if the address cannot be listened on."""
        try:
            self._listen().server_close()
        except OSError as error:
            raise UsageError(
                f"--sink {self.name}: cannot listen there: {reason_of(error)}",
                hint="give another host or port",
            ) from None

    def start(self, started: Started) -> None:
        """Open the port."""
        self._totals.start(started)
        self._server = self._listen()
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="prometheus", daemon=True
        )
        self._thread.start()

    def second(self, second: Second, deltas: Deltas) -> None:
        """Add a second to the totals."""
        self._totals.add(deltas)

    def end(self, document: RunDocument) -> None:
        """Make the figures final."""
        self._totals.finish(document)
        self._ended.set()

    def close(self) -> None:
        """Close the port, unless it must stay open for the final scrape: see `linger`."""
        if not self._ended.is_set() or self._linger_s <= 0 or self._scraped.is_set():
            self._shut()

    def lingering(self) -> str:
        """Return what this sink still waits for after the run; empty if nothing."""
        if self._server is None or self._scraped.is_set():
            return ""
        return (
            f"http://{self._place}/metrics stays open until its next scrape, for at most {self._linger_s:g} s"
            " (Ctrl-C ends it)"
        )

    def linger(self) -> str:
        """Wait for a scrape of the final figures, up to the linger time, then close the port.

        Returns a warning if there was none, otherwise an empty text.
        """
        if self._server is None:
            return ""
        try:
            came = self._scraped.wait(self._linger_s)
        finally:
            self._shut()
        return "" if came else f"{self.name}: nobody scraped the final figures within {self._linger_s:g} s"

    def families(self) -> Iterator[Family]:
        """Yield the metrics of a scrape."""
        snapshot = self._totals.snapshot()
        for metric in METRICS:
            family = _family(metric, snapshot)
            if family is not None:
                yield family

    def scraped(self, is_final: bool) -> None:
        """Note that a response was written. `is_final` means that it was made after the end of the run."""
        if is_final:
            self._scraped.set()

    @property
    def has_ended(self) -> bool:
        """Whether the figures are final."""
        return self._ended.is_set()

    def _shut(self) -> None:
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            server.shutdown()
            server.server_close()
            self._thread.join(_SHUTDOWN_S)


class _Handler(WSGIRequestHandler):
    timeout = _CLIENT_TIMEOUT_S

    def log_message(self, *args: Any) -> None:
        """Log nothing: the base class would write to standard error."""

    def address_string(self) -> str:
        """Return the peer's address, without a lookup of its name."""
        return str(self.client_address[0])


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without a lookup of the machine's own name, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnects during a response."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Sent:
    """A response body that reports to the sink when it was written."""

    def __init__(self, chunks: Iterable[bytes], sink: PrometheusSink, is_final: bool) -> None:
        self._chunks, self._sink, self._is_final = chunks, sink, is_final
        self._whole = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        self._whole = True

    def close(self) -> None:
        self._sink.scraped(self._is_final and self._whole)


def _app(sink: PrometheusSink) -> Any:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.registry import Collector

    class _Collected(Collector):
        def collect(self) -> Iterable[Family]:
            return sink.families()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected())
    inner = make_wsgi_app(registry)

    def app(request: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if request.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the metrics are at /metrics\n"]
        is_final = sink.has_ended and request.get("REQUEST_METHOD") == "GET"
        return _Sent(inner(request, start_response), sink, is_final)

    return app


def _family(metric: Metric, snapshot: Snapshot) -> Family | None:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "histogram":
        histogram = snapshot.histogram_of(metric)
        family = HistogramMetricFamily(metric.name, metric.help)
        if histogram is not None:
            add_buckets(family, histogram)
        return family
    points = snapshot.points.get(metric.name)
    if points is None:
        return None
    plain: Any = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        metric.name, metric.help, labels=metric.labels
    )
    for point in points:
        plain.add_metric([point.labels[name] for name in metric.labels], float(point.value))
    made: Family = plain
    return made


def add_buckets(family: HistogramMetricFamily, histogram: Histogram) -> None:
    """Add a histogram as classic buckets.

    The count of a recorded value range goes to the lowest bound that is at or above the highest value of the
    range.
    """
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    counts = below[np.searchsorted(histogram.values(), _BOUNDS_NS, side="right")]
    buckets = [(f"{bound:g}", float(count)) for bound, count in zip(BOUNDS_S, counts.tolist(), strict=True)]
    mean_ns, _ = histogram.mean_and_deviation()
    count = histogram.count
    family.add_metric([], [*buckets, ("+Inf", float(count))], sum_value=mean_ns * count / SECOND_NS)

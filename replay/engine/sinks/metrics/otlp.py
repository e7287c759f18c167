"""`--sink otlp=URL[,every=TIME]`: pushes the run's figures to an OpenTelemetry collector.

The protocol is OTLP over HTTP, with protobuf. A separate thread sends the newest totals every few seconds. A
collector that is slow or down delays nothing: the next export has everything that the lost one had, because
counters and histograms are cumulative. After a failure the pause doubles, up to BACKOFF_MAX_S. The end of the run
sends the final figures at once. If that fails, the thread retries for FINAL_S.

Histograms are exponential ones with at most 160 buckets, as in OpenTelemetry's SDKs: their scale is the highest at
which the recorded range fits (https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram).
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np

from replay._version import __version__
from replay.engine.sinks.interface import Sink
from replay.errors import OutputError, UsageError, reason_of
from replay.ledger.histogram import Histogram
from replay.ledger.metrics import METRICS, Metric
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay.units import SECOND_NS, counted

from .options import missing_extra, take_apart
from .totals import Snapshot, Totals

if TYPE_CHECKING:
    from opentelemetry.proto.metrics.v1 import metrics_pb2

FORM = "otlp=http://HOST:4318[,every=TIME]"
EVERY_S = 5.0
EVERY_S_MIN = 0.5
PATH = "/v1/metrics"
HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"
ATTRIBUTES_VARIABLE = "OTEL_RESOURCE_ATTRIBUTES"
BUCKETS_MAX = 160
SCALE_MAX = 20
ATTEMPT_S = 2.0
"""The time limit of one export."""

END_S = 1.5
"""How long the end of the run waits for the final export: less than the run waits for its sinks."""

FINAL_S = 10.0
BACKOFF_MAX_S = 30.0
_UNITS = {"seconds": "s", "ns": "ns", "bytes": "By", "": "{request}"}


def otlp(value: str) -> OtlpSink:
    """Return the sink of `--sink otlp=...`.

    Raises UsageError for an invalid value or environment variable, or a missing library.
    """
    address, options = take_apart("otlp", value, {"every": EVERY_S}, FORM)
    try:
        import opentelemetry.proto.collector.metrics.v1.metrics_service_pb2  # noqa: F401
    except ImportError as error:
        raise missing_extra("otlp", error) from None
    url = urllib.parse.urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError("--sink otlp: the address is not an http or https URL", hint=f"write --sink {FORM}")
    if url.username or url.password:
        raise UsageError(
            "--sink otlp: the URL contains a user or a password",
            hint=f"put credentials into the environment: {HEADERS_VARIABLE}='authorization=Bearer ...'",
        )
    if options["every"] < EVERY_S_MIN:
        raise UsageError(
            f"--sink otlp: every must be at least {EVERY_S_MIN:g} s", hint=f"write --sink {FORM}"
        )
    path = PATH if url.path in ("", "/") else url.path
    return OtlpSink(urllib.parse.urlunsplit(url._replace(path=path)), options["every"], _headers())


def _headers() -> dict[str, str]:
    """Return the headers in the environment variable: `name=value,name=value`, percent-encoded."""
    return _pairs(HEADERS_VARIABLE)


def _pairs(variable: str) -> dict[str, str]:
    pairs = {}
    for text in filter(None, (each.strip() for each in os.environ.get(variable, "").split(","))):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{variable}: a part is not name=value", hint="write name=value,name=value")
        pairs[name.strip()] = urllib.parse.unquote(value.strip())
    return pairs


class OtlpSink(Sink):
    """Pushes a run's totals to an OpenTelemetry collector."""

    def __init__(self, url: str, every_s: float, headers: dict[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        self.name = f"otlp={parts.scheme}://{parts.netloc}{parts.path}"
        self._url, self._every_s, self._headers = url, every_s, headers
        self._attributes = _pairs(ATTRIBUTES_VARIABLE)
        self._totals = Totals()
        self._start_ns = 0
        self._wake, self._delivered = threading.Event(), threading.Event()
        self._stopping = False
        self._failures, self._error = 0, ""
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self, started: Started) -> None:
        """Start the thread that exports."""
        self._totals.start(started)
        self._start_ns = started.start.wall_ns
        self._attributes = {
            "service.name": "replay",
            "service.version": __version__,
            "replay.run_id": started.run_id,
            "replay.target": started.target,
            "host.name": started.host.name,
            **self._attributes,
        }
        self._thread.start()

    def second(self, second: Second, deltas: Deltas) -> None:
        """Add a second to the totals, without waiting for the collector."""
        self._totals.add(deltas)

    def end(self, document: RunDocument) -> None:
        """Export the final figures. Raises OutputError if the collector has not accepted them within END_S."""
        self._totals.finish(document)
        self._wake.set()
        if not self._delivered.wait(END_S):
            why = self._error or f"no answer within {END_S:g} s"
            lost = f" ({counted(self._failures, 'export')} failed)" if self._failures else ""
            raise OutputError(f"the final figures were not delivered{lost}: {why}")

    def close(self) -> None:
        """Stop exporting if the run was not saved. Otherwise the final export continues (see `linger`)."""
        self._stopping = True
        self._wake.set()

    def lingering(self) -> str:
        """Return what this sink still waits for after the run; empty if nothing."""
        if self._delivered.is_set() or not self._thread.is_alive():
            return ""
        return f"{self.name}: the final export is retried for at most {FINAL_S:g} s (Ctrl-C ends it)"

    def linger(self) -> str:
        """Wait for the final export, and return a sentence that says whether it was delivered."""
        if self._delivered.wait(FINAL_S):
            return f"{self.name}: the final figures were delivered after all"
        return f"{self.name}: the final figures were not delivered: {self._error or 'no answer'}"

    def _run(self) -> None:
        pause_s, give_up_at = self._every_s, float("inf")
        while True:
            self._wake.wait(pause_s)
            self._wake.clear()
            snapshot = self._totals.snapshot()
            if self._stopping and not snapshot.is_final:
                return
            if snapshot.is_final and give_up_at == float("inf"):
                give_up_at = time.monotonic() + FINAL_S
            self._error = self._export(snapshot)
            if not self._error:
                pause_s = self._every_s
                if snapshot.is_final:
                    self._delivered.set()
                    return
                continue
            self._failures += 1
            pause_s = min(max(2 * pause_s, 1.0), BACKOFF_MAX_S) if not snapshot.is_final else 0.5
            if time.monotonic() > give_up_at:
                return

    def _export(self, snapshot: Snapshot) -> str:
        """Send one export, and return why it failed; empty if it did not."""
        body = request_of(snapshot, self._attributes, self._start_ns, time.time_ns()).SerializeToString()
        headers = {
            **self._headers,
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"replay/{__version__}",
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=ATTEMPT_S) as response:
                return _rejected(response.read(1 << 16))
        except urllib.error.HTTPError as error:
            return f"the collector answered {error.code}"
        except urllib.error.URLError as error:
            reason = error.reason
            return reason_of(reason) if isinstance(reason, OSError) else str(reason)
        except ValueError:
            # http.client's own message is not shown, because it contains the value, which may be a secret.
            return f"a header of {HEADERS_VARIABLE} cannot be sent"
        except (OSError, HTTPException) as error:
            return reason_of(error) if isinstance(error, OSError) else type(error).__name__


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because an export must go only to the given URL."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _rejected(body: bytes) -> str:
    """Return what a collector rejected although it responded with 200; empty if nothing."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        partial = ExportMetricsServiceResponse.FromString(body).partial_success
    except DecodeError:
        return ""
    rejected = int(partial.rejected_data_points)
    return (
        f"the collector rejected {counted(rejected, 'data point')}: {partial.error_message}"
        if rejected
        else ""
    )


def request_of(snapshot: Snapshot, attributes: dict[str, str], start_ns: int, now_ns: int) -> Any:
    """Return an ExportMetricsServiceRequest of cumulative totals."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.extend(
        KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in attributes.items() if value
    )
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = "replay", __version__
    for metric in METRICS:
        _add(scope.metrics, metric, snapshot, (start_ns, now_ns))
    return request


def _add(metrics: Any, metric: Metric, snapshot: Snapshot, times: tuple[int, int]) -> None:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

    points = snapshot.points.get(metric.name)
    histogram = snapshot.histogram_of(metric)
    if points is None and histogram is None:
        return
    made = metrics.add(name=metric.name, description=metric.help, unit=_UNITS[metric.unit])
    if histogram is not None:
        made.exponential_histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        point = made.exponential_histogram.data_points.add(
            start_time_unix_nano=times[0], time_unix_nano=times[1]
        )
        fill_exponential(point, histogram)
        return
    if metric.kind == "counter":
        made.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        made.sum.is_monotonic = True
    number_points = made.sum.data_points if metric.kind == "counter" else made.gauge.data_points
    for each in points or ():
        point = number_points.add(start_time_unix_nano=times[0], time_unix_nano=times[1], as_int=each.value)
        point.attributes.extend(
            KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in each.labels.items()
        )


def fill_exponential(point: metrics_pb2.ExponentialHistogramDataPoint, histogram: Histogram) -> None:
    """Fill a data point, in seconds, with the counts of a histogram.

    No count is lost: the zero count and the buckets add up to the count of the histogram.
    """
    used = np.flatnonzero(histogram.counts)
    counts = histogram.counts[used]
    mean_ns, _ = histogram.mean_and_deviation()
    point.count = int(counts.sum())
    point.sum = mean_ns * point.count / SECOND_NS
    values_s = histogram.values()[used] / SECOND_NS
    point.zero_count = int(counts[values_s <= 0].sum())
    counts, values_s = counts[values_s > 0], values_s[values_s > 0]
    if not len(values_s):
        return
    point.min, point.max = histogram.min / SECOND_NS, histogram.max / SECOND_NS
    logs = np.log2(values_s)
    scale = SCALE_MAX
    while scale > -SCALE_MAX and _index(logs[-1], scale) - _index(logs[0], scale) >= BUCKETS_MAX:
        scale -= 1
    indices = np.ceil(logs * 2.0**scale).astype(np.int64) - 1
    point.scale, point.positive.offset = scale, int(indices[0])
    filled = np.bincount(indices - indices[0], weights=counts.astype(np.float64))
    point.positive.bucket_counts.extend(int(count) for count in filled)


def _index(log: float, scale: int) -> int:
    """Return the bucket of a value whose base-2 logarithm is `log`.

    base^index < value <= base^(index + 1), where base is 2^(2^-scale).
    """
    return int(np.ceil(log * 2.0**scale)) - 1

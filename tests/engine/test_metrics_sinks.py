"""Prometheus and OTLP sinks: what they export equals the accounts and the histograms of the run, and nothing delays it."""

from __future__ import annotations

import http.server
import json
import math
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import ExponentialHistogramDataPoint
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from replay.engine.sinks import make_sink
from replay.engine.sinks.metrics.otlp import BUCKETS_MAX, OtlpSink, fill_exponential
from replay.engine.sinks.metrics.prometheus import BOUNDS_S, add_buckets
from replay.engine.sinks.metrics.totals import Snapshot
from replay.errors import UsageError
from replay.ledger import histogram as hdr
from replay.ledger.metrics import METRICS, SERIES
from replay.results import hlog
from replay.staging.sink import Sink as Target
from replay_native.ground.jit import warm
from tests.support.ports import free_port

CLASSIC_ERROR = 10 ** (1 / 20) - 1 + 0.005
"""Docs: 12.2%, and the rounding of bounds to three digits."""

latencies = st.lists(st.floats(1e5, 1e11).map(int), min_size=1, max_size=60)


def histogram_of(values: list[int]) -> hdr.Histogram:
    warm(["ledger.hdr"])
    made = hdr.empty()
    lowest = made.values()
    for value in values:
        made.counts[int(np.searchsorted(lowest, value))] += np.uint64(1)
    return made


def classic_quantile(buckets: dict[float, float], share: float) -> float:
    """What `histogram_quantile` computes (Prometheus' documentation): linear between the bounds of a bucket."""
    rank, below, low = share * buckets[math.inf], 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= rank and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
        below, low = count, bound
    return low


def exponential_quantile(point: ExponentialHistogramDataPoint, share: float) -> float:
    """The upper bound of the bucket in which a share of the values ends."""
    rank, below = share * point.count, point.zero_count
    for step, count in enumerate(point.positive.bucket_counts):
        below += count
        if below >= rank:
            return float(2.0 ** ((point.positive.offset + step + 1) * 2.0**-point.scale))
    raise AssertionError("a share above 1")


@pytest.mark.hypothesis
@given(latencies, st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_classic_buckets_count_every_value_and_quantiles_are_within_the_stated_error(
    values: list[int], share: float
) -> None:
    family = HistogramMetricFamily("x", "x")
    add_buckets(family, histogram_of(values))
    buckets = {float(s.labels["le"]): s.value for s in family.samples if s.name == "x_bucket"}
    assert sorted(buckets)[:-1] == list(BOUNDS_S) and buckets[math.inf] == len(values)
    assert [count for _, count in sorted(buckets.items())] == sorted(buckets.values())
    exact_s = sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] / 1e9
    found_s = classic_quantile(buckets, share)
    assert found_s <= exact_s * (1 + CLASSIC_ERROR) and found_s >= exact_s / (1 + CLASSIC_ERROR)


@pytest.mark.hypothesis
@given(st.lists(st.integers(0, 3_600 * 10**9), min_size=1, max_size=60), st.sampled_from([0.5, 0.99]))
def test_exponential_buckets_count_every_value(values: list[int], share: float) -> None:
    point = ExponentialHistogramDataPoint()
    fill_exponential(point, histogram_of(values))
    assert point.count == len(values) == point.zero_count + sum(point.positive.bucket_counts)
    assert len(point.positive.bucket_counts) <= BUCKETS_MAX
    exact_s = sorted(values)[max(math.ceil(share * len(values)) - 1, 0)] / 1e9
    if exact_s > 0:
        base = 2.0 ** (2.0**-point.scale)
        assert exact_s * (1 - 1e-9) <= exponential_quantile(point, share) <= exact_s * base * 1.002


class Collector:
    """An OTLP collector over HTTP. `status` is its answer, after `delay_s`."""

    def __init__(self, status: int = 200, delay_s: float = 0.0) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(delay_s)
                outer.headers.append(
                    {name.lower(): text for name, text in self.headers.items()} | {"path": self.path}
                )
                if status == 200:
                    outer.requests.append(ExportMetricsServiceRequest.FromString(body))
                answer = ExportMetricsServiceResponse().SerializeToString()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metrics") / "access.log"
    path.write_text(
        "".join(
            f'10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 20:02d} +0000] "GET /a?n={n} HTTP/1.1" 200 12\n'
            for n in range(60)
        )
    )
    return path


def command(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *map(str, words)],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | (env or {}),
    )  # fmt: skip


def scrape(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def expected(folder: Path) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every counter of a run, from its run.json."""
    document = json.loads((folder / "run.json").read_text())
    accounts, detail = document["accounts"], document["accounts_detail"]
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"]
    flat = {"planned": accounts["planned"], "sent": accounts["sent"]}
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {
        ("replay_planned", ()): accounts["planned"]
    }
    for series in SERIES:
        labels = tuple(sorted(series.labels.items()))
        value = flat.get(series.counter)
        if value is None and "reason" in series.labels:
            value = detail["unsent"].get(series.labels["reason"], 0)
        if value is not None:
            found[series.metric, labels] = value
    return found


@pytest.mark.whole
def test_both_exports_equal_the_run(log: Path, tmp_path: Path) -> None:
    port, out, seen = free_port(), tmp_path / "run", []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            try:
                seen.append(scrape(port))
            except OSError:
                continue

    watcher = threading.Thread(target=watch)
    with Target() as target, Collector().serving() as collector:
        watcher.start()
        done = command(
            "run", log, "--target", f"http://127.0.0.1:{target.port}", "-o", out, "--plain",
            "--sink", f"prometheus=127.0.0.1:{port},linger=30s", "--sink", f"otlp={collector.url},every=1s",
            env={"OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b", "OTEL_RESOURCE_ATTRIBUTES": "team=shop"},
        )  # fmt: skip
        stop.set()
        watcher.join()
    assert done.returncode in (0, 4), done.stdout + done.stderr
    document = json.loads((out / "run.json").read_text())
    assert not [note for note in document["notes"] if note["code"].startswith("SINK")]
    last = seen[-1]
    for key, value in expected(out).items():
        assert last[key] == value, key
    assert last["replay_due_total", ()] == 60 and len(seen) > 2
    assert sum(value for (name, _), value in last.items() if name == "replay_responses_total") == 60
    totals = hlog.read_hlog(out / "totals.hlog").by_tag()
    for metric in METRICS:
        if metric.kind == "histogram":
            histogram = totals[metric.tag]
            assert last[f"{metric.name}_count", ()] == histogram.count
            buckets = {float(dict(k)["le"]): v for (n, k), v in last.items() if n == f"{metric.name}_bucket"}
            p99_s = histogram.percentiles([99])[0] / 1e9
            if p99_s > BOUNDS_S[0]:
                assert classic_quantile(buckets, 0.99) == pytest.approx(p99_s, rel=CLASSIC_ERROR)
    assert collector.headers[-1]["path"] == "/v1/metrics" and collector.headers[-1]["x-key"] == "a b"
    resource = collector.requests[-1].resource_metrics[0]
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.name"] == "replay" and attributes["team"] == "shop"
    by_name = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    for (name, labels), value in expected(out).items():
        points = [*by_name[name].sum.data_points, *by_name[name].gauge.data_points]
        of_labels = {tuple((a.key, a.value.string_value) for a in p.attributes): p.as_int for p in points}
        assert of_labels[labels] == value, (name, labels)
    for metric in METRICS:
        if metric.kind == "histogram":
            point = by_name[metric.name].exponential_histogram.data_points[0]
            histogram = totals[metric.tag]
            assert point.count == histogram.count == point.zero_count + sum(point.positive.bucket_counts)
            p99_s = histogram.percentiles([99])[0] / 1e9
            assert exponential_quantile(point, 0.99) == pytest.approx(
                p99_s, rel=2 ** (2.0**-point.scale) - 1 + 2e-3
            )


@pytest.mark.whole
@pytest.mark.parametrize(
    ("status", "delay_s", "words"),
    [(500, 0.0, "answered 500"), (200, 60.0, "timed out"), (0, 0.0, "refused")],
)
def test_a_collector_that_fails_delays_nothing_and_is_reported(
    log: Path, tmp_path: Path, status: int, delay_s: float, words: str
) -> None:
    out = tmp_path / "run"
    collector = Collector(status, delay_s)
    with Target() as target, collector.serving():
        url = collector.url if status else f"http://127.0.0.1:{free_port()}"
        done = command(
            "run", log, "--target", f"http://127.0.0.1:{target.port}", "-o", out, "--plain", "--sink", f"otlp={url},every=1s"
        )  # fmt: skip
    assert done.returncode in (0, 4), done.stdout + done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["accounts"]["ok"] == 60
    [note] = [note for note in document["notes"] if note["code"] == "SINK_FAILED"]
    assert "the final figures were not delivered" in note["message"] and words in note["message"]
    assert "the final figures were not delivered" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.whole
def test_a_port_that_nobody_scrapes_is_closed_after_the_linger_time(log: Path, tmp_path: Path) -> None:
    port = free_port()
    with Target() as target:
        done = command(
            "run", log, "--target", f"http://127.0.0.1:{target.port}", "-o", tmp_path / "run", "-q",
            "--sink", f"prometheus=127.0.0.1:{port},linger=300ms",
        )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    assert (
        "stays open until its next scrape" in done.stderr
        and "nobody scraped the final figures" in done.stderr
    )
    with pytest.raises(OSError, match="refused"):
        scrape(port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prometheus", "needs an address"),
        ("prometheus=9464", "not an address to listen on"),
        ("prometheus=127.0.0.1:99999", "not an address to listen on"),
        ("prometheus=127.0.0.1:9464,linger=soon", "linger"),
        ("prometheus=127.0.0.1:9464,lingr=3s", "did you mean linger?"),
        ("otlp", "needs an address"),
        ("otlp=http://127.0.0.1:4318,every=0s", "every must be at least 0.5 s"),
        ("otlp=collector:4318", "not an http or https URL"),
        ("otlp=ftp://collector", "not an http or https URL"),
        ("otlp=http://me:secret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_a_wrong_value_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_sink(text)
    message = f"{refused.value} {refused.value.hint}"
    assert words in message and "secret" not in message


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen there: address already in use"):
            make_sink(f"prometheus=127.0.0.1:{taken.getsockname()[1]}")


def test_a_header_of_the_environment_that_is_no_pair_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")
    with pytest.raises(UsageError, match="OTEL_EXPORTER_OTLP_HEADERS: a part is not name=value"):
        make_sink("otlp=http://127.0.0.1:4318")


def test_without_the_extra_the_command_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("prometheus_client", "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2"):
        monkeypatch.setitem(sys.modules, module, None)
    for text in ("prometheus=127.0.0.1:9464", "otlp=http://127.0.0.1:4318"):
        with pytest.raises(UsageError) as refused:
            make_sink(text)
        assert "pip install 'replay-engine[metrics]'" in refused.value.hint


def test_a_header_that_cannot_be_sent_is_the_reason_and_stays_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2%0Ax")
    sink = make_sink("otlp=http://127.0.0.1:4318")
    assert isinstance(sink, OtlpSink)
    why = sink._export(Snapshot())
    assert why == "a header of OTEL_EXPORTER_OTLP_HEADERS cannot be sent"

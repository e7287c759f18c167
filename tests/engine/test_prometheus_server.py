"""A real Prometheus scrapes a run: its final counters are the run's, and the dashboard's queries have answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from replay.engine.sinks.metrics import dashboard
from replay.ledger.metrics import METRICS
from replay.results import hlog
from replay.staging.sink import Sink as Target
from tests.support.ports import free_port
from tests.support.waiting import answers, wait_until

from .test_metrics_sinks import CLASSIC_ERROR, expected

ROOT = Path(__file__).parents[2]

CONFIG = """\
global: {{scrape_interval: {interval}}}
scrape_configs:
  - job_name: replay
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def test_the_dashboard_is_the_one_that_the_catalog_makes() -> None:
    assert (ROOT / "deploy" / "grafana-dashboard.json").read_text() == dashboard.text()


def ask(port: int, query: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(url, timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


@pytest.mark.whole
@pytest.mark.timing
@pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs Prometheus (Debian: apt-get install prometheus)"
)
def test_a_prometheus_server_has_the_final_figures(tmp_path: Path) -> None:
    port, own, out = free_port(), free_port(), tmp_path / "run"
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(interval="1s", port=port))
    log = tmp_path / "access.log"
    log.write_text(
        "".join(
            f"10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 50:02d} +0000]"
            f' "GET /sink/delay_ms={n % 40}?n={n} HTTP/1.1" 200 12\n'
            for n in range(500)
        )
    )
    server = subprocess.Popen(
        [
            "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: answers(own))
        with Target() as target:
            done = subprocess.run(
                [
                    sys.executable, "-m", "replay.cli", "run", str(log), "--target", f"http://127.0.0.1:{target.port}",
                    "-o", str(out), "--plain", "--sink", f"prometheus=127.0.0.1:{port},linger=30s",
                ],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
        assert done.returncode in (0, 4), done.stdout + done.stderr
        assert "nobody scraped" not in done.stderr
        for (name, labels), value in expected(out).items():
            matchers = ",".join(f'{label}="{text}"' for label, text in labels)
            [sample] = ask(own, f"last_over_time({name}{{{matchers}}}[5m])")
            assert float(sample["value"][1]) == value, (name, labels)
        totals = hlog.read_hlog(out / "totals.hlog").by_tag()
        for metric in METRICS:
            if metric.kind == "histogram" and metric.tag == "response.all":
                query = f"histogram_quantile(0.99, sum by (le) (last_over_time({metric.name}_bucket[5m])))"
                [sample] = ask(own, query)
                exact_s = totals[metric.tag].percentiles([99])[0] / 1e9
                assert float(sample["value"][1]) == pytest.approx(exact_s, rel=CLASSIC_ERROR)
            for query, _ in dashboard.queries_of(metric):
                assert ask(own, query), query
    finally:
        server.terminate()
        server.wait(20)

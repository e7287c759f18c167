"""A Grafana dashboard of the exported metrics, made from the catalog.

`python -m replay.engine.sinks.metrics.dashboard FILE` writes it. It expects a Prometheus data source, and shows
what `--sink prometheus=...` or an OTLP collector with a Prometheus exporter delivers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from replay.ledger.metrics import METRICS, Metric

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_WINDOW = "[1m]"
QUANTILES = (0.5, 0.9, 0.99)


def queries_of(metric: Metric) -> list[tuple[str, str]]:
    """Return the PromQL queries of a metric, each with its legend."""
    if metric.kind == "gauge":
        return [(metric.name, metric.name.removeprefix("replay_"))]
    if metric.kind == "histogram":
        return [
            (
                f"histogram_quantile({quantile}, sum by (le) (rate({metric.name}_bucket{_WINDOW})))",
                f"p{100 * quantile:g}",
            )
            for quantile in QUANTILES
        ]
    by = f" by ({', '.join(metric.labels)})" if metric.labels else ""
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "per second"
    return [(f"sum{by} (rate({metric.name}{_WINDOW}))", legend)]


def _panel(number: int, metric: Metric) -> dict[str, Any]:
    unit = {"histogram": "s", "counter": "reqps", "gauge": "short"}[metric.kind]
    return {
        "id": number + 1,
        "type": "stat" if metric.kind == "gauge" else "timeseries",
        "title": metric.help,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "gridPos": {
            "x": _WIDTH * (number % _COLUMNS),
            "y": _HEIGHT * (number // _COLUMNS),
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for at, (query, legend) in enumerate(queries_of(metric))
        ],
    }


def dashboard() -> dict[str, Any]:
    """Return the dashboard in the form that Grafana imports."""
    return {
        "title": "replay",
        "uid": "replay-run",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus", "label": "Data source"}]
        },
        "panels": [_panel(number, metric) for number, metric in enumerate(METRICS)],
    }


def text() -> str:
    """Return the content of the dashboard file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())

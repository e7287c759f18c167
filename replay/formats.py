"""The names of the formats that replay reads and writes.

Help and completion use them without importing the formats.
"""

from __future__ import annotations

READ = (
    "alb", "apache", "elb", "s3", "csv", "parquet", "tsv", "jsonl", "caddy", "envoy", "envoy-json", "fastify", "gor",
    "haproxy", "har", "nginx", "ingress-nginx", "jaeger",
    "jmeter", "jmeter-xml", "k6-csv", "gcp-lb", "cloudflare",
    "azure-front-door", "azure-app-gateway", "ecs", "kong", "pino", "api-gateway", "envoy-gateway", "cloudfront-json",
    "caddy-console", "k6", "nginx-json", "otlp", "pcap", "journal", "nginx-proxy-manager", "apisix", "python-http",
    "django", "rails",
    "squid", "traefik-json", "traefik", "vegeta", "vegeta-text", "w3c", "cloudfront", "common", "logfmt", "ltsv",
)  # fmt: skip
"""The built-in formats that `replay import --format` accepts. Installed packages may add others."""

WRITTEN = (".parquet", ".csv", ".tsv", ".gor", ".har", ".json", ".jsonl", ".log")
"""The endings of the files that `replay export` writes. Installed packages may add others."""

KEPT_RESPONSES = ("none", "digest", "text", "all")
"""The choices of what an import keeps of recorded responses (`replay.trace.importing.registry.KeptResponses`)."""


def with_brought(group: str, names: tuple[str, ...], before: str = "") -> list[str]:
    """Return these names, and those that installed packages register as entry points of a group.

    `before` is put before each registered name.
    """
    from importlib.metadata import entry_points

    brought = (before + point.name for point in entry_points(group=group))
    return list(dict.fromkeys([*names, *brought]))

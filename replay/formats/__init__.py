"""Recordings in: one importer a file, behind one registry."""

from . import (
    alb,
    apache,
    aws,
    caddy,
    common,
    envoy,
    gor,
    haproxy,
    har,
    ingress,
    local_logs,
    makers,
    nginx,
    nginx_json,
    pairs,
    proxies,
    squid,
    tabular,
    traefik,
    vegeta,
    w3c,
)
from .importing import detect, import_files, open_trace
from .registry import Found, Importer, Options, Rows, importer, importers

__all__ = [
    "Found",
    "Importer",
    "Options",
    "Rows",
    "detect",
    "import_files",
    "importer",
    "importers",
    "open_trace",
]

_ = (
    alb,
    apache,
    aws,
    caddy,
    common,
    envoy,
    gor,
    har,
    haproxy,
    ingress,
    local_logs,
    makers,
    nginx,
    nginx_json,
    pairs,
    proxies,
    squid,
    tabular,
    traefik,
    vegeta,
    w3c,
)

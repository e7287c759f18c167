"""Looks names up by glibc (`getent ahosts`) and by `replay`, in network and mount namespaces of its own.

    unshare -n -m python -m tests.oracles.glibc_beside CASES.json

It prints what each of them asked and found, as JSON. Run it nowhere else: it mounts over /etc/resolv.conf.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio

from replay.names import NameFailure, lookup, read_settings
from replay.names.exchange import Query
from replay.staging.dns_server import DnsServer

CONF, HOSTS, NSSWITCH = Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/nsswitch.conf")
DNS_PORT = 53


def main(path: str) -> None:
    """Look up each case twice, and print the results in their order."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in (CONF, HOSTS, NSSWITCH):
            own = Path(folder) / name.name
            own.touch()
            name.touch()
            subprocess.run(["mount", "--bind", own, name], check=True)
        print(json.dumps([beside(case) for case in json.loads(Path(path).read_text())]))
        for name in (CONF, HOSTS, NSSWITCH):
            subprocess.run(["umount", name], check=True)


def beside(case: dict[str, Any]) -> dict[str, Any]:
    """What glibc and `replay` ask for and find: `{"glibc": [queries, addresses], "replay": [...], "noted": n}`."""
    CONF.write_text(case["conf"])
    HOSTS.write_text(case.get("hosts", ""))
    NSSWITCH.write_text(case.get("nss", "hosts: files dns\n"))
    environ = dict(os.environ, **case.get("env", {}))
    with ExitStack() as stack:
        servers = [
            stack.enter_context(DnsServer(f"127.0.0.{number}", DNS_PORT))
            for number, zones in enumerate(case["servers"], start=1)
            if zones is not None
        ]
        for server, zones in zip(servers, filter(lambda z: z is not None, case["servers"]), strict=True):
            serve(server, zones)
        command = ["getent", "ahosts", case["name"]]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
        by_glibc = asked_of(servers), plain(line.split()[0] for line in done.stdout.splitlines())
        noted: list[Query] = []
        try:
            answer = trio.run(lookup, case["name"], read_settings(environ=environ), noted.append)
            found = plain(answer.addresses)
        except NameFailure:
            found = []
        return {"glibc": by_glibc, "replay": (asked_of(servers), found), "noted": len(noted)}


def serve(server: DnsServer, zones: dict[str, Any]) -> None:
    """Tell a server what to answer."""
    for name, zone in zones.items():
        if name == "*silent":
            server.silent = True
            continue
        if "a" in zone:
            server.set(name, *zone["a"])
        if "cname" in zone:
            server.alias(name, zone["cname"])
        for kind, how in zone.get("fail", {}).items():
            server.fail(name, how, "" if kind == "*" else kind)


def asked_of(servers: list[DnsServer]) -> list[str]:
    """Take what servers were asked, in no order: A and AAAA overtake each other. With `rotate` the first one is chance."""
    asked = [f"{server.host} {query}" for server in servers for query in server.asked]
    for server in servers:
        server.asked.clear()
    return sorted(asked)


def plain(addresses: Any) -> list[str]:
    """Addresses in one form, without the zone of a link-local one, which glibc numbers."""
    return sorted({str(ipaddress.ip_address(address.partition("%")[0])) for address in addresses})


if __name__ == "__main__":
    main(sys.argv[1])

"""HTTPS beside plain HTTP and other programs: capacity against nginx, punctuality by the sink's stamps, handshakes."""

from __future__ import annotations

import functools
import re
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

from . import peers, punctuality

CONNECTIONS = 64
ROUNDS, SECONDS = 3, 4
HANDSHAKE_ROUNDS, HANDSHAKE_SECONDS = 3, 2
RATES = (5_000, 20_000)


def certificates(folder: Path) -> tuple[peers.Identity, Path]:
    """Issue a certificate for loopback (ECDSA P-256); return it with the file of its CA certificate."""
    authority, trusted = trustme.CA(), folder / "ca.pem"
    leaf = authority.issue_cert("127.0.0.1")
    identity = peers.Identity(folder / "leaf.pem", folder / "leaf.key")
    authority.cert_pem.write_to_path(str(trusted))
    identity.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(str(identity.key))
    return identity, trusted


def _closed_loop(
    folder: Path, trace: Path, port: int, arguments: list[str], seconds: int = SECONDS
) -> dict[str, Any]:
    """Run replay over HTTPS in a closed loop on one lane, and return its run.json."""
    return peers.replay(
        folder,
        [str(trace), "--target", f"https://127.0.0.1:{port}", "--rate", "max", "-d", f"{seconds}s",
         "-c", str(CONNECTIONS), "-t", "1", *arguments],
    )  # fmt: skip


def _wrk(port: int) -> float:
    done = peers.finish(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"https://127.0.0.1:{port}/"])
    return int(re.search(r"(\d+) requests in", done.out)[1]) / done.cpu_s  # type: ignore[index]


def _capacity(folder: Path, trace: Path, identity: peers.Identity, trusted: Path) -> dict[str, float]:
    """Return requests per CPU second of the generator, with TLS 1.3 and kept connections.

    replay verifies the certificate, and wrk does not.
    """
    rounds: dict[str, list[float]] = {}
    with peers.nginx(identity) as port:
        for _ in range(ROUNDS):
            document = _closed_loop(folder, trace, port, ["--ca", str(trusted)])
            rate = document["accounts"]["ok"] / document["generator"]["cpu_s"]
            rounds.setdefault("replay", []).append(rate)
            if shutil.which("wrk"):
                rounds.setdefault("wrk", []).append(_wrk(port))
    return {name: statistics.median(values) for name, values in rounds.items()}


def _handshaking(folder: Path, trace: Path, port: int, kind: str, verified: Path | None) -> dict[str, float]:
    """Return replay's handshakes of one kind per second and per CPU second; each connection has one request.

    The certificate is verified by the file `verified`, or not at all if that is None.
    """
    scenario = folder / f"{kind}.toml"
    scenario.write_text(f"[tls]\nresume = {str(kind == 'resumed').lower()}\n")
    how = ["--ca", str(verified)] if verified else ["--insecure"]
    document = _closed_loop(folder, trace, port, [str(scenario), *how], HANDSHAKE_SECONDS)
    count = document["tls"][f"handshakes_{kind}"]
    return {
        "a_second": count / document["duration_s"],
        "a_cpu_second": count / document["generator"]["cpu_s"],
    }


def _s_time(port: int) -> dict[str, float]:
    done = peers.finish(
        ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-www", "/", "-time", str(HANDSHAKE_SECONDS),
         "-new", "-tls1_3"],
    )  # fmt: skip
    count, seconds = map(int, re.findall(r"(\d+) connections in (\d+) real seconds", done.out)[-1])
    return {"a_second": count / seconds, "a_cpu_second": count / done.cpu_s}


def _handshakes(
    folder: Path, trace: Path, identity: peers.Identity, trusted: Path
) -> dict[str, dict[str, float]]:
    """Return handshakes per second and per CPU second by program; nginx closes the connection after each response.

    s_time resumes only sessions of TLS 1.2, so no other program is measured with resumed sessions of TLS 1.3.
    """
    rounds: dict[str, list[dict[str, float]]] = {}
    with peers.nginx(identity, keeps_alive=False) as port:
        programs: dict[str, Callable[[], dict[str, float]]] = {
            "full: replay": lambda: _handshaking(folder, trace, port, "full", None),
            "full: replay, verified": lambda: _handshaking(folder, trace, port, "full", trusted),
            "full: openssl s_time": lambda: _s_time(port),
            "resumed: replay": lambda: _handshaking(folder, trace, port, "resumed", None),
        }
        for _ in range(HANDSHAKE_ROUNDS):
            for name, measure in programs.items():
                rounds.setdefault(name, []).append(measure())
    return {
        name: {key: statistics.median(each[key] for each in values) for key in values[0]}
        for name, values in rounds.items()
    }


def _punctuality(
    folder: Path, trace: Path, identity: peers.Identity, trusted: Path
) -> dict[int, dict[str, punctuality.Late]]:
    """Return the punctuality of plain HTTP and of HTTPS by rate, measured in turns."""
    run = functools.partial(punctuality.replay, folder, trace, live=False)
    return {
        rate: punctuality.in_turns(
            {
                "http": functools.partial(run, rate),
                "https": functools.partial(run, rate, identity=identity, trusted=trusted),
            }
        )
        for rate in RATES
    }


def measure(folder: Path, trace: Path) -> dict[str, Any]:
    """Measure capacity, handshakes and punctuality with a new certificate."""
    identity, trusted = certificates(folder)
    return {
        "capacity": _capacity(folder, trace, identity, trusted),
        "handshakes": _handshakes(folder, trace, identity, trusted),
        "punctuality": _punctuality(folder, trace, identity, trusted),
    }

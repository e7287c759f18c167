"""Finds out whether a broker's port speaks TLS or plain Kafka, after the cluster could not be used."""

from __future__ import annotations

import contextlib
import ssl
import struct

from replay.errors import TargetError

from .gate import Gate
from .target import KafkaTarget

TIMEOUT_S = 2.0

_API_VERSIONS = 18
"""The only request that every Kafka listener answers without authentication (KIP-35)."""

_CORRELATION = 0x52504C59


def mismatch(target: KafkaTarget, protocol: str, gate: Gate) -> TargetError | None:
    """Return the error that explains a wrong kafka.security_protocol; None if the setting seems right. Blocks.

    Only the first broker that accepts a connection is examined.
    """
    secured = "SSL" in protocol
    for host, port in target.brokers:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if secured and not _speaks_tls(gate, host, port) and _speaks_kafka(gate, host, port):
                return _error(
                    f"{name} speaks Kafka without TLS", protocol, protocol.replace("SSL", "PLAINTEXT")
                )
            if not secured and _speaks_tls(gate, host, port):
                return _error(f"{name} speaks TLS", protocol, protocol.replace("PLAINTEXT", "SSL"))
        except OSError:
            continue
        return None
    return None


def _error(what: str, protocol: str, meant: str) -> TargetError:
    return TargetError(
        f"the broker {what} on this port, but kafka.security_protocol is {protocol}",
        hint=f'set kafka.security_protocol = "{meant}", or give another port',
    )


def _speaks_tls(gate: Gate, host: str, port: int) -> bool:
    """Return whether a port speaks TLS: a handshake succeeds, whatever the certificate, or ends with a TLS alert.

    OSError if there is no connection.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with gate.dial(host, port, TIMEOUT_S) as plain:
        try:
            with context.wrap_socket(plain):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False


def _speaks_kafka(gate: Gate, host: str, port: int) -> bool:
    """Return whether a plain ApiVersions request is answered. OSError if there is no connection."""
    body = struct.pack(">hhih", _API_VERSIONS, 0, _CORRELATION, -1)
    with gate.dial(host, port, TIMEOUT_S) as plain, contextlib.suppress(OSError):
        plain.sendall(struct.pack(">i", len(body)) + body)
        head = b""
        while len(head) < 8 and (piece := plain.recv(8 - len(head))):
            head += piece
        return len(head) == 8 and struct.unpack(">ii", head)[1] == _CORRELATION
    return False

"""A scripted DNS server on loopback, over UDP and TCP, that records its questions.

    with DnsServer() as server:
        server.set("staging.example", "127.0.0.2", "::1", ttl_s=1)
        server.fail("broken.example", "SERVFAIL")
        ... server.address, server.asked ...

An unknown name gives NXDOMAIN; a name without addresses of the requested type gives an empty answer (NODATA).
`silent` stops all answers, as if the server were down; `fail(name, "silence")` does so for one name. A failure
may apply to one record type only. `lame` is the empty answer of a server that is not responsible for the name and
does not recurse.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

DATAGRAM_BYTES = 512
"""The maximum length of a UDP answer (RFC 1035, 4.2.1)."""

TCP_S = 2.0


class Asked(NamedTuple):
    """One question: an absolute name in lower case with its dot, the record type such as A, and the transport."""

    name: str
    kind: str
    by_tcp: bool = False


@dataclass
class _Zone:
    addresses: tuple[str, ...] = ()
    ttl_s: int = 0
    alias: str = ""
    failures: dict[str, str] = field(default_factory=dict)


@dataclass
class DnsServer:
    """A server on two threads of this process. It runs within its `with` block.

    `asked` has all questions until now, in order.
    """

    host: str = "127.0.0.1"
    port: int = 0
    silent: bool = False
    asked: list[Asked] = field(default_factory=list)
    _zones: dict[str, _Zone] = field(default_factory=dict)

    def __enter__(self) -> DnsServer:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._tcp = socket.create_server((self.host, self.port), family=family)
        self.port = int(self._tcp.getsockname()[1])
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((self.host, self.port))
        self._stop_read, self._stop_write = socket.socketpair()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._datagrams, self._streams)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_write.close()
        for thread in self._threads:
            thread.join(TCP_S + 1)
        for sock in (self._tcp, self._udp, self._stop_read):
            sock.close()

    @property
    def address(self) -> str:
        """The address as `HOST:PORT`, in the form that --resolver accepts."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def set(self, name: str, *addresses: str, ttl_s: int = 60) -> None:
        """Set the addresses of a name, and remove its alias and failures."""
        self._zones[_absolute(name)] = _Zone(addresses, ttl_s)

    def alias(self, name: str, of: str, ttl_s: int = 60) -> None:
        """Make a name an alias (CNAME) of another; the answer includes both."""
        self._zones[_absolute(name)] = _Zone(alias=_absolute(of), ttl_s=ttl_s)

    def fail(self, name: str, how: str, kind: str = "") -> None:
        """Make a name, or its records of one type, fail.

        `how` is a code such as SERVFAIL, or `silence`, `garbage` or `lame`.
        """
        zone = self._zones.setdefault(_absolute(name), _Zone())
        zone.failures.update(dict.fromkeys([kind] if kind else ["A", "AAAA"], how))

    def remove(self, name: str) -> None:
        """Remove a name."""
        self._zones.pop(_absolute(name), None)

    def count(self, name: str = "", kind: str = "") -> int:
        """Return the number of questions, optionally for one name or record type."""
        wanted = _absolute(name) if name else ""
        return sum(
            (not wanted or asked.name == wanted) and (not kind or asked.kind == kind)
            for asked in list(self.asked)
        )

    def _wait(self, sock: socket.socket) -> bool:
        """Wait until a socket is readable; return False when the server stops."""
        ready, _, _ = select.select([sock, self._stop_read], [], [])
        return self._stop_read not in ready

    def _datagrams(self) -> None:
        while self._wait(self._udp):
            data, peer = self._udp.recvfrom(65_535)
            if (reply := self._reply(data, by_tcp=False)) is not None:
                self._udp.sendto(reply, peer)

    def _streams(self) -> None:
        while self._wait(self._tcp):
            stream, _ = self._tcp.accept()
            stream.settimeout(TCP_S)
            with stream, stream.makefile("rb") as read, contextlib.suppress(OSError):
                while length := int.from_bytes(read.read(2), "big"):
                    reply = self._reply(read.read(length), by_tcp=True)
                    if reply is not None:
                        stream.sendall(len(reply).to_bytes(2, "big") + reply)

    def _reply(self, data: bytes, by_tcp: bool) -> bytes | None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append(Asked(name, kind, by_tcp))
        reply = dns.message.make_response(query, recursion_available=True)
        zone = self._follow(name, kind, reply)
        failure = "" if zone is None else zone.failures.get(kind, "")
        if self.silent or failure == "silence":
            return None
        if failure == "garbage":
            return data[:2] + b"\x81\x80garbage"
        if zone is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif failure == "lame":
            reply.answer.clear()
            reply.flags &= ~dns.flags.RA
        elif failure:
            reply.answer.clear()
            reply.set_rcode(dns.rcode.from_text(failure))
        wire = reply.to_wire()
        if len(wire) > DATAGRAM_BYTES and not by_tcp:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
            wire = reply.to_wire()
        return wire

    def _follow(self, name: str, kind: str, reply: dns.message.Message) -> _Zone | None:
        """Look up a name, follow aliases, and add the records to the reply.

        Return None if the name, or the target of an alias, is unknown.
        """
        zone = self._zones.get(name)
        while zone is not None and zone.alias:
            reply.answer.append(dns.rrset.from_text(name, zone.ttl_s, "IN", "CNAME", zone.alias))
            name, zone = zone.alias, self._zones.get(zone.alias)
        if zone is not None:
            found = [a for a in zone.addresses if (ipaddress.ip_address(a).version == 6) == (kind == "AAAA")]
            if found:
                reply.answer.append(dns.rrset.from_text(name, zone.ttl_s, "IN", kind, *found))
        return zone


def _absolute(name: str) -> str:
    return name.rstrip(".").lower() + "."

"""Queries the name servers for one name: a model of glibc's resolver (resolv/res_send.c, 2.36).

Theory of operation. The queries for A and AAAA are sent together, from one socket. Replies may arrive in any
order:

- A reply with a code such as NOERROR, NXDOMAIN or FORMERR is an answer. The exchange ends when each kind has one.
- SERVFAIL, NOTIMP, REFUSED and the empty reply of a server that is not responsible for the name (lame) are no
  answers. If the other kind already has an answer, that one is enough and the exchange ends. If no kind gets an
  answer, the next server is queried.
- After a truncated reply the client repeats both queries by TCP, on one connection. There every reply is an answer.
- If only one of two replies arrives in time, the server may be one that loses the second of two datagrams. The
  client repeats the queries one after the other, and if that fails, each from its own socket. It stays in that mode
  until the lookup ends.

A server that cannot be reached, or whose reply is shorter than a DNS header, is skipped at once. A server that
does not reply is skipped after a timeout, which depends on its place in the list. Each attempt queries every
server once.

dnspython is imported only when a server is queried, because most targets are an address or in the hosts file.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from .failures import Why
from .settings import Server, Settings

if TYPE_CHECKING:
    import dns.message

NO_ANSWER = ("SERVFAIL", "NOTIMP", "REFUSED")
HEADER_BYTES = 12
EDNS_PAYLOAD_BYTES = 1_200
"""The size of replies that glibc announces to accept with `options edns0`."""

_rotations = itertools.count()


@dataclass(frozen=True, slots=True)
class Query:
    """One question sent to one server.

    `answer` is the reply's code in capitals, or one of: lame, truncated, timeout, unreachable, malformed. It is
    `unanswered` if the exchange ended without waiting for the reply. `ttl_s` is that of the addresses, None
    without any.
    """

    name: str
    kind: str
    server: Server
    took_ns: int
    answer: str
    addresses: tuple[str, ...] = ()
    ttl_s: int | None = None
    by_tcp: bool = False


Note = Callable[[Query], None]
"""Called with each query when it has ended."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer for one kind of record."""

    kind: str
    code: str
    addresses: tuple[str, ...] = ()
    ttl_s: int | None = None
    records: int = 0
    is_lame: bool = False
    is_truncated: bool = False


@dataclass(slots=True)
class Client:
    """The client that queries the name servers for one lookup.

    What it learns about the servers is kept until the lookup ends. `last_code` is the code of the first reply in the
    latest exchange, and `failure` says why the latest name has no answers.
    """

    settings: Settings
    note: Note
    one_at_a_time: bool = False
    socket_for_each: bool = False
    by_tcp: bool = False
    last_code: str = "NOERROR"
    failure: Why = "timeout"
    _answers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.one_at_a_time, self.socket_for_each = self.settings.one_at_a_time, self.settings.socket_for_each

    async def ask(self, name: str) -> tuple[Reply, ...]:
        """Return the answers for one absolute name: at most one for each kind of record.

        There are none if no server answers, or if the name is not valid; `failure` then has the reason.
        """
        import dns.exception

        try:
            questions = [self._question(name, kind) for kind in self.settings.kinds]
        except (dns.exception.DNSException, UnicodeError):
            self.failure = "not a name"
            return ()
        self.by_tcp, self.last_code = self.settings.by_tcp, "NOERROR"
        self._answers.clear()
        servers = self.settings.servers
        first = next(_rotations) if self.settings.rotate else 0
        for _ in range(self.settings.attempts):
            for turn in range(len(servers)):
                place = (first + turn) % len(servers)
                exchange = _Exchange(self, name, questions, servers[place], self._patience_s(place))
                replies = () if self.by_tcp else await exchange.by_datagrams()
                if self.by_tcp:
                    replies = await exchange.by_stream()
                if replies:
                    return replies
        known: tuple[Why, ...] = ("timeout", "malformed", "SERVFAIL", "REFUSED", "unreachable")
        self.failure = next((why for why in known if why in self._answers), "SERVFAIL")
        return ()

    def ended(self, query: Query) -> None:
        """Record a query that has ended."""
        self._answers.add(query.answer)
        self.note(query)

    def _question(self, name: str, kind: str) -> dns.message.Message:
        import dns.message
        import dns.name

        edns, payload = (0, EDNS_PAYLOAD_BYTES) if self.settings.edns else (None, None)
        query_id = random.getrandbits(16)
        return dns.message.make_query(
            dns.name.from_text(name), kind, use_edns=edns, payload=payload, id=query_id
        )

    def _patience_s(self, place: int) -> float:
        """Return the time limit for one server in seconds.

        The first server gets `timeout_s`. A later one gets `timeout_s`, doubled for each place in the list and divided
        by the number of servers, but at least one second (or `timeout_s`, if that is less).
        """
        timeout_s, servers = self.settings.timeout_s, len(self.settings.servers)
        return (
            timeout_s if place == 0 else max(float(int(timeout_s * 2**place) // servers), min(timeout_s, 1.0))
        )


class _Exchange:
    """The queries for one name to one server."""

    def __init__(
        self,
        client: Client,
        name: str,
        questions: Sequence[dns.message.Message],
        server: Server,
        patience_s: float,
    ) -> None:
        self._client, self._name, self._questions = client, name, questions
        self._server, self._patience_s = server, patience_s
        self._by_tcp = False
        self._outstanding: dict[str, int] = {}

    async def by_datagrams(self) -> tuple[Reply, ...]:
        """Return the answers by UDP.

        Empty if the next server is to be queried, or if this one is to be queried by TCP (`Client.by_tcp`).
        """
        while True:
            replies, is_complete = await self._round()
            if is_complete or not replies:
                return replies
            # One of two replies is missing: repeat the queries in the next more careful mode.
            if not self._client.one_at_a_time:
                self._client.one_at_a_time = True
            elif not self._client.socket_for_each:
                self._client.socket_for_each = True
            else:
                return replies

    async def by_stream(self) -> tuple[Reply, ...]:
        """Return the answers by TCP, both on one connection; empty if the next server is to be queried."""
        self._by_tcp = True
        replies: list[Reply] = []
        try:
            with trio.fail_after(self._patience_s):
                async with await trio.open_tcp_stream(*self._server) as stream:
                    for question in self._questions:
                        wire = question.to_wire()
                        self._begin(question)
                        await stream.send_all(len(wire).to_bytes(2, "big") + wire)
                    received = bytearray()
                    while len(replies) < len(self._questions):
                        data = await self._frame(stream, received)
                        if (reply := self._read(data)) is not None:
                            replies.append(reply)
                            self._end(reply.kind, reply.code, reply)
        except trio.TooSlowError:
            self._abandon("timeout")
            return ()
        except (OSError, EOFError):
            self._abandon("unreachable")
            return ()
        finally:
            self._abandon("unanswered")
        self._client.last_code = replies[0].code
        return tuple(replies)

    async def _round(self) -> tuple[tuple[Reply, ...], bool]:
        """Try once by UDP, and return the answers, and whether they are all that this server has."""
        waiting = list(self._questions)
        replies: list[Reply] = []
        refused = 0
        sock: trio.socket.SocketType | None = None
        try:
            with trio.fail_after(self._patience_s):
                sock = await self._send(sock, waiting)
                while True:
                    data = await sock.recv(65_535)
                    if len(data) < HEADER_BYTES:
                        self._abandon("malformed")
                        return (), True
                    reply = self._read(data)
                    if reply is None:
                        continue
                    if not replies and not refused:
                        self._client.last_code = reply.code
                    if reply.code in NO_ANSWER or reply.is_lame:
                        self._end(reply.kind, "lame" if reply.is_lame else reply.code, reply)
                        refused += 1
                        if replies or refused == len(self._questions):
                            return tuple(replies), True
                        # With one query at a time, glibc waits for a second reply although it sends no second query.
                        continue
                    if reply.is_truncated:
                        self._end(reply.kind, "truncated", reply)
                        self._client.by_tcp = True
                        return (), True
                    self._end(reply.kind, reply.code, reply)
                    replies.append(reply)
                    if len(replies) + refused == len(self._questions):
                        return tuple(replies), True
                    if waiting:
                        sock = await self._send(sock, waiting)
        except trio.TooSlowError:
            self._abandon("timeout")
            return tuple(replies), False
        except OSError:
            self._abandon("unreachable")
            return (), True
        finally:
            self._abandon("unanswered")
            if sock is not None:
                sock.close()

    async def _send(
        self, sock: trio.socket.SocketType | None, waiting: list[dns.message.Message]
    ) -> trio.socket.SocketType:
        """Send the waiting questions, or only the first one if queries are sent one at a time.

        The socket is connected, so that a closed port is noticed at once.
        """
        import dns.inet

        if sock is not None and self._client.socket_for_each:
            sock.close()
            sock = None
        if sock is None:
            sock = trio.socket.socket(dns.inet.af_for_address(self._server[0]), trio.socket.SOCK_DGRAM)
            await sock.connect(self._server)
        for _ in range(1 if self._client.one_at_a_time else len(waiting)):
            question = waiting.pop(0)
            self._begin(question)
            await sock.send(question.to_wire())
        return sock

    @staticmethod
    async def _frame(stream: trio.SocketStream, received: bytearray) -> bytes:
        """Read the next message from a connection: its length in two bytes, then the message."""
        while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
            data = await stream.receive_some()
            if not data:
                raise EOFError
            received += data
        end = 2 + int.from_bytes(received[:2], "big")
        frame = bytes(received[2:end])
        del received[:end]
        return frame

    def _read(self, data: bytes) -> Reply | None:
        """Parse a reply to one of the open questions.

        Return None for anything else, which the caller ignores.
        """
        import dns.exception
        import dns.message
        import dns.rdatatype

        try:
            message = dns.message.from_wire(data, ignore_trailing=True)
        except dns.exception.DNSException:
            return None
        for question in self._questions:
            kind = dns.rdatatype.to_text(question.question[0].rdtype)
            if kind in self._outstanding and question.is_response(message):
                return read_reply(message, kind)
        return None

    def _begin(self, question: dns.message.Message) -> None:
        import dns.rdatatype

        self._outstanding[dns.rdatatype.to_text(question.question[0].rdtype)] = time.monotonic_ns()

    def _end(self, kind: str, answer: str, reply: Reply | None = None) -> None:
        took_ns = time.monotonic_ns() - self._outstanding.pop(kind)
        addresses, ttl_s = (reply.addresses, reply.ttl_s) if reply else ((), None)
        self._client.ended(
            Query(self._name, kind, self._server, took_ns, answer, addresses, ttl_s, self._by_tcp)
        )

    def _abandon(self, answer: str) -> None:
        """Record the queries that got no reply, with `answer` as the reason."""
        for kind in list(self._outstanding):
            self._end(kind, answer)


def read_reply(message: dns.message.Message, kind: str) -> Reply:
    """Read one kind of record from a reply: the addresses at the end of its chain of aliases.

    The TTL is the lowest one of the aliases and the addresses.
    """
    import dns.flags
    import dns.rcode
    import dns.rdatatype

    code = dns.rcode.to_text(message.rcode())
    records = sum(len(rrset) for rrset in message.answer)
    is_lame = (
        code == "NOERROR"
        and not records
        and not message.flags & (dns.flags.AA | dns.flags.RA)
        and not message.additional
        and message.edns < 0
    )
    is_truncated = bool(message.flags & dns.flags.TC)
    if code != "NOERROR":
        return Reply(kind, code, is_truncated=is_truncated)
    sets = {(rrset.name, dns.rdatatype.to_text(rrset.rdtype)): rrset for rrset in message.answer}
    name, ttls = message.question[0].name, []
    for _ in range(len(sets)):
        alias = sets.get((name, "CNAME"))
        if alias is None:
            break
        ttls.append(alias.ttl)
        name = alias[0].target
    found = sets.get((name, kind))
    addresses = () if found is None else tuple(record.address for record in found)
    ttl_s = min([*ttls, found.ttl]) if found is not None else None
    return Reply(kind, code, addresses, ttl_s, records, is_lame, is_truncated)

"""Packets and captures, built byte by byte: what tests of captures read."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETHERNET, NULL, RAW, LINUX_SLL, LINUX_SLL2, LOOP = 1, 0, 101, 113, 276, 108
CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
START_NS = 1_700_000_000_000_000_000


def tcp(source: int, target: int, sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> bytes:
    """A TCP segment with an option, so that headers have not always the same size."""
    options = b"\x01\x01\x08\x0a" + bytes(8) if flags & ACK else b""
    offset = (20 + len(options)) // 4 << 4
    return (
        struct.pack(
            ">HHIIBBHHH", source, target, sequence & 0xFFFFFFFF, acknowledged & 0xFFFFFFFF, offset, flags, 65535, 0, 0
        )
        + options
        + data
    )  # fmt: skip


def udp(source: int, target: int, data: bytes) -> bytes:
    """A UDP datagram."""
    return struct.pack(">HHHH", source, target, 8 + len(data), 0) + data


def ip(
    source: str, target: str, payload: bytes, protocol: int = 6, *, extensions: bytes = b"", identification: int = 1
) -> bytes:  # fmt: skip
    """An IP packet of the version of its addresses; `extensions` are IPv6 destination options."""
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    if a.version == 4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), identification, 0, 64, protocol, 0)
        return head + a.packed + b.packed + payload
    kind = 60 if extensions else protocol
    body = (bytes([protocol]) + extensions[1:] if extensions else b"") + payload
    return struct.pack(">IHBB", 6 << 28, len(body), kind, 64) + a.packed + b.packed + body


def fragments(packet: bytes, size: int) -> list[bytes]:
    """An IPv4 packet in fragments of `size` bytes, a multiple of 8."""
    head, data = packet[:20], packet[20:]
    parts = []
    for at in range(0, len(data), size):
        part = data[at : at + size]
        flags = at // 8 | (0x2000 if at + size < len(data) else 0)
        parts.append(
            head[:2]
            + struct.pack(">H", 20 + len(part))
            + head[4:6]
            + struct.pack(">H", flags)
            + head[8:]
            + part
        )
    return parts


def framed(packet: bytes, link: int = ETHERNET, *, vlans: int = 0) -> bytes:
    """A frame of a link type around an IP packet."""
    six = packet[0] >> 4 == 6
    kind = b"\x86\xdd" if six else b"\x08\x00"
    if link == ETHERNET:
        tags = b"".join(b"\x81\x00\x00\x05" for _ in range(vlans))
        return bytes(12) + tags + kind + packet
    if link == NULL:
        return struct.pack("<I", 30 if six else 2) + packet
    if link == LOOP:
        return struct.pack(">I", 30 if six else 2) + packet
    if link == LINUX_SLL:
        return bytes(14) + kind + packet
    if link == LINUX_SLL2:
        return kind + bytes(18) + packet
    return packet


def vxlan(packet: bytes, source: str = "10.9.0.1", target: str = "10.9.0.2") -> bytes:
    """An IP packet inside VXLAN."""
    return ip(source, target, udp(40000, 4789, b"\x08\0\0\0\0\0\x07\0" + framed(packet)), 17)


@dataclass
class Frame:
    """A captured frame; `size` is that on the wire, where the capture cut it."""

    at_ns: int
    data: bytes
    size: int = 0


def pcap(
    frames: Iterable[Frame], link: int = ETHERNET, *, order: str = "<", nanoseconds: bool = True
) -> bytes:
    """A pcap file."""
    magic, unit = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for frame in frames:
        seconds, rest = divmod(frame.at_ns, 1_000_000_000)
        size = max(frame.size, len(frame.data))
        out += [struct.pack(order + "IIII", seconds, rest // unit, len(frame.data), size), frame.data]
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def pcapng(
    frames: Iterable[Frame], link: int = ETHERNET, *, order: str = "<", resolution: int = 9, dropped: int = 0
) -> bytes:  # fmt: skip
    """A pcapng file of one section and one interface."""
    section = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    options = struct.pack(order + "HHBxxxHH", 9, 1, resolution, 0, 0)
    out = [section, block(1, struct.pack(order + "HHI", link, 0, 0) + options, order)]
    ticks_per_s = 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    for frame in frames:
        ticks = frame.at_ns * ticks_per_s // 1_000_000_000
        size = max(frame.size, len(frame.data))
        head = struct.pack(order + "IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(frame.data), size)
        out.append(block(6, head + frame.data, order))
    if dropped:
        out.append(
            block(
                5,
                struct.pack(order + "III", 0, 0, 0) + struct.pack(order + "HHQHH", 5, 8, dropped, 0, 0),
                order,
            )
        )
    return b"".join(out)


def blocks_of(data: bytes) -> list[bytes]:
    """The blocks of a pcapng file in little-endian order."""
    found, at = [], 0
    while at < len(data):
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        found.append(data[at : at + size])
        at += size
    return found


@dataclass
class Connection:
    """A TCP connection whose packets are written down as it goes, a millisecond apart."""

    source: str = CLIENT
    target: str = SERVER
    port: int = 50000
    service: int = 80
    at_ns: int = START_NS
    step_ns: int = 1_000_000
    segment: int = 1400
    up: int = 1000
    down: int = 0xFFFFFF00
    packets: list[tuple[int, bytes]] = field(default_factory=list)

    def _send(self, *, up: bool, flags: int, data: bytes = b"") -> None:
        if up:
            payload = tcp(self.port, self.service, self.up, self.down, flags, data)
            packet = ip(self.source, self.target, payload)
            self.up += len(data) + bool(flags & (SYN | FIN))
        else:
            payload = tcp(self.service, self.port, self.down, self.up, flags, data)
            packet = ip(self.target, self.source, payload)
            self.down += len(data) + bool(flags & (SYN | FIN))
        self.packets.append((self.at_ns, packet))
        self.at_ns += self.step_ns

    def open(self) -> Connection:
        """The handshake."""
        self._send(up=True, flags=SYN)
        self._send(up=False, flags=SYN | ACK)
        self._send(up=True, flags=ACK)
        return self

    def ask(self, data: bytes) -> Connection:
        """Bytes of the client."""
        for at in range(0, len(data), self.segment):
            self._send(up=True, flags=PSH | ACK, data=data[at : at + self.segment])
        return self

    def answer(self, data: bytes) -> Connection:
        """Bytes of the server."""
        for at in range(0, len(data), self.segment):
            self._send(up=False, flags=PSH | ACK, data=data[at : at + self.segment])
        return self

    def close(self, flags: int = FIN | ACK) -> Connection:
        """Both ends close, or the server resets."""
        self._send(up=False, flags=flags)
        if flags & FIN:
            self._send(up=True, flags=FIN | ACK)
            self._send(up=False, flags=ACK)
        return self

    def frames(self, link: int = ETHERNET) -> list[Frame]:
        """All packets as frames."""
        return [Frame(at_ns, framed(packet, link)) for at_ns, packet in self.packets]


def request(path: str, method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    """A request of HTTP/1.1."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shop.example"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def response(status: int = 200, body: bytes = b"ok", *, chunked: bool = False, length: bool = True) -> bytes:
    """A response of HTTP/1.1."""
    lines = [f"HTTP/1.1 {status} Some Words"]
    if chunked:
        lines.append("Transfer-Encoding: chunked")
        body = (
            b"".join(
                b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7)
            )
            + b"0\r\n\r\n"
        )
    elif length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body

"""Kernels that read a block of a capture (pcap records or pcapng blocks), and parse its headers down to TCP.

Sources: pcap and pcapng as in the IETF drafts draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng; link types as
registered at tcpdump.org; VXLAN as in RFC 7348. Only TCP payloads are of interest. IP fragments are marked, and
left to the caller, which reassembles them and dissects the whole packet again.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

POSITION, PCAPNG, SWAPPED, LINK, TICKS_PER_S, COUNT, PACKETS, STATE_WORDS = 0, 1, 2, 3, 4, 5, 6, 7
"""The words of `state`.

POSITION is where to continue. PCAPNG and SWAPPED describe the container and its byte order. LINK and TICKS_PER_S
are the link type and resolution of a pcap file. COUNT is the number of packets that this call found, PACKETS that
of all calls.
"""

MORE, FULL, BLOCK, DAMAGED = 0, 1, 2, 3
"""Why `scan` returned.

MORE: it needs more bytes. FULL: the table is full. BLOCK: the pcapng block at POSITION is not a packet. DAMAGED:
the data at POSITION is damaged.
"""

INTERFACE_LINK, INTERFACE_TICKS_PER_S, INTERFACE_OFFSET_S, INTERFACE_WORDS = 0, 1, 2, 3

AT_NS, NUMBER, KIND, BEGIN, END, MISSING, SEQ, ACK, FLAGS, PORTS = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
SOURCE_HIGH, SOURCE_LOW, TARGET_HIGH, TARGET_LOW, IP_BEGIN = 10, 11, 12, 13, 14
COLUMNS = 15
"""The columns of a packet.

data[BEGIN:END] is the TCP payload as captured. MISSING is the number of bytes that were cut off after it. The IP
packet of a fragment is data[IP_BEGIN:END]. IPv4 addresses have the form ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
"""

OTHER, TCP, FRAGMENT, CUT, UNKNOWN_LINK = 0, 1, 2, 3, 4
"""Values of KIND.

OTHER: not TCP. TCP: a TCP segment. FRAGMENT: a fragment of an IP packet. CUT: cut off within its headers, or the TCP
header is invalid. UNKNOWN_LINK: the link type, which PORTS then holds, is unknown.
"""

PACKET_BYTES_MAX = 1 << 20
_V4_MAPPED = 0xFFFF << 32
_ETHERNET, _RAW_BSD, _RAW_OPENBSD, _RAW, _NULL, _LOOP, _SLL, _SLL2, _IPV4, _IPV6 = (
    1,
    12,
    14,
    101,
    0,
    108,
    113,
    276,
    228,
    229,
)
_TYPE_IPV4, _TYPE_IPV6, _TYPE_PPPOE = 0x0800, 0x86DD, 0x8864
_PROTOCOL_TCP, _PROTOCOL_UDP, _VXLAN_PORT = 6, 17, 4789
_ENHANCED, _OLD_PACKET, _SECTION = 6, 2, 0x0A0D0D0A
_NESTED_MAX = 4


@kernel(inlined=True)
def _be16(data, at):
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@kernel(inlined=True)
def _be32(data, at):
    return _be16(data, at) << 16 | _be16(data, at + 2)


@kernel(inlined=True)
def _be64(data, at):
    return _be32(data, at) << 32 | _be32(data, at + 4)


@kernel(inlined=True)
def _own16(data, at, swapped):
    """Return the number in two bytes, which have the byte order of the file."""
    return _be16(data, at) if swapped else np.int64(data[at + 1]) << 8 | np.int64(data[at])


@kernel(inlined=True)
def _own32(data, at, swapped):
    """Return the number in four bytes, which have the byte order of the file."""
    if swapped:
        return _be32(data, at)
    return _own16(data, at + 2, False) << 16 | _own16(data, at, False)


@kernel()
def _tcp(data, at, end, whole_end, packet):
    """Read the TCP header at `at` into `packet`. If it is cut off or invalid, only KIND is set, to CUT.

    `whole_end` is where the payload would end if all of it had been captured.
    """
    if at + 20 > end:
        packet[KIND] = CUT
        return
    begin = at + 4 * (np.int64(data[at + 12]) >> 4)
    if begin > end or begin < at + 20:
        packet[KIND] = CUT
        return
    packet[KIND] = TCP
    packet[PORTS] = _be32(data, at)
    packet[SEQ] = _be32(data, at + 4)
    packet[ACK] = _be32(data, at + 8)
    packet[FLAGS] = data[at + 13]
    packet[BEGIN] = begin
    packet[END] = max(begin, min(end, whole_end))
    packet[MISSING] = max(np.int64(0), whole_end - max(packet[END], begin))


@kernel()
def _ipv4(data, at, end, whole_end, packet):
    """Read an IPv4 header, and return the offset after it (or -1), its protocol, and where the packet ends.

    -1 means that the packet is a fragment, is cut off, or is not IPv4; packet[KIND] is then set.
    """
    if at + 20 > end or data[at] >> 4 != 4:
        packet[KIND] = CUT if at + 20 > end else OTHER
        return np.int64(-1), np.int64(0), whole_end
    total = _be16(data, at + 2)
    # A length of 0 comes from segmentation offload: the packet is as long as the frame.
    whole_end = at + total if total else whole_end
    packet[SOURCE_HIGH], packet[SOURCE_LOW] = 0, _V4_MAPPED | _be32(data, at + 12)
    packet[TARGET_HIGH], packet[TARGET_LOW] = 0, _V4_MAPPED | _be32(data, at + 16)
    protocol = np.int64(data[at + 9])
    if _be16(data, at + 6) & 0x3FFF:
        packet[KIND], packet[IP_BEGIN], packet[END] = FRAGMENT, at, min(end, whole_end)
        packet[MISSING] = max(np.int64(0), whole_end - end)
        return np.int64(-1), protocol, whole_end
    return at + 4 * np.int64(data[at] & 15), protocol, whole_end


@kernel()
def _ipv6(data, at, end, whole_end, packet):
    """Read an IPv6 header and its extensions, and return the results that `_ipv4` returns."""
    if at + 40 > end or data[at] >> 4 != 6:
        packet[KIND] = CUT if at + 40 > end else OTHER
        return np.int64(-1), np.int64(0), whole_end
    length, protocol, next_at = _be16(data, at + 4), np.int64(data[at + 6]), at + 40
    whole_end = next_at + length if length else whole_end
    packet[SOURCE_HIGH], packet[SOURCE_LOW] = _be64(data, at + 8), _be64(data, at + 16)
    packet[TARGET_HIGH], packet[TARGET_LOW] = _be64(data, at + 24), _be64(data, at + 32)
    while protocol in (0, 43, 44, 51, 60):
        if next_at + 8 > end:
            packet[KIND] = CUT
            return np.int64(-1), protocol, whole_end
        if protocol == 44:
            if _be16(data, next_at + 2) & 0xFFF9:
                packet[KIND], packet[IP_BEGIN], packet[END] = FRAGMENT, at, min(end, whole_end)
                packet[MISSING] = max(np.int64(0), whole_end - end)
                return np.int64(-1), protocol, whole_end
            size = np.int64(8)
        elif protocol == 51:
            size = 4 * (np.int64(data[next_at + 1]) + 2)
        else:
            size = 8 * (np.int64(data[next_at + 1]) + 1)
        protocol, next_at = np.int64(data[next_at]), next_at + size
    return next_at, protocol, whole_end


@kernel()
def _network(data, at, end, link):
    """Return where the IP header after a link header begins, and its EtherType.

    The offset is -1 if the frame is cut off, and -2 if the link type is unknown.
    """
    if link in (_RAW, _RAW_BSD, _RAW_OPENBSD, _IPV4, _IPV6):
        if at >= end:
            return np.int64(-1), np.int64(0)
        return at, np.int64(_TYPE_IPV4 if data[at] >> 4 == 4 else _TYPE_IPV6)
    if link in (_NULL, _LOOP):
        if at + 4 > end:
            return np.int64(-1), np.int64(0)
        # The address family has the byte order of the capturing machine. IPv6 is 24, 28 or 30, depending on the system.
        family = max(data[at], data[at + 3])
        return at + 4, np.int64(_TYPE_IPV4 if family == 2 else _TYPE_IPV6)
    if link == _SLL:
        return (at + 16, _be16(data, at + 14)) if at + 16 <= end else (np.int64(-1), np.int64(0))
    if link == _SLL2:
        return (at + 20, _be16(data, at)) if at + 20 <= end else (np.int64(-1), np.int64(0))
    if link != _ETHERNET:
        return np.int64(-2), np.int64(0)
    if at + 14 > end:
        return np.int64(-1), np.int64(0)
    return at + 14, _be16(data, at + 12)


@kernel()
def _tagged(data, at, end, kind):
    """Skip VLAN tags (802.1Q, 802.1ad) and PPPoE headers, and return the offset and EtherType after them."""
    for _ in range(_NESTED_MAX):
        if kind in (0x8100, 0x88A8, 0x9100) and at + 4 <= end:
            at, kind = at + 4, _be16(data, at + 2)
        elif kind == _TYPE_PPPOE and at + 8 <= end:
            protocol = _be16(data, at + 6)
            at, kind = (
                at + 8,
                np.int64(_TYPE_IPV4 if protocol == 0x21 else _TYPE_IPV6 if protocol == 0x57 else 0),
            )
        else:
            break
    return at, kind


@kernel()
def dissect(data, at, end, whole_end, link, packet):
    """Parse data[at:end], a frame of link type `link`, into `packet` int64[COLUMNS].

    A frame inside VXLAN is parsed in place of the outer one. `whole_end` is where the frame would end if all of it had
    been captured.
    """
    for _ in range(_NESTED_MAX):
        packet[KIND] = OTHER
        at, kind = _network(data, at, end, link)
        if at < 0:
            packet[KIND] = UNKNOWN_LINK if at == -2 else CUT
            packet[PORTS] = link
            return
        at, kind = _tagged(data, at, end, kind)
        if kind == _TYPE_IPV4:
            at, protocol, whole_end = _ipv4(data, at, end, whole_end, packet)
        elif kind == _TYPE_IPV6:
            at, protocol, whole_end = _ipv6(data, at, end, whole_end, packet)
        else:
            return
        if at < 0:
            return
        # Ethernet pads frames to 60 bytes: the bytes after the IP packet do not belong to it.
        end = min(end, whole_end)
        if protocol == _PROTOCOL_TCP:
            _tcp(data, at, end, whole_end, packet)
            return
        if protocol != _PROTOCOL_UDP or at + 16 > end or _be16(data, at + 2) != _VXLAN_PORT:
            return
        at, link = at + 16, np.int64(_ETHERNET)


@kernel("void(uint8[::1], int64, int64, int64, int64, int64[::1])")
def dissect_frame(data, at, end, whole_end, link, packet):
    """Run `dissect` for a caller in Python."""
    dissect(data, at, end, whole_end, link, packet)


@kernel(inlined=True)
def _instant_ns(ticks, ticks_per_s, offset_s):
    seconds = ticks // ticks_per_s
    return (seconds + offset_s) * 1_000_000_000 + (
        ticks - seconds * ticks_per_s
    ) * 1_000_000_000 // ticks_per_s


@kernel()
def _add(at_ns, state, packets, packet):
    """Append a dissected packet with its time and number to the table."""
    state[PACKETS] += 1
    packet[AT_NS], packet[NUMBER] = at_ns, state[PACKETS]
    for column in range(COLUMNS):
        packets[column, state[COUNT]] = packet[column]
    state[COUNT] += 1


@kernel(inlined=True)
def _pcap_record(data, at, end, state, packets, packet):
    """Read a record of a pcap file, and return the offset after it.

    -1 means that the record is not complete yet, -2 that it is damaged.
    """
    swapped = state[SWAPPED] != 0
    captured, original = _own32(data, at + 8, swapped), _own32(data, at + 12, swapped)
    if captured > PACKET_BYTES_MAX:
        return np.int64(-2)
    begin = at + 16
    if begin + captured > end:
        return np.int64(-1)
    ticks_per_s = state[TICKS_PER_S]
    fraction = min(_own32(data, at + 4, swapped), ticks_per_s - 1)
    ticks = _own32(data, at, swapped) * ticks_per_s + fraction
    dissect(data, begin, begin + captured, begin + max(original, captured), state[LINK], packet)
    _add(_instant_ns(ticks, ticks_per_s, 0), state, packets, packet)
    return begin + captured


@kernel(inlined=True)
def _pcapng_block(data, at, end, state, interfaces, packets, packet):
    """Read a packet block of a pcapng file, and return what `_pcap_record` returns, or -3 for another kind of block."""
    swapped = state[SWAPPED] != 0
    kind, size = _own32(data, at, swapped), _own32(data, at + 4, swapped)
    if kind == _SECTION:
        # The caller reads a section header, because only its contents show the byte order, even that of its size.
        return np.int64(-3)
    if size < 12 or size & 3 or size > (PACKET_BYTES_MAX << 4):
        return np.int64(-2)
    if at + size > end:
        return np.int64(-1)
    if kind not in (_ENHANCED, _OLD_PACKET):
        return np.int64(-3)
    if size < 32:
        return np.int64(-2)
    interface = _own32(data, at + 8, swapped) if kind == _ENHANCED else _own16(data, at + 8, swapped)
    captured, original = _own32(data, at + 20, swapped), _own32(data, at + 24, swapped)
    if (
        interface >= len(interfaces)
        or interfaces[interface, INTERFACE_TICKS_PER_S] == 0
        or captured > size - 32
    ):
        return np.int64(-2)
    ticks = _own32(data, at + 12, swapped) << 32 | _own32(data, at + 16, swapped)
    of = interfaces[interface]
    begin = at + 28
    dissect(data, begin, begin + captured, begin + max(original, captured), of[INTERFACE_LINK], packet)
    at_ns = _instant_ns(ticks, of[INTERFACE_TICKS_PER_S], of[INTERFACE_OFFSET_S])
    _add(at_ns, state, packets, packet)
    return at + size


@kernel("int64(uint8[::1], int64, int64[::1], int64[:, ::1], int64[:, ::1], int64[::1])")
def scan(data, end, state, interfaces, packets, packet):
    """Read the packets of data[state[POSITION]:end] into columns of `packets` int64[COLUMNS, n].

    `interfaces` int64[n, INTERFACE_WORDS] are those of the pcapng section. `packet` int64[COLUMNS] is scratch.
    Returns MORE, FULL, BLOCK or DAMAGED; state[POSITION] is where the call stopped.
    """
    state[COUNT] = 0
    pcapng = state[PCAPNG] != 0
    while state[POSITION] + (12 if pcapng else 16) <= end:
        if state[COUNT] == packets.shape[1]:
            return FULL
        if pcapng:
            after = _pcapng_block(data, state[POSITION], end, state, interfaces, packets, packet)
        else:
            after = _pcap_record(data, state[POSITION], end, state, packets, packet)
        if after < 0:
            return MORE if after == -1 else BLOCK if after == -3 else DAMAGED
        state[POSITION] = after
    return MORE

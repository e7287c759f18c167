"""Packet captures: containers, links, reassembly, HTTP/1 in both directions, and what a capture lacks."""

from __future__ import annotations

import gzip
import random
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from replay.errors import InputError
from replay.trace import RecordedResponse, Trace, body_digest
from replay.trace.importing import import_files
from tests.support.packets import (
    ETHERNET,
    LINUX_SLL,
    LINUX_SLL2,
    LOOP,
    NULL,
    RAW,
    RST,
    START_NS,
    Connection,
    Frame,
    block,
    blocks_of,
    fragments,
    framed,
    pcap,
    pcapng,
    request,
    response,
    vxlan,
)

MS_NS, US_NS = 1_000_000, 1_000


def imported(folder: Path, data: bytes, name: str = "a.pcap") -> Trace:
    path = folder / name
    path.write_bytes(data)
    return import_files([path], folder / "a.trace", overwrite=True)


class Row(NamedTuple):
    at_us: int
    line: str
    status: int
    took_us: int
    size: int
    body: bytes


def rows_of(trace: Trace) -> list[Row]:
    """Requests in the order of their time; 0 ms is START_NS."""
    found, requests = [], trace.requests
    for batch in trace.batches():
        for index in range(len(batch)):
            asked = requests.get(int(batch.request[index]))
            took_ns = int(batch.took_ns[index])
            found.append(
                Row(
                    at_us=(int(batch.at_ns[index]) - START_NS) // US_NS,
                    line=f"{trace.manifest.methods[asked.method]} {asked.target.decode()}",
                    status=int(batch.status[index]),
                    took_us=took_ns // US_NS if took_ns >= 0 else -1,
                    size=int(batch.bytes[index]),
                    body=requests.body(asked.body) if asked.body >= 0 else b"",
                )
            )
    return found


def read(folder: Path, frames: Iterable[Frame], link: int = ETHERNET) -> list[Row]:
    return rows_of(imported(folder, pcap(frames, link)))


def one_exchange(**where: object) -> Connection:
    return Connection(**where).open().ask(request("/a")).answer(response(200, b"hello")).close()  # type: ignore[arg-type]


ONE = [Row(3000, "GET /a", 200, 1000, 5, b"")]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "kind", ["pcap", "microseconds", "pcapng", "pcapng of microseconds", "pcapng of 2^-20 s"]
)
def test_containers_in_both_byte_orders(tmp_path: Path, order: str, kind: str) -> None:
    frames = one_exchange().frames()
    data = {
        "pcap": lambda: pcap(frames, order=order),
        "microseconds": lambda: pcap(frames, order=order, nanoseconds=False),
        "pcapng": lambda: pcapng(frames, order=order),
        "pcapng of microseconds": lambda: pcapng(frames, order=order, resolution=6),
        "pcapng of 2^-20 s": lambda: pcapng(frames, order=order, resolution=0x80 | 20),
    }[kind]()
    (row,) = rows_of(imported(tmp_path, data))
    assert row._replace(at_us=row.at_us // 10 * 10, took_us=-(-row.took_us // 10) * 10) in (
        ONE[0],
        ONE[0]._replace(at_us=2990),
    )


@pytest.mark.parametrize("link", [ETHERNET, NULL, LOOP, RAW, LINUX_SLL, LINUX_SLL2])
@pytest.mark.parametrize("six", [False, True])
def test_link_types_and_both_versions_of_ip(tmp_path: Path, link: int, six: bool) -> None:
    where = {"source": "2001:db8::1", "target": "2001:db8::2"} if six else {}
    assert read(tmp_path, one_exchange(**where).frames(link), link) == ONE


def test_vlan_tags_and_vxlan_are_looked_into(tmp_path: Path) -> None:
    packets = one_exchange().packets
    tagged = [Frame(at_ns, framed(packet, vlans=2)) for at_ns, packet in packets]
    assert read(tmp_path, tagged) == ONE
    tunnelled = [Frame(at_ns, framed(vxlan(packet))) for at_ns, packet in packets]
    assert read(tmp_path, tunnelled) == ONE


def test_gzip_and_a_pipe(tmp_path: Path) -> None:
    data = pcap(one_exchange().frames())
    assert rows_of(imported(tmp_path, gzip.compress(data), "a.pcap.gz")) == ONE
    code = "import sys; from replay.trace.importing import import_files; import_files(['-'], sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.trace")], input=data, check=True, timeout=60
    )
    assert rows_of(Trace.open(tmp_path / "b.trace")) == ONE


def test_ip_fragments_are_put_together_in_any_order(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/up", "POST", b"x" * 900)).answer(response()).close()
    frames = []
    for at_ns, packet in made.packets:
        parts = fragments(packet, 256) if len(packet) > 500 else [packet]
        frames += [Frame(at_ns, framed(part)) for part in reversed(parts)]
    assert read(tmp_path, frames) == [Row(3000, "POST /up", 200, 1000, 2, b"x" * 900)]


def test_pipelined_requests_get_their_own_responses(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/1") + request("/2", "HEAD") + request("/3"))
    head = response(200, b"", length=False)[:-2] + b"Content-Length: 99\r\n\r\n"
    made.answer(response(201) + head + response(203, b"three", chunked=True)).close()
    assert [(row.line, row.status, row.size) for row in read(tmp_path, made.frames())] == [
        ("GET /1", 201, 2), ("HEAD /2", 200, 0), ("GET /3", 203, 5),
    ]  # fmt: skip


def test_interim_responses_answer_nothing(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/a", "PUT", Expect="100-continue") + b"")
    made.answer(b"HTTP/1.1 100 Continue\r\n\r\n").answer(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")
    made.answer(response(204, b"", length=False)).close()
    assert [(row.line, row.status, row.took_us) for row in read(tmp_path, made.frames())] == [
        ("PUT /a", 204, 3000)
    ]


def test_a_body_up_to_the_end_of_the_connection(tmp_path: Path) -> None:
    made = (
        Connection(segment=10)
        .open()
        .ask(request("/a"))
        .answer(response(200, b"y" * 50, length=False))
        .close()
    )
    (row,) = read(tmp_path, made.frames())
    assert (row.status, row.size) == (200, 50)


def test_times_are_of_the_first_and_the_last_byte(tmp_path: Path) -> None:
    made = (
        Connection(segment=100)
        .open()
        .ask(request("/a", "POST", b"b" * 450))
        .answer(response(200, b"z" * 950))
        .close()
    )
    up, down = -(-len(request("/a", "POST", b"b" * 450)) // 100), -(-len(response(200, b"z" * 950)) // 100)
    (row,) = read(tmp_path, made.frames())
    assert (row.at_us, row.took_us, row.body) == (3000, 1000 * (up + down - 1), b"b" * 450)


def shuffled(frames: list[Frame], seed: int) -> list[Frame]:
    """Frames near each other change places; their stamps stay with them."""
    drawn = random.Random(seed)
    return [
        frame
        for _, _, frame in sorted((n + drawn.uniform(0, 30), n, frame) for n, frame in enumerate(frames))
    ]


def many(count: int, segment: int = 60) -> tuple[list[Frame], list[Row]]:
    """Connections side by side, each with some requests; and what is in them."""
    frames, rows = list[Frame](), list[Row]()
    for index in range(count):
        made = Connection(port=20_000 + index, at_ns=START_NS + index * 700_000, segment=segment).open()
        for number in range(4):
            body = bytes([65 + number]) * (37 * number)
            at_us = (made.at_ns - START_NS) // US_NS
            made.ask(request(f"/{index}/{number}", "POST" if body else "GET", body))
            made.answer(response(200 + number, b"r" * 150, chunked=number == 2))
            took_us = (made.at_ns - made.step_ns - START_NS) // US_NS - at_us
            rows.append(
                Row(at_us, f"{'POST' if body else 'GET'} /{index}/{number}", 200 + number, took_us, 150, body)
            )
        frames += made.close().frames()
    return sorted(frames, key=lambda frame: frame.at_ns), sorted(rows)


def test_segments_out_of_order_and_twice_change_nothing(tmp_path: Path) -> None:
    frames, rows = many(20)
    drawn = random.Random(3)
    frames += [
        Frame(frame.at_ns + 3 * MS_NS, frame.data) for frame in drawn.sample(frames, len(frames) // 10)
    ]
    assert sorted(read(tmp_path, shuffled(frames, 1))) == rows


@pytest.mark.parametrize("seed", range(8))
def test_lost_packets_cost_messages_and_invent_none(tmp_path: Path, seed: int) -> None:
    frames, rows = many(60)
    drawn = random.Random(seed)
    kept = [frame for frame in frames if drawn.random() >= 0.01]
    trace = imported(tmp_path, pcap(shuffled(kept, seed)))
    found, truth = rows_of(trace), {row.line: row for row in rows}
    assert len({row.line for row in found}) == len(found)
    for row in found:
        true = truth[row.line]
        assert (row.body, row.at_us) == (true.body, true.at_us)
        assert row.status in (-1, true.status)
    whole = [row for row in found if row == truth[row.line]]
    assert len(whole) >= 0.85 * len(rows)
    missing = len(rows) - len(found)
    assert missing <= sum(trace.manifest.rejected.values()) <= 2 * missing + 1
    assert any("not captured" in each for each in trace.manifest.assumptions)


def test_packets_cut_short_are_lost_parts(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/a", "POST", b"q" * 300)).answer(response(200, b"w" * 500))
    made.ask(request("/b")).answer(response(201)).close()
    frames = [Frame(f.at_ns, f.data[:250], len(f.data)) for f in made.frames()]
    trace = imported(tmp_path, pcap(frames))
    assert [row.line for row in rows_of(trace)] == ["GET /b"]
    assert trace.manifest.rejected == {"not captured whole": 1}
    assert rows_of(trace)[0].status == 201


def test_a_port_used_again_is_another_connection(tmp_path: Path) -> None:
    first = Connection().open().ask(request("/1")).answer(response(200))
    second = (
        Connection(at_ns=first.at_ns + MS_NS, up=77_000_000, down=5)
        .open()
        .ask(request("/2"))
        .answer(response(201))
    )
    rows = read(tmp_path, [*first.frames(), *second.close().frames()])
    assert [(row.line, row.status) for row in rows] == [("GET /1", 200), ("GET /2", 201)]


def test_what_comes_again_after_the_end_is_no_new_request(tmp_path: Path) -> None:
    frames = one_exchange().frames()
    late = [Frame(frames[-1].at_ns + MS_NS, frame.data) for frame in frames[3:5]]
    assert read(tmp_path, [*frames, *late]) == ONE


def test_a_connection_that_began_before_the_capture(tmp_path: Path) -> None:
    made = Connection(segment=40).open().ask(request("/1")).answer(response(200, b"k" * 100))
    made.ask(request("/2")).answer(response(204, b"", length=False)).close()
    for cut in range(3, len(made.packets) - 4):
        trace = imported(tmp_path, pcap(made.frames()[cut:])) if cut < 4 else None
        rows = rows_of(trace) if trace else []
        assert all(row in read(tmp_path, made.frames()) for row in rows if row.status >= 0)
    (last,) = read(tmp_path, made.frames()[8:])
    assert (last.line, last.status) == ("GET /2", 204)


def test_a_reset_ends_a_connection(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/a")).close(RST)
    assert read(tmp_path, made.frames()) == [Row(3000, "GET /a", -1, -1, -1, b"")]


TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)


def test_other_protocols_are_named_by_port(tmp_path: Path) -> None:
    frames = one_exchange().frames()
    frames += Connection(port=1, service=443).open().ask(TLS_HELLO).answer(TLS_HELLO).close().frames()
    frames += (
        Connection(port=2, service=8443).open().ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").close().frames()
    )
    frames += Connection(port=3, service=6379).open().ask(b"*1\r\n$4\r\nPING\r\n\r\n").close().frames()
    upgrade = (
        Connection(port=4, service=80).open().ask(request("/ws", Upgrade="websocket", Connection="Upgrade"))
    )
    upgrade.answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").ask(b"\x81\x85hello").answer(
        b"GET /no HTTP/1.1\r\n\r\n"
    )
    trace = imported(tmp_path, pcap([*frames, *upgrade.close().frames()]))
    assert [row.line for row in rows_of(trace)] == ["GET /a", "GET /ws"]
    said = " ".join(trace.manifest.assumptions)
    for words in (
        "port 443 spoke TLS",
        "port 8443 spoke HTTP/2",
        "port 6379 spoke another",
        "port 80 spoke an upgraded",
    ):
        assert words in said


def test_a_capture_of_tls_alone_is_refused_with_the_way(tmp_path: Path) -> None:
    made = Connection(service=443).open().ask(TLS_HELLO).close()
    with pytest.raises(
        InputError, match=r"no request in .*1 connection to port 443 spoke TLS \(capture it where it is"
    ):
        imported(tmp_path, pcap(made.frames()))


def test_a_capture_without_http_costs_none_of_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "1.pcap").write_bytes(pcap(one_exchange().frames()))
    made = Connection(service=443, at_ns=START_NS + 10**9).open().ask(TLS_HELLO).close()
    (tmp_path / "2.pcap").write_bytes(pcap(made.frames()))
    trace = import_files([tmp_path / "1.pcap", tmp_path / "2.pcap"], tmp_path / "a.trace")
    assert rows_of(trace) == ONE
    assert any("port 443 spoke TLS" in each for each in trace.manifest.assumptions)


def test_packets_of_a_link_that_is_not_read_are_counted_by_it_alone(tmp_path: Path) -> None:
    section, ethernet, *packets = blocks_of(pcapng(one_exchange().frames()))
    other = block(1, struct.pack("<HHI", 195, 0, 0))
    strange = block(6, struct.pack("<IIIII", 1, 0, 0, 8, 8) + bytes(8))
    trace = imported(tmp_path, b"".join([section, ethernet, other, *packets, strange]))
    assert rows_of(trace) == ONE
    said = [each for each in trace.manifest.assumptions if "link type" in each]
    assert said == ["packets of link type 195, which is not read: 1"]


def test_a_response_that_is_no_http_is_counted(tmp_path: Path) -> None:
    made = Connection().open().ask(request("/a")).answer(b"nonsense\r\n\r\n").close()
    trace = imported(tmp_path, pcap(made.frames()))
    assert [row.status for row in rows_of(trace)] == [-1]
    assert "responses of unknown status (not captured whole, or not HTTP/1): 1" in trace.manifest.assumptions


def test_tls_secrets_in_a_capture_are_named_and_not_used(tmp_path: Path) -> None:
    data = pcapng(one_exchange().frames()) + block(10, b"TLSK" + bytes(8))
    assert (
        "the capture has TLS secrets, but replay does not decrypt TLS"
        in imported(tmp_path, data).manifest.assumptions
    )


def test_packets_that_the_capture_dropped_are_counted(tmp_path: Path) -> None:
    statistics = pcapng([], dropped=7)[len(pcapng([])) :]
    first, *rest = blocks_of(pcapng(one_exchange().frames(), dropped=12))
    trace = imported(tmp_path, b"".join([first, rest[0], statistics, *rest[1:]]))
    assert "packets dropped during the capture: 12" in trace.manifest.assumptions


@pytest.mark.parametrize("cut", [5, 30, 90])
def test_a_file_that_ends_within_a_packet_keeps_what_was_before(tmp_path: Path, cut: int) -> None:
    data = pcap([*one_exchange().frames(), *Connection(port=9).open().frames()])
    trace = imported(tmp_path, data[:-cut])
    assert rows_of(trace) == ONE
    assert sum(trace.manifest.rejected.values()) == 1


def test_bytes_that_are_no_packet_end_the_capture(tmp_path: Path) -> None:
    trace = imported(tmp_path, pcap(one_exchange().frames()) + b"\xff" * 500)
    assert rows_of(trace) == ONE
    assert "damaged capture" in trace.manifest.rejected


@pytest.mark.parametrize("data", [b"\xd4\xc3\xb2\xa1", pcap([]), pcapng([]), pcap([])[:20]])
def test_a_capture_without_packets_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError):
        imported(tmp_path, data)


def test_secrets_in_captured_headers_and_targets_go(tmp_path: Path) -> None:
    asked = request("/a?token=hunter2", Authorization="Bearer hunter2", Cookie="sid=hunter2")
    imported(tmp_path, pcap(Connection().open().ask(asked).answer(response()).close().frames()))
    assert not any(b"hunter2" in path.read_bytes() for path in (tmp_path / "a.trace").iterdir())


@pytest.mark.parametrize("packets_at_once", [1, 7])
def test_any_size_of_blocks_gives_the_same(
    tmp_path: Path, packets_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, rows = many(5)
    monkeypatch.setattr("replay.trace.importing.sources.BLOCK_BYTES", 512)
    monkeypatch.setattr("replay.trace.importing.capture.container.PACKETS_AT_ONCE", packets_at_once)
    monkeypatch.setattr("replay.trace.importing.capture.container.HELD_BACK", 3)
    assert sorted(read(tmp_path, frames)) == rows
    trace = imported(tmp_path, pcapng(frames))
    assert sorted(rows_of(trace)) == rows


def talk(port: int, count: int, *, body: bytes = b"x" * 300) -> Connection:
    """A connection with so many requests and responses, a packet a second."""
    connection = Connection(port=port, step_ns=1_000 * MS_NS, at_ns=START_NS + port).open()
    for number in range(count):
        connection.ask(request(f"/{port}/{number}")).answer(response(body=body))
    return connection


def by_time(*connections: Connection) -> list[Frame]:
    frames = [frame for connection in connections for frame in connection.frames()]
    return sorted(frames, key=lambda frame: frame.at_ns)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_files_of_a_rotation_are_read_as_one_capture(tmp_path: Path, size: int) -> None:
    frames = by_time(talk(1_111, 9), talk(2_222, 9))
    whole = imported(tmp_path, pcap(frames))
    paths = []
    for number, at in enumerate(range(0, len(frames), size)):
        paths.append(tmp_path / f"day.pcap{number:03d}")
        paths[-1].write_bytes(pcap(frames[at : at + size]))
    joined = import_files([*reversed(paths)], tmp_path / "joined.trace")
    assert rows_of(joined) == rows_of(whole)
    assert (joined.rows, joined.manifest.rejected) == (18, {})
    assert list(joined.recorded_responses()) == list(whole.recorded_responses())
    assert joined.manifest.assumptions == whole.manifest.assumptions


def test_captures_of_the_same_time_are_not_joined(tmp_path: Path) -> None:
    """Two captures in two places: what one saw of a connection is not what the other lacks."""
    frames = by_time(talk(1_111, 9))
    for name, part in (("a", frames[: len(frames) // 2 + 4]), ("b", frames[len(frames) // 2 :])):
        (tmp_path / f"{name}.pcap").write_bytes(pcap(part))
    trace = import_files([tmp_path / "a.pcap", tmp_path / "b.pcap"], tmp_path / "t.trace")
    assert "connections whose beginning was not captured: 1" in trace.manifest.assumptions


def test_a_response_that_was_captured_whole_is_in_the_trace(tmp_path: Path) -> None:
    trace = imported(tmp_path, pcap(by_time(talk(1_111, 3))))
    (answer,) = set(trace.recorded_responses())
    assert answer == RecordedResponse("", (), 300, body_digest(b"x" * 300), b"x" * 300)
    (batch,) = trace.batches()
    assert batch.first_byte_ns is not None and batch.first_byte_ns.tolist() == [1_000 * MS_NS] * 3


@pytest.mark.parametrize("last", [True, False])
def test_a_response_whose_last_bytes_are_missing_has_no_duration(last: bool, tmp_path: Path) -> None:
    frames = by_time(talk(1_111, 2, body=b"y" * 9_000))
    payloads = [number for number, frame in enumerate(frames) if b"yyy" in frame.data]
    of_first = payloads[: len(payloads) // 2]
    gone = of_first[-1] if last else of_first[1]
    trace = imported(tmp_path, pcap([*frames[:gone], *frames[gone + 1 :]]))
    (batch,) = trace.batches()
    assert batch.took_ns is not None and batch.first_byte_ns is not None
    assert batch.first_byte_ns.tolist() == [1_000 * MS_NS] * 2
    first, second = batch.took_ns.tolist()
    assert second > 1_000 * MS_NS and first == (-1 if last else second)
    assert trace.manifest.unknown_values.get("duration", 0) == int(last)


def test_a_response_with_a_hole_has_no_body(tmp_path: Path) -> None:
    frames = by_time(talk(1_111, 1, body=b"y" * 9_000))
    trace = imported(tmp_path, pcap([*frames[:6], *frames[7:]]))
    (answer,) = trace.recorded_responses()
    assert answer is None or (answer.body is None and answer.digest == 0)
    assert trace.manifest.response_bodies == 0

"""The text of docs/benchmarks.md, made from the results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

STATISTICS = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"

HEAD = """\
# Benchmarks

This page compares replay with other load generators. To measure everything, or only some parts:

    make bench
    make bench ONLY="capacity punctuality"

The benchmarks need nginx and wrk (Debian packages), and Go to build vegeta. Programs that are missing are left out.
Generator and server are each pinned to a core. Programs run in turns, round by round, and each figure is the median of its
rounds. Compare figures only within a table, and never with those of another machine.
"""

FIRST = ("replay", "wrk", "vegeta")


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two marks of a page."""
    head, found, rest = page.read_text().partition(begin)
    assert found, f"{page} has no {begin!r}"
    page.write_text(head + begin + text + end + rest.partition(end)[2])


def render(results: dict[str, Any]) -> str:
    """Return the text of docs/benchmarks.md; a part without results is left out."""
    parts = [HEAD]
    for name, section in (
        ("capacity", _capacity), ("punctuality", _punctuality), ("recorded", _recorded), ("volume", _volume),
        ("https", _https),
        ("histograms", _histograms), ("workloads", _workloads), ("peaks", _peaks), ("comparing", _comparing),
        ("importing", _importing), ("kafka", _kafka),
        ("sessions", _sessions), ("clients", _clients), ("answers", _answers),
    ):  # fmt: skip
        if name in results:
            part = results[name]
            parts.append(section(part["results"]) + f"\n{part['on']}, {part['machine']}.\n")
    return "\n".join(parts)


def _sessions(results: dict[str, Any]) -> str:
    plain, session = results["plain"], results["sessions"]
    rows = "".join(
        f"| {name} | {figures['per_s']:,.0f} | {figures['per_cpu_s']:,.0f} | {figures['refused']:,} |\n"
        for name, figures in results.items()
    )
    return (
        "## Sessions\nThe same requests of the same clients, all due at once, to one nginx worker (`python -m benchmarks"
        " sessions`). Each client registers, logs in, and sends eight requests. `sessions` captures the token of the login,"
        " sends it with the eight requests, keeps a cookie jar, checks every status, and keeps the order of each client."
        " nginx refuses requests without a token that it issued. `ordered` only keeps the order. `plain` does none of"
        " this.\n\n"
        "| | requests/s | requests per CPU second | refused |\n|---|---|---|---|\n"
        + rows
        + f"\nsessions : plain = {session['per_cpu_s'] / plain['per_cpu_s']:.2f} per CPU second,"
        f" {session['per_s'] / plain['per_s']:.2f} per second of wall-clock time.\n"
    )


def _answers(results: dict[str, Any]) -> str:
    rows = "".join(
        f"| {keep} | {found['per_cpu_s']:,.0f} | {found['of_plain']:.2f} | {found['dropped_share']:.1%} |\n"
        for keep, found in results["capacity"].items()
    )
    memory = "; ".join(
        f"{found['peak_rss_mib']:,.0f} MiB with {found['kept']:,} responses" for found in results["memory"]
    )
    return (
        "## Kept responses\nA closed loop of 64 connections to one nginx worker that sends a kilobyte of JSON (fifty"
        " leaves), by the parts of the responses that are kept (`python -m benchmarks answers`). The CPU time includes all"
        " threads of the generator, also the one that writes responses.\n\n"
        "| kept | requests per CPU second | relative to none | dropped |\n|---|---|---|---|\n"
        + rows
        + f"\nPeak memory of the process with `digest`: {memory}.\n"
    )


def _clients(results: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"| {each['clients']:,} | {each['requests']:,} | {each['arrived_once']:,} | {each['unsent'] + each['failed']:,}"
        f" | {each['at_once']:,} | {each['out_of_order']:,} | {each['strangers']:,} | {each['wait_order_p50_ms']:.1f}"
        f" | {each['peak_rss_mib']:,.0f} |\n"
        for each in results
    )
    few, many = results[0], results[-1]
    each_kib = (many["peak_rss_mib"] - few["peak_rss_mib"]) * 1024 / (many["clients"] - few["clients"])
    return (
        "## Connections per client\nRecorded clients arrive within 8 s. Each has its own kept connection, and its requests"
        " are sent in order, on one lane (`python -m benchmarks clients`). Clients send pairs of requests, and the first"
        " response of a pair takes 20 ms. The sink determines from its own timestamps which requests arrived once, out of"
        " order, or on another client's connection.\n\n"
        "| clients | requests | arrived once | unsent or failed | connected at once | out of order | on another's connection"
        " | p50 ms of wait.order | peak RSS MiB |\n|---|---|---|---|---|---|---|---|---|\n"
        + rows
        + f"\nA connected client needs {each_kib:.1f} KiB of memory, without the kernel's memory for its socket. If there"
        " are more clients than files that a process may open, the connections that have been idle for longest are closed.\n"
    )


def _capacity(results: dict[str, float]) -> str:
    wrk = results.get("wrk")
    rows = "".join(
        f"| {name} | {results[name]:,.0f} | {f'{results[name] / wrk:.2f}' if wrk else '-'} |\n"
        for name in FIRST if name in results
    )  # fmt: skip
    return (
        "## Capacity\nRequests per CPU second of the generator, with 64 connections in a closed loop and one nginx worker"
        " (`python -m benchmarks capacity`). replay numbers each request, renders it from a trace and records its"
        " histograms."
        " Its CPU time is that of all its threads, from the first request to the last response.\n\n"
        "| | requests per CPU second | relative to wrk |\n|---|---|---|\n" + rows
    )


def _punctuality(results: dict[str, Any]) -> str:
    lines = []
    for rate, programs in results.items():
        for name, late in programs.items():
            held = "" if late["held"] > 0.99 else f" (held {late['held']:.0%} of the rate)"
            lines.append(
                f"| {int(rate):,}/s | {name}{held} | {late['p50_ms']:.3f} | {late['p90_ms']:.3f} | {late['p99_ms']:.2f}"
                f" | {late['cores']:.2f} |\n"
            )
    return (
        "## Punctuality\nTime in ms from the due time of a request to its arrival, by the receiver's timestamps"
        " (`python -m benchmarks punctuality`). The control is a loop that only spins on the clock and sends. It shows the"
        " lowest lateness that the machine allows. replay runs with its live view; `quiet` runs without. vegeta does not"
        " report its start, so its due times are aligned to its most punctual request. p99 is the noise of the machine, and"
        " the control shows it as well.\n\n"
        "| rate | | p50 ms | p90 ms | p99 ms | cores |\n|---|---|---|---|---|---|\n" + "".join(lines)
    )


def _https(results: dict[str, Any]) -> str:
    capacity, handshakes = results["capacity"], results["handshakes"]
    wrk = capacity.get("wrk")
    rows = "".join(
        f"| {name} | {rate:,.0f} | {f'{rate / wrk:.2f}' if wrk else '-'} |\n"
        for name, rate in capacity.items()
    )
    made = "".join(
        f"| {name} | {each['a_cpu_second']:,.0f} | {each['a_second']:,.0f} |\n"
        for name, each in handshakes.items()
    )
    late = "".join(
        f"| {int(rate):,}/s | {name} | {each['p50_ms']:.3f} | {each['p90_ms']:.3f} | {each['p99_ms']:.2f} |"
        f" {each['cores']:.2f} |\n"
        for rate, transports in results["punctuality"].items()
        for name, each in transports.items()
    )
    return (
        "## HTTPS\nTLS 1.3, an ECDSA certificate, one nginx worker (`python -m benchmarks https`). Capacity is measured as"
        " above, with kept connections.\n\n"
        f"| | requests per CPU second | relative to wrk |\n|---|---|---|\n{rows}\n"
        "Handshakes, each with one request. nginx closes the connection after its response. The columns count handshakes per"
        " CPU second of the generator, and per second of wall-clock time, where the server's work is the limit. `openssl"
        " s_time` does not verify certificates, and makes one connection after another. replay uses 64 connections.\n\n"
        f"| | per CPU second | per second |\n|---|---|---|\n{made}\n"
        "Time in ms from the due time of a request to its arrival at the sink, as above.\n\n"
        f"| rate | | p50 ms | p90 ms | p99 ms | cores |\n|---|---|---|---|---|---|\n{late}"
    )


def _recorded(day: dict[str, Any] | None) -> str:
    head = (
        "## A recorded day\nThe 24 hours of `nasa-http-1995-08-01.log`, replayed 600 times as fast. Lateness is in ms after"
        " the recorded times, by the receiver's timestamps (`python -m benchmarks recorded`).\n\n"
    )
    if day is None:
        return head + "The recording is missing, so nothing was measured.\n"
    return (
        head + "| requests | planned | ok | arrived | verdict | p50 ms late | p90 ms late | p99 ms late |\n"
        "|---|---|---|---|---|---|---|---|\n"
        f"| {day['rows']:,} | {day['planned']:,} | {day['ok']:,} | {day['arrived']:,} | {day['verdict']}"
        f" | {day['p50_ms']:.3f} | {day['p90_ms']:.3f} | {day['p99_ms']:.2f} |\n"
    )


def _volume(results: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"| {run['program']} | {run['rows']:,} | {run['arrived']:,} | {run['verdict']} | {run['p50_ms']:.3f}"
        f" | {run['p90_ms']:.3f} | {run['p90_whole_ms']:.3f} |"
        + (f" {run['underruns']} | {run['peak_rss_mib']:,.0f} |\n" if run["verdict"] else " | |\n")
        for run in results
    )
    return (
        "## Volume\nRequests with distinct paths at 50,000/s (`python -m benchmarks volume`). Lateness is in ms, in the"
        " median window of 4 s and over the whole run. The control runs for as long, with one path.\n\n"
        "| | requests | arrived | verdict | p50 | p90 | p90, whole run | feed underruns | peak RSS MiB |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + rows
    )


def _histograms(results: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {value:,.1f} |\n" for name, value in results.items())
    return (
        "## Histograms\nTime to record one value (`python -m benchmarks histograms`).\n\n| | ns |\n|---|---|\n"
        + rows
    )


def _workloads(results: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"| {each['name']} | {_millions(each['rows_read'])} | {_millions(each['rows_written'])}"
        f" | {each['rows_per_cpu_s'] / 1e6:.1f} M | {each['peak_rss_mib']:,.0f} |\n"
        for each in results
    )
    return (
        "## Generated and transformed traces\nRequests written to disk per CPU second of all threads of the process, with"
        " compiled kernels (`python -m benchmarks workloads`). If more requests are read than written, the requests read are"
        " counted.\n\n"
        "| | read | written | per CPU second | peak RSS MiB |\n|---|---|---|---|---|\n" + rows
    )


def _millions(rows: int) -> str:
    return f"{rows / 1e6:.0f} M" if rows else "-"


def _peaks(results: list[dict[str, Any]]) -> str:
    rows, real = "", ""
    for each in results:
        found, width = each["found"], each["width"]
        shares = [one["lower"] for one in found]
        errors = sorted(abs(share - 1) for share in shares)
        within = sum(error <= width for error in errors)
        rows += (
            f"| {each['name']} | {each['known_per_s']:,.0f}/s | {width:.0%} | {within} of {len(shares)}"
            f" | {min(shares):.3f} to {max(shares):.3f} | {statistics.median(errors):.1%} | {errors[-1]:.1%}"
            f" | {statistics.mean(one['trials'] for one in found):.0f} |\n"
        )
        if each["name"] == "real":
            real = "".join(
                f"| {one['seed']} | {one['lower']:.3f} to {one['upper']:.3f} | {one['late_us']:.0f} | {one['trials']}"
                f" | {one['took_s']:.0f} |{'' if one['verdict'] == 'FOUND' else ' ' + one['verdict']}\n"
                for one in found
            )
    return (
        "## Peaks\nThe capacity of a queue with 16 servers (M/D/k) is known from a formula. This benchmark compares it with"
        " the load that `replay peak` finds (`python -m benchmarks peaks`): the highest load that met the objective,"
        " relative to the known one. Each search begins at a different load, between a quarter and half of the known"
        " one.\n\n"
        "- **imagined**: a simulation in virtual time. Servers take 20 ms. The capacity is the load at which 5% of the"
        " requests wait for longer than that. A trial has 400,000 requests.\n"
        "- **real**: `replay.staging.queue` on loopback, on a separate core, with real-time priority if `chrt` is"
        " permitted. Servers take 2 ms. The capacity is the load at which 20% wait for longer than that. A trial takes 3.5 s"
        " of a thinned trace, whose arrivals remain Poisson. The objective limits p80 to twice the service time plus the"
        " delay of the service itself: its median at a tenth of the load, measured first.\n\n"
        "| | known | requested width | within it | found / known | median error | worst | trials |\n"
        "|---|---|---|---|---|---|---|---|\n"
        + rows
        + "\nEach real search: the load that met the objective and the load that missed it, relative to the known one.\n\n"
        "| seed | found | late, µs | trials | s |\n|---|---|---|---|---|\n" + real
    )


def _comparing(results: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {value:.2f} |\n" for name, value in results.items())
    return (
        "## Comparing builds\nTime of `replay compare` with eight runs per side of a recording with 200 routes, from start"
        " to exit (`python -m benchmarks comparing`).\n\n| | |\n|---|---|\n" + rows
    )


def _importing(results: dict[str, list[dict[str, Any]]]) -> str:
    def rows(part: str, *, memory: bool = False) -> str:
        return "".join(
            f"| {each['name']} | {each['rows'] / 1e6:,.1f} M | {each['rows_per_cpu_s'] / 1e6:,.2f} M"
            f" | {each['mb_per_cpu_s']:,.0f} |{_rss(each) if memory else ''}\n"
            for each in results[part]
        )

    def _rss(each: dict[str, Any]) -> str:
        return f" {each['peak_rss_mib']:,.0f} |"

    head, bar = "| rows | per CPU second | MB per CPU second |", "|---|---|---|---|"
    return (
        "## Importing\nImport of recordings to complete traces on one core, with compiled kernels and files in the page"
        " cache (`python -m benchmarks importing`). The recordings are generated, with 1,500 user agents,"
        f" 60,000 clients, and a new path in every twentieth line.\n\n| format {head}\n{bar}\n{rows('formats')}"
        "\nThe import of 200,000 combined lines, compared with alternatives: a loop around `re`, a regular expression in"
        " polars and DuckDB (to Parquet, one thread each), and goaccess. Only replay finds routes, hashes clients, removes"
        f" secrets and spreads timestamps.\n\n| {head}\n{bar}\n{rows('peers')}"
        "\nPeak memory for a short and a long common log, and reading the trace of the long one.\n\n"
        f"| {head} peak RSS MiB |\n{bar}---|\n{rows('memory', memory=True)}\n| {head}\n{bar}\n{rows('reading')}"
    )


def _kafka(results: dict[str, Any]) -> str:
    peer = results["capacity"].get("rdkafka_performance")
    rows = "".join(
        f"| {name} | {value:,.0f} | {f'{value / peer:.2f}' if peer else '-'} |\n"
        for name, value in results["capacity"].items()
    )
    encoded = ", ".join(
        f"{value / 1e6:.0f} M per second in batches of {name}" for name, value in results["encode"].items()
    )
    late = "".join(
        f"| {int(rate):,}/s | {of['replay']['lateness_p50_ms']:.2f} | {of['replay']['lateness_p99_ms']:.2f}"
        f" | {of['replay']['wait_p50_ms']:.2f} | {of['replay']['wait_p99_ms']:.2f} | {of['replay']['cores']:.2f}"
        f" | {of['kafka-producer-perf-test']['late_p50_ms']:.0f} | {of['kafka-producer-perf-test']['late_p99_ms']:.0f}"
        f" | {of['kafka-producer-perf-test']['start_ms']:,.0f} | {of['kafka-producer-perf-test']['cores']:.2f} |\n"
        for rate, of in results["punctuality"].items()
    )
    return (
        "## Kafka\nThe target is a real Apache Kafka with one node on a separate core (`python -m benchmarks kafka`). The"
        " benchmark needs Java and Maven, and for rdkafka_performance gcc and Debian's librdkafka-dev. Records have 100"
        " bytes, acks is 1, and batches have up to 1 MB. The other programs wait 5 ms for a batch to fill. replay has a"
        " tick of 1 ms (the default, for punctuality), or of 5 ms where the table lists it. The figures are acknowledged"
        " records per CPU second of the client, with all threads. replay keeps a schedule, renders each record from a trace"
        " and records its histograms. The other programs send as fast as they can.\n\n"
        "| | records per CPU second | relative to rdkafka_performance |\n|---|---|---|\n"
        + rows
        + f"\nThe kernels alone encode and seal {encoded}, on one core.\n\n"
        "Delays of records in ms, with the live view on: lateness (up to 1 ms of it is the tick), and wait, until"
        " the record is sent to the broker. The other columns show the throttle of kafka-producer-perf-test, by the"
        " CreateTime of its records (in whole ms, relative to its most punctual record): after its first second, and at its"
        " start.\n\n"
        "| rate | lateness p50 | p99 | wait p50 | p99 | cores | perf-test p50 | p99 | at its start | cores |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n" + late
    )

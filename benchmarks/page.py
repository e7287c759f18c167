"""docs/benchmarks.md, made from the results: figures, and how to repeat them."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

STATISTICS = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"

HEAD = """\
# Benchmarks

Made by `make bench` (all of it, or `make bench ONLY="capacity punctuality"`). It needs nginx and wrk (Debian packages) and
Go, with which it builds vegeta; what is missing is left out. Generator and server are pinned to a core each; programs take
turns, round by round, and a figure is the median of its rounds. Compare the figures of
one table with each other, not with another machine's.
"""

FIRST = ("replay", "wrk", "vegeta")


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between the two marks of a page."""
    head, found, rest = page.read_text().partition(begin)
    assert found, f"{page} has no {begin!r}"
    page.write_text(head + begin + text + end + rest.partition(end)[2])


def render(results: dict[str, Any]) -> str:
    """The page."""
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
        "## Sessions\nThe same requests of the same clients, all due at once, onto one nginx worker (`python -m benchmarks"
        " sessions`): each client registers, logs in, and asks eight times. `sessions` takes the token of the login, sends"
        " it with the eight, keeps a cookie jar, checks every status, and keeps each client's order; nginx refuses whoever"
        " has no token of its making. `ordered` keeps the order alone. `plain` does none of it.\n\n"
        "| | requests/s | requests a CPU second | refused |\n|---|---|---|---|\n"
        + rows
        + f"\nsessions : plain = {session['per_cpu_s'] / plain['per_cpu_s']:.2f} a CPU second,"
        f" {session['per_s'] / plain['per_s']:.2f} by the clock.\n"
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
        "## Kept responses\nA closed loop of 64 connections onto one nginx worker that answers with a kilobyte of JSON"
        " (fifty leaves), by what is kept of the responses (`python -m benchmarks answers`). All threads of the"
        " generator count, the one that writes them, too.\n\n"
        "| kept | requests a CPU second | of none | dropped |\n|---|---|---|---|\n"
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
        "## Clients with connections of their own\nRecorded clients that come within 8 s, each on a kept connection of its"
        " own, its requests in order, on one lane (`python -m benchmarks clients`). Each asks in quick pairs, whose first"
        " answer takes 20 ms. What arrived once, out of its client's order, or on another client's connection is the sink's"
        " own finding, by its stamps.\n\n"
        "| clients | requests | arrived once | unsent or failed | connected at once | out of order | on another's connection"
        " | p50 ms of wait.order | peak RSS MiB |\n|---|---|---|---|---|---|---|---|---|\n"
        + rows
        + f"\n{each_kib:.1f} KiB of memory a client, connected, beside what the kernel has for its socket. Where a process"
        " may not open as many files as there are clients, those idle for longest make room for others.\n"
    )


def _capacity(results: dict[str, float]) -> str:
    wrk = results.get("wrk")
    rows = "".join(
        f"| {name} | {results[name]:,.0f} | {f'{results[name] / wrk:.2f}' if wrk else '-'} |\n"
        for name in FIRST if name in results
    )  # fmt: skip
    return (
        "## Capacity\nRequests a CPU second of the generator, 64 connections in a closed loop, one nginx worker"
        " (`python -m benchmarks capacity`). replay numbers each request, renders it from a trace and records its"
        " histograms;"
        " all of its threads count, from the first request to the last answer.\n\n"
        "| | requests a CPU second | of wrk |\n|---|---|---|\n" + rows
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
        "## Punctuality\nHow late requests arrive at the receiver, ms after they were due, by the receiver's own stamps"
        " (`python -m benchmarks punctuality`). The control is a loop that does nothing but spin on the clock and send: the"
        " machine's floor. replay's live view is on; `quiet` is without. vegeta does not say when it starts, so its dues are"
        " aligned to its most punctual request. p99 is the machine's noise: the control has it too.\n\n"
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
        "## HTTPS\nTLS 1.3, an ECDSA certificate, one nginx worker (`python -m benchmarks https`). Capacity as above, by"
        " connections that are kept.\n\n"
        f"| | requests a CPU second | of wrk |\n|---|---|---|\n{rows}\n"
        "Handshakes, each with one request, nginx closing after its answer: a CPU second of the generator, and a second of"
        " the clock, in which the server's own share of the work is the limit. `openssl s_time` verifies nothing, and goes"
        " one after another; replay has 64 connections.\n\n"
        f"| | a CPU second | a second |\n|---|---|---|\n{made}\n"
        "How late requests arrive at the sink, ms, as above.\n\n"
        f"| rate | | p50 ms | p90 ms | p99 ms | cores |\n|---|---|---|---|---|---|\n{late}"
    )


def _recorded(day: dict[str, Any] | None) -> str:
    head = (
        "## A recorded day\nThe 24 hours of `nasa-http-1995-08-01.log`, 600 times as fast: ms after the recorded moments, by"
        " the receiver's stamps (`python -m benchmarks recorded`).\n\n"
    )
    if day is None:
        return head + "The recording was not there.\n"
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
        "## Volume\nRequests with distinct paths at 50,000/s (`python -m benchmarks volume`), ms late in the median window"
        " of 4 s, and over the whole run; the control for as long, with one path.\n\n"
        "| | requests | arrived | verdict | p50 | p90 | p90, whole run | feed underruns | peak RSS MiB |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + rows
    )


def _histograms(results: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {value:,.1f} |\n" for name, value in results.items())
    return (
        "## Histograms\nns to record one value (`python -m benchmarks histograms`).\n\n| | ns |\n|---|---|\n"
        + rows
    )


def _workloads(results: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"| {each['name']} | {_millions(each['rows_read'])} | {_millions(each['rows_written'])}"
        f" | {each['rows_per_cpu_s'] / 1e6:.1f} M | {each['peak_rss_mib']:,.0f} |\n"
        for each in results
    )
    return (
        "## Generated and transformed traces\nRequests to disk a CPU second, all of a process's threads, compiled kernels"
        " (`python -m benchmarks workloads`): those written, or read, whichever are more.\n\n"
        "| | read | written | a CPU second | peak RSS MiB |\n|---|---|---|---|---|\n" + rows
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
        "## Peaks\nSearches for the capacity of a queue with 16 servers (M/D/k), by the formula, and as `replay peak`"
        " finds it (`python -m benchmarks peaks`). Found is the highest load that met the objective, of the known one."
        " Imagined: in time of its own, servers that take 20 ms, the load at which 5% of the requests wait for longer than"
        " that, 400,000 requests a trial. Real: `replay.staging.queue` on loopback, first on a core of its own (`chrt`"
        " where it may), servers that take 2 ms, the load at which 20% wait for longer than that, trials of 3.5 s of a trace"
        " that is thinned (Poisson arrivals stay such). Its"
        " objective is p80 below twice the service time and what the service is late by: its median at a tenth of the load,"
        " measured first. Each search begins at another load, between a quarter and half of the known one.\n\n"
        "| | known | width asked for | within it | found, of the known | median error | worst | trials |\n"
        "|---|---|---|---|---|---|---|---|\n"
        + rows
        + "\nThe real ones, each: the load that met the objective and the one that missed it, of the known one.\n\n"
        "| seed | found | late, µs | trials | s |\n|---|---|---|---|---|\n" + real
    )


def _comparing(results: dict[str, float]) -> str:
    rows = "".join(f"| {name} | {value:.2f} |\n" for name, value in results.items())
    return (
        "## Comparing builds\n`replay compare` of eight runs per side, of a recording with 200 routes, from start to exit"
        " (`python -m benchmarks comparing`).\n\n| | |\n|---|---|\n" + rows
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

    head, bar = "| rows | a CPU second | MB a CPU second |", "|---|---|---|---|"
    return (
        "## Importing\nRecordings to finished traces on one core, compiled kernels, files in the page cache"
        " (`python -m benchmarks importing`). Recordings are made up: 1,500 user agents,"
        f" 60,000 clients, a new path in every twentieth line.\n\n| format {head}\n{bar}\n{rows('formats')}"
        "\n200,000 combined lines, beside what a user would pick instead: a loop around `re`, a regular expression in"
        " polars and DuckDB (to Parquet, one thread each), goaccess. Only replay tells routes, hashes clients, takes secrets"
        f" out and spreads stamps.\n\n| {head}\n{bar}\n{rows('peers')}"
        "\nMemory as a common log grows, and reading the trace of the long one.\n\n"
        f"| {head} peak RSS MiB |\n{bar}---|\n{rows('memory', memory=True)}\n| {head}\n{bar}\n{rows('reading')}"
    )


def _kafka(results: dict[str, Any]) -> str:
    peer = results["capacity"].get("rdkafka_performance")
    rows = "".join(
        f"| {name} | {value:,.0f} | {f'{value / peer:.2f}' if peer else '-'} |\n"
        for name, value in results["capacity"].items()
    )
    encoded = ", ".join(
        f"{value / 1e6:.0f} M a second in batches of {name}" for name, value in results["encode"].items()
    )
    late = "".join(
        f"| {int(rate):,}/s | {of['replay']['lateness_p50_ms']:.2f} | {of['replay']['lateness_p99_ms']:.2f}"
        f" | {of['replay']['wait_p50_ms']:.2f} | {of['replay']['wait_p99_ms']:.2f} | {of['replay']['cores']:.2f}"
        f" | {of['kafka-producer-perf-test']['late_p50_ms']:.0f} | {of['kafka-producer-perf-test']['late_p99_ms']:.0f}"
        f" | {of['kafka-producer-perf-test']['start_ms']:,.0f} | {of['kafka-producer-perf-test']['cores']:.2f} |\n"
        for rate, of in results["punctuality"].items()
    )
    return (
        "## Kafka\nOnto a real Apache Kafka, one node, on a core of its own (`python -m benchmarks kafka`; needs Java and"
        " Maven, for rdkafka_performance gcc and Debian's librdkafka-dev). Records of 100 bytes, acks 1, batches of up to"
        " 1 MB; the peers wait 5 ms for a batch to fill, replay a tick of 1 ms (its default, for punctuality) or, where it"
        " says so, of 5 ms. Records acknowledged a CPU second of the client; replay keeps a schedule meanwhile,"
        " renders each record from a trace and records its histograms, and all of its threads count; the peers"
        " go as fast as they can.\n\n| | records a CPU second | of rdkafka_performance |\n|---|---|---|\n"
        + rows
        + f"\nThe kernels alone encode and seal {encoded}, on one core.\n\n"
        "How late records leave, ms, with the live view on: lateness (of which 1 ms is the tick's design) and wait, until"
        " they are on their way to the broker. Beside it kafka-producer-perf-test's own throttle, by the CreateTime of its"
        " records (whole ms, against its most punctual one): once its first second is over, and at its start.\n\n"
        "| rate | lateness p50 | p99 | wait p50 | p99 | cores | perf-test p50 | p99 | at its start | cores |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n" + late
    )

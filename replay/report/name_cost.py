"""Prints what it costs to resolve a name: each query, and what a trailing dot saves."""

from __future__ import annotations

from rich.console import Console

from replay.names import Query, Settings
from replay.names.cost import Cost
from replay.names.failures import show_server
from replay.units import counted, format_count, format_latency

from .page import Page


def print_name_cost(written: Cost, full: Cost, settings: Settings, console: Console) -> None:
    """Print the queries for one lookup of a name as written, their total, and how many a trailing dot saves.

    If no name server is queried, print where the address comes from.
    """
    page = Page(console)
    print_settings(written.name, settings, page)
    if written.answer.source != "dns":
        where = {"hosts": "from the hosts file", "literal": "it is an address"}[written.answer.source]
        page.say(f"{', '.join(written.answer.addresses)}: {where}; no name server is queried", indent=2)
        return
    print_queries(written.queries, page)
    page.say(f"{', '.join(written.answer.addresses)}, for {written.answer.ttl_s} s (TTL)", "bold", indent=2)
    page.say(f"{_sum(written)} per lookup", indent=2)
    _print_saved(written, full, settings, page)


def print_settings(name: str, settings: Settings, page: Page) -> None:
    """Print the name, and the resolver settings used."""
    servers = ", ".join(show_server(server) for server in settings.servers)
    search = f"search {' '.join(settings.search)}" if settings.search else "no search domains"
    page.parts([(name, "bold"), (f"  ndots {settings.ndots}, {search}, name server {servers}", "dim")])
    if settings.sources_left_out:
        left_out = ", ".join(settings.sources_left_out)
        page.say(
            f"not used, although /etc/nsswitch.conf lists them: {left_out} (only files and dns are used)",
            "dim",
            indent=2,
        )


def print_queries(queries: tuple[Query, ...], page: Page) -> None:
    """Print one line per query."""
    page.table(
        [("query", "name"), ("kind", ""), ("answer", ""), ("took", "right"), ("", "text")],
        [
            (
                query.name,
                query.kind,
                page.text(query.answer, "" if query.addresses else "yellow"),
                format_latency(query.took_ns),
                ", ".join(query.addresses) + (" by TCP" if query.by_tcp else ""),
            )
            for query in queries
        ],
    )


def _print_saved(written: Cost, full: Cost, settings: Settings, page: Page) -> None:
    saved = written.sent - full.sent
    if saved <= 0:
        page.say("a trailing dot saves no query", "green", indent=2)
        return
    of = format_count(written.sent)
    page.say(
        f"with a trailing dot, {full.name} takes {_sum(full)}: {saved:,} of {of} queries are saved",
        "green",
        indent=2,
    )
    dots = full.name.rstrip(".").count(".")
    if full.name.rstrip(".") == written.name and dots:
        page.say(
            f"the cause is ndots above {dots}: write the trailing dot, or set `options ndots:{dots}` "
            f"for clients of such names",
            "dim",
            indent=2,
        )


def _sum(cost: Cost) -> str:
    """Return the number of queries and their time, such as `8 queries, 1.2 ms`."""
    return f"{counted(cost.sent, 'query', 'queries')}, {format_latency(cost.took_ns)}"

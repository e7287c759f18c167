"""Sentences for the summary of an import: its assumptions, and what it could not keep."""

from __future__ import annotations

from replay import units

from .readers.recorded_responses import NOT_TEXT
from .registry import Found


def about_time(found: Found, time_zone: str) -> list[str]:
    """Return a sentence for each assumption about timestamps without a zone; `time_zone` is the value of --tz."""
    zoneless, repeated, skipped = (found.moments.get(name, 0) for name in ("zoneless", "repeated", "skipped"))
    sentences = []
    if zoneless:
        taken = f"taken as {time_zone}" if time_zone else "taken as UTC (--tz ZONE sets another)"
        sentences.append(f"stamps of {units.counted(zoneless, 'request')} name no zone: {taken}")
    if repeated:
        sentences.append(
            f"{units.counted(repeated, 'request')} in the repeated hour of autumn: once the log's time goes back,"
            " they count as requests of the second hour"
        )
    if skipped:
        sentences.append(
            f"{units.counted(skipped, 'request')} in an hour that the clocks of {time_zone} skipped:"
            f" is {time_zone} the log's zone?"
        )
    return sentences


def about_queries(found: Found) -> list[str]:
    """Return a sentence if a server omitted queries from its log."""
    if not found.queries_cut:
        return []
    return [
        f"the log omits the query of {units.counted(found.queries_cut, 'request')}: replayed without it"
        " (Squid logs queries with `strip_query_terms off`)"
    ]


def about_bodies(found: Found) -> list[str]:
    """Return a sentence for each reason why response bodies were not kept."""
    return [
        f"bodies of {units.counted(count, 'response')} {why}: their sizes and digests are kept, not the bodies"
        + (" (--responses all keeps them)" if why == NOT_TEXT else "")
        for why, count in found.bodies_left.items()
    ]

"""The page itself: empty sections, a table of exact figures, and a script. It contains no data of a run."""

from __future__ import annotations

import functools
from pathlib import Path

from replay.report.html import page_and_policy

from .sections import SECTIONS

COLUMNS = (
    "t_s", "length_s", "planned", "sent", "ok", "error", "timeout", "unsent", "in_flight", "waiting", "open",
    "response_p50_ns", "response_p99_ns", "response_max_ns", "service_p50_ns", "service_p99_ns", "lateness_p50_ns",
    "lateness_p99_ns", "wait_p99_ns",
)  # fmt: skip
"""Fields of a row of timeline.jsonl that the table shows unchanged."""


@functools.cache
def page() -> tuple[bytes, str]:
    """Return the page, and the policy that the server sends with it."""
    heads = "".join(f'<th scope="col" data-key="{name}">{name}</th>' for name in COLUMNS)
    table = f'<table id="seconds"><thead><tr>{heads}</tr></thead><tbody></tbody></table>'
    exact = (
        "<details><summary>Each second, exactly as in timeline.jsonl (<span id=kept>0</span>)</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Each second">{table}</div></details>'
    )
    places = "".join(f'<section id="s-{name}"></section>' for name in SECTIONS)
    body = (
        '<p id="state" role="status">This page needs a script to follow the run.</p>'
        f"<main>{places}{exact}</main>"
    )
    script = Path(__file__).with_name("live.js").read_text("utf-8")
    made, policy = page_and_policy("replay: live", "replay", [body], script=script, own_server=True)
    return made, policy + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

"""Text of others: a hostile host, route, tag, label or name of a file in every output, and nothing of it is obeyed."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from replay.cli import replay
from replay.comparison.verdict import compare
from replay.ledger.histogram import Layout
from replay.report.console import Console, Table
from replay.report.html import Html, html_table, write_page
from replay.report.page import Page
from replay.report.svg import escape
from replay.shown import csv_cell, json_shown, shown
from replay.trace import Trace
from replay.trace.manifest import read_manifest, write_manifest
from tests.comparison.test_compare import logs
from tests.support.compare_data import annotations_of, junit_of, markdown_of
from tests.support.trace_data import Row, write_trace

HOSTILE = (
    "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\u202egpj\u200b\u2066[red]x[/blink][link=http://e]:boom:\r\n"
    + "VALID 100%\u2028\x7f"
)
"""It sets the clipboard, clears the screen, turns the line around, hides, is markup, and begins a line like ours."""

OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def obeyed(text: str) -> list[str]:
    """The characters that a terminal would obey, or that nobody sees."""
    return [char for char in text if unicodedata.category(char) in OBEYED and char not in "\n"]


@given(st.text())
def test_what_is_shown_is_seen(text: str) -> None:
    assert not obeyed(shown(text)) and "\n" not in shown(text)
    assert shown(shown(text)) == shown(text)
    assert shown(text, lines=True).count("\n") == text.count("\n")
    if text.isprintable() and text.isascii():
        assert shown(text) == text


@given(
    st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_keeps_its_values(value: object) -> None:
    for ascii_only in (True, False):
        data = json.dumps(value, ensure_ascii=ascii_only, indent=2).encode("utf-8", "surrogatepass")
        if b"\xed" in data and not ascii_only:
            continue
        made = json_shown(data)
        assert json.loads(made) == value
        assert not obeyed(made.decode())


@pytest.mark.parametrize(
    "text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "=cmd|' /C calc'!A0", "＝1"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == "'" + text
    assert csv_cell(text[1:].lstrip("=+-@")) in (text[1:].lstrip("=+-@"), "'" + text[1:].lstrip("=+-@"))


@pytest.mark.parametrize("text", ["-1", "+1.5", "/a", "GET /a", "shop.example", "1e9", "", "*"])
def test_cells_that_are_none_stay(text: str) -> None:
    assert csv_cell(text) == text


def printed(console_width: int = 200) -> Iterator[tuple[Console, io.StringIO]]:
    for terminal in (True, False):
        out = io.StringIO()
        yield Console(file=out, force_terminal=terminal, color_system=None, width=console_width), out


def test_a_console_obeys_no_text() -> None:
    for console, out in printed():
        console.print(HOSTILE)
        console.print(Text(HOSTILE))
        table = Table()
        table.add_column("a")
        table.add_row(HOSTILE)
        table.add_row(Text(HOSTILE, "bold"))
        grid = Table.grid()
        grid.add_row("a", HOSTILE)
        console.print(table, grid)
        page = Page(console)
        page.say(HOSTILE)
        page.title(HOSTILE)
        page.parts([(HOSTILE, "red"), (HOSTILE, "")])
        page.table([("a", ""), (HOSTILE, "wide")], [[HOSTILE, Text(HOSTILE)]])
        text = out.getvalue()
        assert not obeyed(text)
        assert "[red]x[/blink]" in text and ":boom:" in text
        lines = text.splitlines()
        assert sum(line.startswith("VALID") for line in lines) == 2, (
            "only what is printed as it is has lines of its own"
        )


def test_a_page_obeys_no_text(tmp_path: Path) -> None:
    table = html_table((HOSTILE, "b"), [(HOSTILE, Html(escape(HOSTILE)))], HOSTILE, reading=HOSTILE)
    write_page(tmp_path / "a.html", HOSTILE, HOSTILE, [table])
    assert not obeyed((tmp_path / "a.html").read_text())
    assert escape("<b>\u202e") == "&lt;b&gt;\\u202e"


def foreign(tmp_path: Path) -> Path:
    """A trace that somebody made, with hostile hosts, methods' routes, actions, files and examples."""
    write_trace(
        tmp_path / "t.trace", [Row(n * 1_000_000, "GET", b"/a", client=n, status=200) for n in range(40)]
    )
    folder = tmp_path / "t.trace"
    manifest = read_manifest(folder)
    manifest.routes[0].route = f"GET /{HOSTILE}"
    manifest.routes[0].action = HOSTILE
    manifest.routes_folded = {f"GET /{HOSTILE}": 7}
    manifest.time_zone = "UTC"
    manifest.importer = HOSTILE
    manifest.rejected = {HOSTILE: 3}
    manifest.lines += 3
    manifest.hosts = [HOSTILE for _ in manifest.hosts]
    manifest.secrets_dropped = {HOSTILE: 2}
    manifest.secrets_by_name = {HOSTILE: 2}
    write_manifest(folder, manifest)
    return folder


def test_a_foreign_trace_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    folder = foreign(tmp_path)
    assert not obeyed((folder / "manifest.json").read_text())
    assert Trace.open(folder).manifest.routes[0].route == f"GET /{HOSTILE}"
    for arguments in (
        ["inspect", str(folder)], ["inspect", str(folder), "--json"], ["inspect", str(folder), "--stats"],
        ["run", str(folder), "--target", "http://127.0.0.1:1", "--dry-run"],
        ["transform", str(folder), "-o", str(tmp_path / "u.trace"), "--scale", "2"],
        ["run", str(folder), "--target", "http://127.0.0.1:1", "--only", "nothing", "--dry-run"],
        ["init", str(folder), "--target", "http://127.0.0.1:1", "-o", str(tmp_path / "s.toml")],
        ["inspect", str(tmp_path / HOSTILE.replace("/", ""))],
        ["run", str(folder), "--target", f"http://{HOSTILE}/"],
    ):  # fmt: skip
        made = run_verb(arguments)
        assert made.strip() and not obeyed(made), arguments
    if (tmp_path / "s.toml").exists():
        assert not obeyed((tmp_path / "s.toml").read_text())


def run_verb(arguments: list[str]) -> str:
    """What a command prints, its error with it."""
    import contextlib

    from replay.cli import invoke

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        invoke(arguments)
    return out.getvalue() + errors.getvalue()


def test_an_export_holds_no_formula(tmp_path: Path) -> None:
    rows = [
        Row(n, "GET", b"/a", host=host) for n, host in enumerate(["=1+1", "@x", "+a", "-a", "shop.example"])
    ]
    write_trace(tmp_path / "t.trace", rows)
    for ending in ("csv", "tsv"):
        result = CliRunner().invoke(
            replay, ["export", str(tmp_path / "t.trace"), "-o", str(tmp_path / f"a.{ending}")]
        )
        assert result.exit_code == 0, result.output
        with (tmp_path / f"a.{ending}").open(newline="") as file:
            cells = [
                cell for row in csv.reader(file, delimiter="\t" if ending == "tsv" else ",") for cell in row
            ]
        assert not [cell for cell in cells if cell[:1] in "=+@\t\r" and cell] and "'=1+1" in cells
        assert not [cell for cell in cells if cell.startswith("-") and cell != "-1"]


def test_a_comparison_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    tag = HOSTILE.replace("\r\n", "").replace(",", "") + "|`](http://e)@all<b>"
    base, new = (
        logs(tmp_path, label, factor, Layout(3), "us", tag=tag)
        for label, factor in (("base", 1.0), ("n\x1b[2Jew", 2.0))
    )
    found = compare(base, new)
    texts = [markdown_of(found), *annotations_of(found), junit_of(found).decode()]
    assert not [text for text in texts if obeyed(text)]
    assert Xml.fromstring(junit_of(found)) is not None
    assert all("\n" not in line for line in annotations_of(found))
    outside = "".join(markdown_of(found).split("`")[::2])
    assert "<b>" not in outside and "@" not in outside and "](http" not in outside.replace("\\](http", "")

"""README, CONTRIBUTING and docs/: what they name is there, and what they quote was measured."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from benchmarks import page, results
from replay.cli import replay
from tests.support.places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_OURS = {
    "--network": "podman run",
    "--rm": "podman run",
    "--port": "a server of the user's own",
    "--prefix": "kubectl logs",
    "--retries": "python -m replay.staging.queue",
    "--sessions": "python -m replay.staging.service",
    "--skewed": "python -m benchmarks.cluster",
    "--real": "python -m benchmarks.queues",
}
ENTRY_POINTS = {"replay.protocols", "replay.sinks", "replay.importers", "replay.exporters"}
"""Groups of entry points, which are no modules."""

MADE = {"traces/week.trace", "traces/lockdown.trace"}


def by_verb() -> dict[str, set[str]]:
    """The flags of each verb."""
    context = click.Context(replay)
    flags = {}
    for verb in replay.list_commands(context):
        command = replay.get_command(context, verb)
        assert command is not None
        parts = [command, *(command.commands.values() if isinstance(command, click.Group) else ())]
        names = {name for each in parts for one in each.params for name in (*one.opts, *one.secondary_opts)}
        flags[verb] = names | {"--help"}
    return flags


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Verb and the rest of each `replay VERB ...` that a page has as code."""
    code = [*re.findall(r"^(?: {4}|replay ).*$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)]
    for line in code:
        yield from re.findall(r"\breplay ([a-z]+)\b((?: [^#|]*)?)", line)


def flags_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)


@pytest.fixture(params=PAGES, ids=lambda path: path.name)
def text(request: pytest.FixtureRequest) -> str:
    page: Path = request.param
    return page.read_text()


def test_every_flag_is_one_of_the_command_that_it_is_given_to(text):
    known = by_verb()
    for verb, rest in commands(text):
        if verb in known:
            assert set(flags_in(rest)) - NOT_OURS.keys() <= known[verb], f"replay {verb}{rest}"
    assert set(flags_in(text)) <= set().union(*known.values(), NOT_OURS)


def test_every_file_and_link_is_there(text):
    files = set(re.findall(r"`((?:replay|native|tests|benchmarks|docs|traces)/[\w/.*-]+)`", text)) - MADE
    files |= set(re.findall(r"\b(docs/[\w-]+\.md)", text))
    assert [name for name in files if not list(ROOT.glob(name.rstrip("/")))] == []
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not ((ROOT / link).exists() or (ROOT / "docs" / link).exists())] == []


def test_every_module_and_name_in_it_is_there(text):
    for name in re.findall(r"(?:`|python -m )((?:replay|replay_native|benchmarks)(?:\.\w+)+)", text):
        module, _, rest = name.rpartition(".")
        if name in ENTRY_POINTS:
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), rest), name


def test_every_part_of_the_benchmarks_and_target_of_make_is_there(text):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^ {4})make ([a-z]+)", text, re.MULTILINE)) <= targets
    parts = re.findall(r'python -m benchmarks (\w+)|ONLY="?([\w ]+)', text)
    asked = {part for pair in parts for part in " ".join(pair).split()}
    assert asked <= results.load().keys()


def test_the_figures_of_the_page_are_those_that_were_measured():
    assert page.render(results.load()) == results.PAGE.read_text()


def test_every_environment_variable_that_is_read_is_documented():
    read = re.compile(
        r'environ(?:\.get\(|\[)"([A-Z_]+)"|^\w*VARIABLE = "([A-Z_]+)"|"([A-Z_]+)" in environ', re.MULTILINE
    )
    sources = [path.read_text() for folder in ("replay", "native") for path in (ROOT / folder).rglob("*.py")]
    names = {name for source in sources for found in read.findall(source) for name in found if name}
    documented = set(re.findall(r"`([A-Z_]+)`", (ROOT / "docs" / "environment.md").read_text()))
    assert {"REPLAY_ALLOW", "REPLAY_DEBUG", "REPLAY_CACHE"} <= names
    assert names - documented == set()

"""`make docs`: the site is built without a warning, and has every flag, every public name and every page."""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import replay
from replay.cli import replay as command
from replay.results.run import Run
from replay.settings.table import SETTINGS
from replay.trace import Trace
from tests.support.places import ROOT

pytest.importorskip("sphinx_click", reason="make docs installs docs/site/requirements.lock")
pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-c",
        "docs/site",
        "docs",
    ]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*build, str(out)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, env=kept
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_flag_of_every_verb_is_in_the_reference(site):
    text = text_of(site / "cli.html")
    context = click.Context(command)
    missing = []
    for verb in command.list_commands(context):
        found = command.get_command(context, verb)
        assert found is not None
        assert f"replay {verb}" in text
        for parameter in found.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                missing += [f"{verb} {flag}" for flag in parameter.opts if not _has(text, flag)]
    assert missing == []


def _has(text: str, flag: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text) is not None


def test_every_setting_is_in_its_page(site):
    text = text_of(site / "settings.html")
    assert [key for key in SETTINGS if key not in text] == []


def public(kind: type) -> list[str]:
    """What a class has for users, without what it inherits."""
    return [name for name in vars(kind) if not name.startswith("_")]


def test_every_public_name_is_in_the_reference(site):
    text = text_of(site / "api.html")
    assert [name for name in replay.__all__ if f"{name}" not in text or name.startswith("_")] == [
        "__version__"
    ]
    for name in replay.__all__:
        assert name == "__version__" or inspect.getdoc(getattr(replay, name)), name
    assert [name for name in public(Run) if not re.search(rf"\b{name}\b", text)] == []
    assert [
        name for name in ("to_arrow", "arrow_batches", "open") if not re.search(rf"\b{name}\b", text)
    ] == []
    assert hasattr(Trace, "__arrow_c_stream__") and "__arrow_c_stream__" in text


def test_every_page_is_in_the_table_of_contents(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    listed = set(re.findall(r"(?:file|root): ([\w-]+)", (ROOT / "docs" / "site" / "toc.yml").read_text()))
    assert pages == listed
    assert [name for name in pages if not (site / f"{name}.html").exists()] == []


def test_no_page_asks_for_anything_from_elsewhere(site):
    for page in site.glob("*.html"):
        loaded = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="([^"]+)"', page.read_text())
        assert [url for url in loaded if url.startswith(("http:", "https:", "//"))] == [], page.name

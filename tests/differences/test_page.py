"""The page of a comparison of responses in headless Chromium: complete without a script, a search with it, fits a phone."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess

import pytest

from replay.cli.commands import invoke
from tests.support.response_data import make_sides

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
const blocks = [...document.querySelectorAll('.field')];
const shown = () => blocks.filter((block) => !block.hidden).length;
const input = document.querySelector('.search input'), kinds = document.querySelector('.search select');
const found = {all: shown(), wider: document.documentElement.scrollWidth - document.documentElement.clientWidth};
const type = (words) => { input.value = words; input.dispatchEvent(new Event('input')); return shown(); };
const first = document.querySelector('.fields').querySelectorAll('.field').length;
found.noise = found.all - first;
found.nothing = type('no such field');
found.price = type('price AMOUNT');
found.back = type('');
found.kinds = [...kinds.options].map((option) => option.value);
document.body.setAttribute('data-found', JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    def fault(reply, chance):
        if reply.route == 0:
            reply.document["price"]["amount"] = round(reply.document["price"]["amount"])
            reply.document["<img src=x onerror=alert(1)>"] = "\u202e<script>alert(1)</script>"

    folder = tmp_path_factory.mktemp("page")
    base, new = make_sides(folder, fault, requests=240)
    words = ["diff", f"base={','.join(map(str, base))}", f"new={','.join(map(str, new))}"]
    assert invoke([*words, f"--html={folder / 'diff.html'}"]) == 99
    return (folder / "diff.html").read_text()


def test_it_is_complete_without_a_script(page):
    assert "<script>alert" not in page and "onerror=alert(1)&gt;" in page and "\u202e" not in page
    blocks = re.findall(r'<details class="field"( open)?>', page)
    assert sum(map(bool, blocks)) == 2 and len(blocks) > 15
    assert "/price/amount" in page and "precision" in page and "that would have been detected: " in page
    assert 'class="search"' not in page, "a search without a script would do nothing"


@pytest.mark.parametrize("width", [1_280, 390])
def test_a_browser_searches_it(page, width, tmp_path):
    if CHROMIUM is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("Chromium is missing, and CI must have it")
        pytest.skip("Chromium not found: needed to look at the pages")
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    text = page.replace("script-src ", f"script-src 'sha256-{digest}' ")
    (tmp_path / "page.html").write_text(
        text.replace("</body></html>", f"<script>{PROBE}</script></body></html>")
    )
    words = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--no-first-run",
    ]
    words += [
        f"--user-data-dir={tmp_path / 'user'}",
        "--virtual-time-budget=3000",
        f"--window-size={width},900",
    ]
    done = subprocess.run(
        [*words, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "CONSOLE" not in done.stderr
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match, done.stderr[-2_000:]
    found = json.loads(html.unescape(match[1]))
    assert found["nothing"] == found["noise"] and found["price"] == found["noise"] + 1
    assert found["back"] == found["all"] and found["wider"] <= 0
    assert found["kinds"] == ["", "added", "precision"]

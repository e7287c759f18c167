"""Registrations, logins and orders, recorded with default scrubbing, replay without a refusal as `replay init` proposes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from replay.trace import Trace

PEOPLE = 10
PASSWORD = "Zq7Xv3Wk9Tp5"


def run(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *words], cwd=folder, capture_output=True, text=True, timeout=180,
        env={**os.environ, "COLUMNS": "120", **(env or {})}, check=False,
    )  # fmt: skip


@pytest.fixture
def service() -> Iterator[int]:
    place = Path(__file__).parents[1] / "support" / "strict_service.py"
    with subprocess.Popen(
        [sys.executable, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        yield int(process.stdout.readline())
        process.stdin.close()


class Person:
    """Somebody with a connection of their own."""

    def __init__(self, port: int, number: int, address: str) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, source_address=(address, 0), timeout=60
        )
        self._number, self._token, self._cookie = number, "", ""
        self._email = f"ann.{number}@corp.example.org"

    def ask(self, method: str, path: str, body: Any = None) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        headers |= {"Cookie": self._cookie} if self._cookie else {}
        if isinstance(body, dict):
            headers["Content-Type"], body = "application/json", json.dumps(body)
        elif body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        self.text = response.read().decode()
        assert response.status < 400, (method, path, response.status, self.text)
        return response

    def register(self) -> None:
        self.ask("GET", "/public")
        self.ask(
            "POST", "/register", {"email": self._email, "password": PASSWORD, "name": f"Ann {self._number}"}
        )

    def log_in(self) -> None:
        self.ask("POST", "/login", {"email": self._email, "password": PASSWORD})
        self._token = json.loads(self.text)["data"]["access_token"]

    def change_settings(self) -> None:
        self._cookie = (self.ask("GET", "/settings").getheader("Set-Cookie") or "").partition(";")[0]
        csrf = self.text.partition('name="csrf" value="')[2].partition('"')[0]
        self.ask("POST", "/settings", urlencode({"theme": "dark", "csrf": csrf}))

    def order(self, turn: int) -> None:
        order = {"id": f"ord-{self._number:02d}{turn}-{os.urandom(5).hex()}", "cents": 1999}
        location = self.ask("POST", "/orders", {"order": order}).getheader("Location") or ""
        self.ask("GET", location)
        self.ask("GET", "/public?page=1")


def recorded(folder: Path, service: int, addresses: list[str]) -> Path:
    """All people at once through the recording proxy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["record", "http", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{service}"]
    proxy = subprocess.Popen(
        [sys.executable, "-m", "replay.cli", *words, "--keep-responses", "-o", "day.trace"], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    people = [Person(port, number, address) for number, address in enumerate(addresses)]
    for step in ("register", "log_in", "change_settings"):
        for person in people:
            getattr(person, step)()
    for turn in range(3):
        for number, person in enumerate(people):
            if (number + turn) % 4 == 0:
                person.log_in()
            person.order(turn)
            person.change_settings()
    proxy.send_signal(signal.SIGTERM)
    output, _ = proxy.communicate(timeout=60)
    assert proxy.returncode == 0, output
    return folder / "day.trace"


def refused(service: int) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", service, timeout=10)
    connection.request("GET", "/refused")
    found: dict[str, int] = json.loads(connection.getresponse().read())
    return found


ONE, EACH = ["127.0.0.1"] * PEOPLE, [f"127.0.0.{number + 2}" for number in range(PEOPLE)]


@pytest.mark.whole
@pytest.mark.parametrize("addresses", [ONE, EACH], ids=["one address", "an address each"])
def test_what_is_proposed_replays_without_a_refusal(
    tmp_path: Path, service: int, addresses: list[str]
) -> None:
    trace = Trace.open(recorded(tmp_path, service, addresses))
    assert refused(service) == {}
    for file in trace.path.iterdir():
        assert PASSWORD.encode() not in file.read_bytes(), file.name
    made = run(tmp_path, "init", "day.trace", "--target", f"http://127.0.0.1:{service}", "-o", "day.toml")
    assert made.returncode == 0 and "DAY_PASSWORD" in made.stdout, made.stdout + made.stderr
    scenario = tomllib.loads((tmp_path / "day.toml").read_text())
    assert scenario["cookies"] and scenario["methods"] == "all"
    assert bool(scenario.get("split_clients")) == (addresses is ONE)
    assert PASSWORD not in (tmp_path / "day.toml").read_text()
    unset = run(tmp_path, "run", "day.toml", "-o", "unset")
    assert (
        unset.returncode == 2
        and "password (DAY_PASSWORD)" in unset.stderr
        and not (tmp_path / "unset").exists()
    )
    again = ["--set", "password=An0ther-one", "--plain", "--connections", "32"]
    for number, more in enumerate(([], [], ["--scale", "5", "--grow", "sessions"])):
        done = run(tmp_path, "run", "day.toml", "-o", f"run-{number}", *again, *more)
        assert refused(service) == {}, (number, (tmp_path / "day.toml").read_text())
        document = json.loads((tmp_path / f"run-{number}" / "run.json").read_text())
        accounts = document["accounts"]
        times = 5 if more else 1
        assert accounts["sent"] == accounts["ok"] == times * trace.rows, (done.stdout[-3000:], done.stderr)
        assert not [route for route in document["routes"] if route["outcomes"].keys() - {"2xx"}]
        for file in (tmp_path / f"run-{number}").rglob("*"):
            assert not file.is_file() or b"An0ther-one" not in file.read_bytes(), file.name

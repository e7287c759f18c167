"""The twin: what is refused before it starts, a setting that is changed while it runs, and that nothing is left."""

import os
import socket
import urllib.error
import urllib.request

import pytest

from replay.errors import UsageError
from replay.staging.twin import parse_twin, read_twin, running

SHOP = """
[services.shop]
workers = 2
[services.shop.routes.all]
calls = ["pay"]
[services.shop.calls.pay]
to = "payment"
timeout = "2s"
[services.payment]
workers = 1
queue = 0
[services.payment.routes.all]
time = "5ms"
"""


def twin_of(tmp_path, text=SHOP):
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return read_twin(path)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_serves_is_changed_while_it_runs_and_leaves_nothing(tmp_path):
    with running(twin_of(tmp_path)) as twin:
        assert status_of(f"{twin.front}/x") == 200
        twin.set("payment.workers", 3)
        figures = twin.figures()
        assert figures["payment.busy.limit"] == 3
        assert figures["shop.calls.pay.calls"] == 1
        with pytest.raises(UsageError, match="workrs"):
            twin.set("payment.workrs", 3)
        pids, log, port = twin.pids, twin.log_path, int(twin.front.rpartition(":")[2])
        assert '"started"' in log.read_text()
    assert not log.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("key", ["services.shop.port", "control_port"])
def test_a_port_in_use_is_named(tmp_path, key):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = (
            f"control_port = {port}\n{SHOP}"
            if key == "control_port"
            else SHOP.replace("workers = 2", f"port = {port}")
        )
        with pytest.raises(UsageError, match=rf"{key}.*{port}"), running(twin_of(tmp_path, text)):
            pass


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('to = "payment"', 'to = "paymnt"', "payment"),
        ("workers = 2", "wrokers = 2", "workers"),
        ('time = "5ms"', 'calls = ["back"]\n[services.payment.calls.back]\nto = "shop"', "shop"),
    ],
)
def test_what_leads_nowhere_is_named_with_its_place(tmp_path, old, new, named):
    with pytest.raises(UsageError, match=r"shop\.toml") as caught:
        twin_of(tmp_path, SHOP.replace(old, new))
    assert named in f"{caught.value} {caught.value.hint}"


def test_a_cycle_that_is_meant_is_taken():
    services = {
        "a": {"routes": {"all": {"calls": ["b"]}}, "calls": {"b": {}}},
        "b": {"routes": {"all": {}}, "calls": {"a": {"closes_cycle": True}}},
    }
    assert parse_twin({"services": services}).services["b"].calls["a"].closes_cycle

"""The twin: what is refused before it starts, a setting that is changed while it runs, and that nothing is left."""

import os
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

from replay.errors import EngineError, UsageError
from replay.staging.twin import parse_twin, read_twin, running
from replay.staging.twin.host import Command, HostProcess, Orders

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


def test_a_cycle_behind_one_that_is_meant_is_refused():
    """A search that goes through the call that closes a cycle would reach c before it sees a -> b -> a."""
    services = {
        "a": {"routes": {"all": {"calls": ["c", "b"]}}, "calls": {"c": {"closes_cycle": True}, "b": {}}},
        "b": {"routes": {"all": {"calls": ["a"]}}, "calls": {"a": {}}},
        "c": {"routes": {"all": {"calls": ["b"]}}, "calls": {"b": {}}},
    }
    with pytest.raises(UsageError, match=r"a -> b -> a is a cycle of calls|b -> a -> b is a cycle of calls"):
        parse_twin({"services": services})


def test_a_cycle_that_is_meant_is_taken():
    services = {
        "a": {"routes": {"all": {"calls": ["b"]}}, "calls": {"b": {}}},
        "b": {"routes": {"all": {}}, "calls": {"a": {"closes_cycle": True}}},
    }
    assert parse_twin({"services": services}).services["b"].calls["a"].closes_cycle


def each(tmp_path):
    return twin_of(tmp_path, f'processes = "each"\n{SHOP}')


def test_a_setting_reaches_every_process_of_its_own(tmp_path):
    with running(each(tmp_path)) as twin:
        assert len(twin.pids) == 3
        twin.set("payment.workers", 3)
        figures = twin.figures()
        assert (figures["payment.busy.limit"], figures["shop.busy.limit"]) == (3, 2)


@pytest.mark.whole
def test_a_process_that_does_not_take_over_a_setting_is_named(tmp_path):
    with running(each(tmp_path)) as twin:
        stopped = twin.pids[2]
        os.kill(stopped, signal.SIGSTOP)
        try:
            with pytest.raises(EngineError, match=r"the process of payment: it does not answer"):
                twin.set("payment.workers", 3)
            assert '"set_failed"' in twin.log_path.read_text()
        finally:
            os.kill(stopped, signal.SIGCONT)
        # Its late answer to that command is not taken for the answer to this one.
        twin.set("payment.workers", 4)
        assert twin.figures()["payment.busy.limit"] == 4


def test_a_process_that_cannot_apply_a_setting_says_so_and_serves_on():
    twin = parse_twin({"services": {"shop": {"routes": {"all": {}}}}})
    process = HostProcess(Orders(twin={}), twin, {})
    refused = process.answer(Command(turn=7, set={"shop.workers": "none at all"}))
    assert refused.turn == 7 and "shop.workers" in refused.error
    assert twin.services["shop"].workers == 8
    assert process.answer(Command(turn=8, set={"shop.workers": "9"})).error == ""
    assert twin.services["shop"].workers == 9


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_dies_ends_the_twin_and_is_named(tmp_path, number):
    words = ("signal 9", "the process of shop .* died by signal 9")[number]
    with pytest.raises(EngineError, match=words), running(each(tmp_path)) as twin:
        pids = twin.pids
        os.kill(pids[number], signal.SIGKILL)
        until(twin.died)
    until(lambda: not any(map(is_alive, pids)))


def until(condition):
    end_s = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

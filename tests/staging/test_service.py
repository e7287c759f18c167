"""The built-in service: the builds that it can be, and what it refuses."""

from __future__ import annotations

import json
import socket

import pytest

from replay.errors import UsageError
from replay.staging import service


@pytest.mark.timing
def test_a_build_has_one_endpoint_slower_and_no_other():
    usual = {endpoint.prefix: endpoint for endpoint in service.ENDPOINTS}
    slower = {
        endpoint.prefix: endpoint
        for endpoint in service.build_of(["GET /v1/profile=1.1", "POST /v1/users=2x"])
    }
    assert slower.keys() == usual.keys()
    changed = {
        name: slower[name].median_ms / usual[name].median_ms for name in usual if slower[name] != usual[name]
    }
    assert changed == {"GET /v1/profile": pytest.approx(1.1), "POST /v1/users": 2.0}
    assert service.build_of([]) == service.ENDPOINTS


@pytest.mark.timing
@pytest.mark.parametrize("text", ["GET /nothing=2", "GET /v1/profile", "GET /v1/profile=fast"])
def test_a_build_that_cannot_be_is_refused(text, capsys):
    with pytest.raises(UsageError):
        service.build_of([text])
    with pytest.raises(SystemExit) as ended:
        service.main(["--slower", text])
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


@pytest.mark.timing
def test_it_answers_as_a_process_and_ends_with_its_context():
    with service.running(1, ["GET /register=1.5"]) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"GET /register HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65_536), b""))
        assert answer.startswith(b"HTTP/1.1 200") and len(answer) > 6_120
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def asked(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.timing
def test_it_publishes_its_own_figures() -> None:
    def figures(port: int) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = json.loads(asked(port, "/figures").partition(b"\r\n\r\n")[2])
        return found

    crowd = service.DATABASE_PLACES + 6
    with service.running(1, ["GET /register=200"]) as port:
        idle = {"requests": {"in_flight": 0}, "queue": {"length": 0}, "workers": {"busy": 0, "of": crowd - 6}}
        assert figures(port) == idle
        clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(crowd)]
        try:
            for client in clients:
                client.sendall(b"GET /register HTTP/1.1\r\nHost: x\r\n\r\n")
            seen = figures(port)
            for _ in range(50):
                if seen["requests"]["in_flight"] == crowd:
                    break
                seen = figures(port)
            assert seen["workers"]["busy"] == service.DATABASE_PLACES
            assert seen["requests"]["in_flight"] == seen["workers"]["busy"] + seen["queue"]["length"] == crowd
        finally:
            for client in clients:
                client.close()

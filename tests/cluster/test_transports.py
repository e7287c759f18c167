"""Other ways to agents: ssh, Dask, agents that connect by themselves, and the manifest of a Job."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import kubernetes_validate
import pytest

from replay.cluster.kubernetes import Job, entry_point
from replay.cluster.ssh import HOSTS_BYTES_MAX
from replay.staging.sink import Sink
from tests.support.certificates import Authority
from tests.support.ports import free_port

from .support import AGENT, evening, running, ssh_of, until, url


def whole(test):
    """A run by the real command, which a busy machine may disturb."""
    return pytest.mark.whole(pytest.mark.timing(test))


def lines_of(folder: Path, *arguments: str, **env: str) -> str:
    """What a run that is refused prints."""
    command = [sys.executable, "-m", "replay.cli", "run", *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@whole
def test_ssh_runs_an_agent_on_each_host_and_fetches_their_results(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=2, per_second=100)
    stores = [tmp_path / f"store-{n}" for n in range(2)]
    hosts = "".join(f"host-{n} {AGENT} --stdio --folder {store}\n" for n, store in enumerate(stores))
    (tmp_path / "hosts.txt").write_text("# two hosts\n" + hosts)
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    with (
        Sink() as sink,
        running(
            tmp_path, "t.trace", "--target", url(sink), "--cluster", "ssh:hosts.txt", "-t", "1", env=env
        ) as run,
    ):
        _, printed = run.wait()
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(200)), printed
    assert run.document()["accounts"]["ok"] == 200
    assert len(list((run.out / "agents").glob("agent-*/run.json"))) == 2
    assert not any(list((store / "runs").glob("*")) for store in stores), "fetched runs are removed"


@whole
def test_an_agent_that_cannot_start_is_named_at_once(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    (tmp_path / "hosts.txt").write_text("host-0 no-such-program --stdio\n")
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    target = ("--target", f"http://127.0.0.1:{free_port()}")
    with running(tmp_path, "t.trace", *target, "--cluster", "ssh:hosts.txt", env=env) as run:
        code, printed = run.wait()
    assert code == 1 and "no-such-program" in printed and "Traceback" not in printed
    assert not run.out.exists()


@whole
def test_a_trace_that_is_not_there_is_shipped_once(tmp_path: Path) -> None:
    """The agents see another root, in which the coordinator's folder does not exist."""
    evening(tmp_path / "t.trace", seconds=2, per_second=100)
    store = tmp_path / "store"
    (tmp_path / "hosts.txt").write_text(
        f"h unshare -m sh -c 'mount --bind /var/empty {tmp_path}/t.trace; exec {AGENT} --stdio --folder {store} \"$@\"' -\n"
    )
    Path("/var/empty").mkdir(exist_ok=True)
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    with Sink() as sink, running(
        tmp_path, "t.trace", "--target", url(sink), "--cluster", "ssh:hosts.txt", "-t", "1", env=env
    ) as run:  # fmt: skip
        _, printed = run.wait()
    log = (run.out / "agents" / "agent-0.log").read_text()
    assert "the trace was transferred" in log, (printed, log)
    assert run.document()["accounts"]["ok"] == 200
    (kept,) = (path for path in (store / "traces").iterdir() if path.is_dir())
    assert (kept / "manifest.json").read_bytes() == (tmp_path / "t.trace" / "manifest.json").read_bytes()


@whole
def test_the_entry_point_of_a_job_by_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    evening(tmp_path / "t.trace", seconds=2, per_second=100)
    identity = authority.issue("127.0.0.1")
    port = free_port()
    job = Job(agents=2, image="replay:1", name="replay")
    with Sink() as sink:
        words = ["t.trace", "--target", url(sink), "-t", "1"]
        shell = entry_point(job, words, ())
        for old, new in (
            ("replay-0.replay:7800", f"127.0.0.1:{port}"), ("0.0.0.0:7800", f"127.0.0.1:{port}"),
            ("/tls/ca.pem", str(authority.path)), ("/tls/cert.pem", str(identity.cert)),
            ("/tls/key.pem", str(identity.key)), ("/data/runs/replay", str(tmp_path / "RUN")),
            ("exec replay ", f"exec {sys.executable} -m replay.cli "),
        ):  # fmt: skip
            assert old in shell
            shell = shell.replace(old, new)
        pods = [
            subprocess.Popen(
                ["/bin/sh", "-c", shell], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, "JOB_COMPLETION_INDEX": str(index), "REPLAY_CACHE": str(tmp_path / f"c{index}"),
                     "REPLAY_KERNELS": os.environ.get("REPLAY_KERNELS", str(Path.home() / ".cache/replay/kernels"))},
            )
            for index in range(3)
        ]  # fmt: skip
        said = [pod.communicate(timeout=60)[0] for pod in pods]
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(200)), said
    assert [pod.returncode for pod in pods[1:]] == [0, 0], said
    document = json.loads((tmp_path / "RUN" / "run.json").read_text())
    assert document["accounts"]["ok"] == 200 and len(document["agents"]) == 2


def test_the_manifest_is_valid(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    words = [
        "t.trace",
        "--target",
        "http://10.1.2.3",
        "--allow",
        "10.1.2.3",
        "--cluster",
        "k8s:agents=3,image=r:1",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "replay.cli", "run", *words], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip
    service, job = done.stdout.partition("{")[2].split("\n---\n")
    documents = [json.loads("{" + service), json.loads(job)]
    for document in documents:
        kubernetes_validate.validate(document, "1.30", strict=True)
    assert documents[1]["spec"]["completions"] == 4 and documents[0]["spec"]["clusterIP"] == "None"
    assert "--allow 10.1.2.3" in documents[1]["spec"]["template"]["spec"]["containers"][0]["command"][2]


@contextmanager
def dask(folder: Path, workers: int, *options: str) -> Iterator[str]:
    """A scheduler and its workers as processes. Gives the scheduler's URL."""
    port = free_port()
    (folder / "tmp").mkdir()
    env = {
        **os.environ,
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        "TMPDIR": str(folder / "tmp"),
    }
    ways = (
        [sys.executable, "-m", "distributed.cli.dask_scheduler"],
        [sys.executable, "-m", "distributed.cli.dask_worker"],
    )
    scheme = "tls" if options else "tcp"
    at = f"{scheme}://127.0.0.1:{port}"
    commands = [[*ways[0], "--host", at, "--no-dashboard", "--no-jupyter", *options]]
    commands += [
        [*ways[1], at, "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", *options]
        for _ in range(workers)
    ]
    processes = []
    try:
        for number, command in enumerate(commands):
            log = (folder / f"dask-{number}.log").open("wb")
            processes.append(
                subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
            )
        until(lambda: _workers(folder) >= workers)
        yield at
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _workers(folder: Path) -> int:
    return (folder / "dask-0.log").read_text().count("Register worker")


@whole
def test_agents_beside_the_workers_of_a_dask_cluster(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    evening(tmp_path / "t.trace", seconds=15, per_second=40)
    with Sink() as sink, dask(tmp_path, 2) as at:
        how = ("t.trace", "--target", url(sink), "--cluster", at, "-t", "1")
        with running(tmp_path, *how) as run:
            until(lambda: len(sink.stamps()["seq"]) > 50)
            (tmp_path / "other").mkdir()
            command = [*how[:3], "--cluster", at, "-o", "other/RUN"]
            assert "already has an agent" in lines_of(tmp_path, *command)
            _, printed = run.wait()
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(600)), printed
        assert run.document()["accounts"]["ok"] == 600
    # What an agent needs is in its worker's own folder, which Dask removes.
    kept = [
        path
        for path in (tmp_path / "tmp").rglob("replay-agent*")
        if path.parent.parent.name != "dask-scratch-space"
    ]
    assert not kept


@whole
def test_of_two_coordinators_at_once_the_second_is_refused(tmp_path: Path) -> None:
    """Both begin at the same moment. They ask the workers in the same order, so one of them gets all."""
    pytest.importorskip("distributed")
    folders = [tmp_path / "one", tmp_path / "two"]
    with dask(tmp_path, 2) as at, Sink() as first, Sink() as second, ExitStack() as stack:
        sinks, runs = (first, second), []
        for folder, sink in zip(folders, sinks, strict=True):
            folder.mkdir()
            evening(folder / "t.trace", seconds=4, per_second=100)
            how = ("t.trace", "--target", url(sink), "--cluster", at, "-t", "1")
            runs.append(stack.enter_context(running(folder, *how)))
        ended = [run.wait() for run in runs]
        received = [sorted(sink.stamps()["seq"].tolist()) for sink in sinks]
    whole = 0
    for run, (code, printed), seqs in zip(runs, ended, received, strict=True):
        if code == 2:
            assert "already has an agent" in printed, printed
            assert not seqs and not run.out.exists()
        else:
            whole += 1
            assert seqs == list(range(400)), printed
            assert run.document()["accounts"]["ok"] == 400
            assert [agent["planned"] for agent in run.document()["agents"]] == [200, 200]
    assert whole, ended


@whole
def test_a_dask_cluster_by_tls(tmp_path: Path, authority: Authority) -> None:
    pytest.importorskip("distributed")
    evening(tmp_path / "t.trace", seconds=2, per_second=100)
    identity = authority.issue("dask")
    files = {"ca": authority.path, "cert": identity.cert, "key": identity.key}
    options = (
        "--tls-ca-file",
        str(files["ca"]),
        "--tls-cert",
        str(files["cert"]),
        "--tls-key",
        str(files["key"]),
    )
    ours = [word for name, path in files.items() for word in (f"--cluster-{name}", str(path))]
    with Sink() as sink, dask(tmp_path, 1, *options) as at:
        with running(tmp_path, "t.trace", "--target", url(sink), "--cluster", at, *ours, "-t", "1") as run:
            _, printed = run.wait()
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(200)), printed


@whole
def test_a_scheduler_that_dies_with_its_workers_is_not_missed(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    evening(tmp_path / "t.trace", seconds=5, per_second=100)
    with Sink() as sink:
        with dask(tmp_path, 2) as at:
            context = running(tmp_path, "t.trace", "--target", url(sink), "--cluster", at, "-t", "1")
            run = context.__enter__()
            until(lambda: len(sink.stamps()["seq"]) > 50)
        _, printed = run.wait()
        context.__exit__(None, None, None)
        time.sleep(0.2)
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(500)), printed


@whole
def test_a_scheduler_that_goes_away_before_the_start_is_named(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    target = ("--target", f"http://127.0.0.1:{free_port()}")
    with dask(tmp_path, 1) as at:
        context = running(tmp_path, "t.trace", *target, "--cluster", at)
        run = context.__enter__()
        until(run.agents.exists)
    code, printed = run.wait(180)
    context.__exit__(None, None, None)
    # The agent may have come already: then the scheduler is not missed, and the target is the first to fail.
    if "agent on" not in printed:
        assert code == 2 and f"the Dask scheduler {at} was lost" in printed, printed
    assert "distributed.client" not in printed and "Traceback" not in printed


def test_clusters_that_are_refused(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    target = ("t.trace", "--target", "http://127.0.0.1:9")
    (tmp_path / "hosts.txt").write_text("-oProxyCommand=x\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "long.txt").write_bytes(b"#" * (HOSTS_BYTES_MAX + 1))
    for cluster, word in (
        ("local:0", "from 1 to"),
        ("local:x", "from 1 to"),
        ("nothing", "is not a cluster"),
        ("tcp://10.1.2.3:8786", "without TLS executes"),
        ("tcp://127.0.0.1", "'127.0.0.1' is not an address to connect to"),
        ("tcp://127.0.0.1:0", "'127.0.0.1:0' is not an address to connect to"),
        ("ssh:none.txt", "ssh:none.txt: no such file"),
        ("ssh:", "needs a file"),
        ("ssh:.", "needs a file"),
        ("ssh:t.trace", "t.trace is a folder, not a file"),
        ("ssh:binary", "not text"),
        ("ssh:long.txt", "larger than 1 MiB"),
        ("ssh:/dev/zero", "/dev/zero is a device"),
        ("ssh:hosts.txt", "line 1"),
        ("listen:0.0.0.0:7800,agents=2", "beyond this machine"),
        ("listen:127.0.0.1:7800", "the number of agents"),
        ("k8s:colour=red", "colour=red"),
    ):
        assert word in lines_of(tmp_path, *target, "--cluster", cluster), cluster
    for flags, word in (
        (("--sink", "jsonl=no/such/folder/x.jsonl"), "--sink"),
        (("--rate", "max", "-d", "1s"), "closed loop"),
    ):
        assert word in lines_of(tmp_path, *target, *flags, "--cluster", "local:2"), flags
    assert "--cluster" in lines_of(tmp_path, *target, "--on-lost", "continue")
    assert not list(tmp_path.glob("*.agents"))


@whole
def test_an_agent_has_an_allowlist_of_its_own(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    (tmp_path / "hosts.txt").write_text(f"h {AGENT} --stdio --folder {tmp_path / 'store'}\n")
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    target = ("--target", "http://192.0.2.1", "--allow", "192.0.2.1")
    with running(tmp_path, "t.trace", *target, "--cluster", "ssh:hosts.txt", env=env) as run:
        code, printed = run.wait()
    assert code == 2 and "agent 0" in printed and "192.0.2.1" in printed and "not allowed" in printed
    assert "given to `replay agent`" in printed
    assert not run.out.exists() and not run.agents.exists()


@whole
def test_an_agent_that_cannot_reach_the_target_is_named(tmp_path: Path) -> None:
    """The agent is in a network of its own, where nothing listens."""
    evening(tmp_path / "t.trace", seconds=1, per_second=10)
    store = tmp_path / "store"
    (tmp_path / "hosts.txt").write_text(
        f"h unshare -n sh -c 'ip link set lo up; exec {AGENT} --stdio --folder {store}'\n"
    )
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    with Sink() as sink, running(
        tmp_path, "t.trace", "--target", url(sink), "--cluster", "ssh:hosts.txt", "-t", "1", env=env
    ) as run:  # fmt: skip
        code, printed = run.wait()
        assert len(sink.stamps()) == 0
    assert code == 2 and "agent 0" in printed and "does not accept connections" in printed, printed
    assert "the agent's machine must reach the target" in printed


@whole
def test_of_an_agent_that_dies_with_its_folder_what_it_reported_is_kept(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=8, per_second=100)
    stores = [tmp_path / f"store-{n}" for n in range(2)]
    hosts = "".join(f"host-{n} exec {AGENT} --stdio --folder {store}\n" for n, store in enumerate(stores))
    (tmp_path / "hosts.txt").write_text(hosts)
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    how = ("--cluster", "ssh:hosts.txt", "--on-lost", "continue", "-t", "1")
    with Sink() as sink, running(tmp_path, "t.trace", "--target", url(sink), *how, env=env) as run:
        until(lambda: len(list(tmp_path.glob("store-*/runs/*/share.json"))) == 2)
        until(lambda: len(sink.stamps()["seq"]) > 350)
        (share,) = stores[1].glob("runs/*/share.json")
        os.kill(json.loads(share.read_text())["pid"], signal.SIGKILL)
        _, printed = run.wait()
        seqs = sink.stamps()["seq"].tolist()
    document = run.document()
    accounts, agents = document["accounts"], document["agents"]
    assert "LOST agent" in printed and len(seqs) == len(set(seqs))
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"] + accounts["unknown"] == 800
    assert accounts["unknown"] > 0 and document["accounts_detail"]["unsent"]["agent_lost"] > 0
    assert accounts["sent"] <= len(seqs) <= accounts["sent"] + accounts["unknown"]
    lost = next(agent for agent in agents if agent["lost"])
    assert lost["reported_only"] and lost["accounts"]["sent"] > 0
    assert document["validity"]["verdict"] in ("SUSPECT", "INVALID")


@contextmanager
def recording_server() -> Iterator[tuple[int, list[bytes]]]:
    """An HTTP server that keeps the heads of the requests it gets."""
    heads: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            for line in self.rfile:
                head += line
                if line == b"\r\n":
                    heads.append(head)
                    head = b""
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1], heads
        finally:
            server.shutdown()


@whole
def test_values_of_the_environment_files_and_commands_come_from_the_coordinator(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=20)
    (tmp_path / "token.sh").write_text("#!/bin/sh\necho once >> called.txt\necho secret-token\n")
    (tmp_path / "token.sh").chmod(0o700)
    (tmp_path / "users.csv").write_text("user\nana\nben\n")
    (tmp_path / "day.toml").write_text(
        f"""
        trace = "{tmp_path}/t.trace"
        [headers]
        X-Shop = "$SHOP"
        [auth]
        command = "{tmp_path}/token.sh"
        [[variable]]
        name = "user"
        file = "users.csv"
        [[set]]
        route = "*"
        header = "X-User"
        value = "{{user}}"
        """
    )
    (tmp_path / "hosts.txt").write_text(f"h env -u SHOP {AGENT} --stdio --folder {tmp_path / 'store'}\n")
    env = {"REPLAY_SSH": ssh_of(tmp_path), "SHOP": "north"}
    with recording_server() as (port, heads), running(
        tmp_path, "day.toml", "--target", f"http://127.0.0.1:{port}", "--cluster", "ssh:hosts.txt", "-t", "1", env=env
    ) as run:  # fmt: skip
        _, printed = run.wait()
    assert run.out.exists(), printed
    assert run.document()["accounts"]["ok"] == 20, printed
    sent = [head for head in heads if b"/r/" in head]
    assert all(b"X-Shop: north" in head and b"Authorization: Bearer secret-token" in head for head in sent)
    assert {word for head in sent for word in (b"X-User: ana", b"X-User: ben") if word in head}
    assert (tmp_path / "called.txt").read_text() == "once\n"
    kept = b"".join(path.read_bytes() for path in run.out.rglob("*") if path.is_file())
    assert b"secret-token" not in kept

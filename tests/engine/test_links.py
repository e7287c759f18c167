"""Links that somebody planted where we write, change or delete: what they point at stays as it was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from replay import files
from replay.cli import invoke
from replay.errors import InputError, OutputError
from replay.results.run import load_run
from replay_native.ground import cache_folder
from tests.support.metrics_data import Trial, at_s, trial
from tests.support.there import there

SECRET = b"somebody's own words\n"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(SECRET)
    return path


def killed(path: Path) -> Trial:
    made = trial(path)
    made.lanes[0].many(10)
    made.recorder.tick(at_s(1))
    made.recorder.close()
    return made


@pytest.mark.parametrize("name", [".run.json.new", ".totals.hlog.new", ".samples.jsonl.new", "run.json~"])
def test_a_link_at_the_name_of_a_file_in_the_making_is_not_followed(tmp_path, victim, name):
    killed(tmp_path / "run")
    (tmp_path / "run" / name).symlink_to(victim)
    assert load_run(tmp_path / "run").recovered
    assert victim.read_bytes() == SECRET


@pytest.mark.parametrize("name", ["totals.hlog", "samples.jsonl"])
def test_a_link_at_the_name_of_a_result_is_replaced(tmp_path, victim, name):
    killed(tmp_path / "run")
    (tmp_path / "run" / name).symlink_to(victim)
    assert load_run(tmp_path / "run").recovered
    assert victim.read_bytes() == SECRET and not (tmp_path / "run" / name).is_symlink()


@pytest.mark.parametrize("name", ["timeline.jsonl", "latency.hlog"])
@pytest.mark.parametrize("hard", [False, True])
def test_a_log_that_is_a_link_is_not_cut(tmp_path, capsys, name, hard):
    killed(tmp_path / "run")
    victim = tmp_path / "victim"
    victim.write_bytes(b"a\nno line break at the end")
    (tmp_path / "run" / name).unlink()
    if hard:
        (tmp_path / "run" / name).hardlink_to(victim)
    else:
        (tmp_path / "run" / name).symlink_to(victim)
    assert invoke(["report", str(tmp_path / "run")]) == 2
    assert "link" in capsys.readouterr().err
    assert victim.read_bytes() == b"a\nno line break at the end"


def test_the_folder_of_lanes_is_deleted_by_the_names_in_it(tmp_path, victim):
    killed(tmp_path / "run")
    other = tmp_path / "run" / "lanes" / "notes.txt"
    other.write_bytes(SECRET)
    (tmp_path / "run" / "lanes" / "7.lane.txt").symlink_to(victim)
    assert load_run(tmp_path / "run").recovered
    assert other.read_bytes() == victim.read_bytes() == SECRET
    assert not (tmp_path / "run" / "lanes" / "0.lane").exists()


def test_lanes_elsewhere_are_neither_read_nor_deleted(tmp_path, capsys):
    killed(tmp_path / "other")
    killed(tmp_path / "run")
    lane = tmp_path / "run" / "lanes" / "0.lane"
    lane.unlink()
    lane.symlink_to(tmp_path / "other" / "lanes" / "0.lane")
    assert invoke(["report", str(tmp_path / "run")]) == 2
    assert "cannot be recovered" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run" / "lanes")
    (tmp_path / "run" / "lanes").symlink_to(tmp_path / "other" / "lanes")
    invoke(["report", str(tmp_path / "run")])
    assert (tmp_path / "other" / "lanes" / "0.lane").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_killed_run_of_another_user_is_not_changed(tmp_path, capsys):
    killed(tmp_path / "run")
    os.chown(tmp_path / "run", 12_345, 12_345)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    assert invoke(["report", str(tmp_path / "run")]) == 2
    assert "belongs to another user" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize("name", ["run.json", "totals.hlog", "timeline.jsonl", "samples.jsonl"])
def test_a_pipe_or_a_device_in_a_run_is_a_sentence_and_no_wait(tmp_path, name):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.recorder.finish(at_s(1))
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (tmp_path / "run" / name).unlink()
        make(tmp_path / "run" / name)
        command = ["report", str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-m", "replay.cli", *command], capture_output=True, text=True, timeout=60, check=False
        )  # fmt: skip
        assert done.returncode == 2 and "not a file" in done.stderr


def test_what_a_user_names_may_be_a_link_of_theirs_and_of_nobody_else(tmp_path, victim):
    link = tmp_path / "link"
    link.symlink_to(victim)
    files.write_whole(link, b"1")
    assert victim.read_bytes() == b"1" and link.is_symlink()
    if os.geteuid() == 0:
        os.chown(link, 12_345, 12_345, follow_symlinks=False)
        for write in (files.write_whole, files.append):
            with pytest.raises(OutputError, match="link of another user"):
                write(link, b"2")
        assert victim.read_bytes() == b"1"


def test_a_name_in_a_folder_that_all_may_write_to_cannot_be_guessed(tmp_path, victim, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".a.csv.{'0' * 16}").symlink_to(victim)
    with pytest.raises(OutputError, match="file exists"):
        files.write_whole(tmp_path / "a.csv", b"1")
    assert victim.read_bytes() == SECRET


def test_an_export_and_distributions_replace_links(tmp_path, victim):
    assert imported(tmp_path) == 0
    (tmp_path / f".x.csv.partial-{os.getpid()}").symlink_to(victim)
    (tmp_path / "x.csv").symlink_to(victim)
    assert invoke(["export", str(tmp_path / "a.trace"), "-o", str(tmp_path / "x.csv"), "--force"]) == 0
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.recorder.finish(at_s(1))
    (tmp_path / "hgrm").mkdir()
    (tmp_path / "hgrm" / "response.all.hgrm").symlink_to(victim)
    assert invoke(["report", str(tmp_path / "run"), "--hgrm", str(tmp_path / "hgrm")]) == 0
    assert victim.read_bytes() == SECRET


LINE = '1.2.3.4 - - [10/Oct/2023:00:00:00 +0000] "GET /a HTTP/1.1" 200 5\n'


def imported(tmp_path: Path, *more: str) -> int:
    (tmp_path / "a.log").write_text(LINE)
    return invoke(["import", str(tmp_path / "a.log"), "-o", str(tmp_path / "a.trace"), *more])


@pytest.mark.parametrize(
    "name", ["a.trace.partial-notes", "a.trace.partial-1999999", "a.trace.partial-1-old"]
)
def test_a_folder_of_the_user_s_own_is_not_taken_for_a_left_over(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "events-000000.arrow").write_bytes(SECRET)
    assert imported(tmp_path) == 0
    assert (tmp_path / name / "events-000000.arrow").read_bytes() == SECRET


def test_what_a_killed_import_left_is_deleted_and_what_is_beside_it_is_not(tmp_path):
    code = "import os, sys; from replay.trace import TraceWriter; TraceWriter(sys.argv[1]).__enter__(); os._exit(9)"
    for name in ("a.trace", "b.trace"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False, timeout=120)
    left = {path.name.partition(".partial")[0]: path for path in tmp_path.glob("*.partial-*")}
    assert sorted(left) == ["a.trace", "b.trace"]
    (tmp_path / "a.trace.partial-77").symlink_to(left["b.trace"])
    assert imported(tmp_path) == 0
    assert not left["a.trace"].exists() and sorted(path.name for path in left["b.trace"].iterdir()) != []


def test_an_import_that_is_being_written_is_not_deleted_by_another(tmp_path):
    code = (
        "import sys; from replay.trace import TraceWriter; TraceWriter(sys.argv[1]).__enter__();"
        " print('ready', flush=True); sys.stdin.read(); import os; os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.trace")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert there(other.stdout).readline() == b"ready\n"
        (folder,) = tmp_path.glob("a.trace.partial-*")
        assert imported(tmp_path) == 0
        assert folder.exists()
        there(other.stdin).close()


def test_pattern_signs_in_a_name_stand_for_themselves(tmp_path):
    (tmp_path / "x.partial-1999999").mkdir()
    (tmp_path / "x.partial-1999999" / ".replay-partial").touch()
    (tmp_path / "a.log").write_text(LINE)
    assert invoke(["import", str(tmp_path / "a.log"), "-o", str(tmp_path / "*")]) == 0
    assert (tmp_path / "x.partial-1999999").exists()


@pytest.mark.parametrize("manifest", [b"{}", b'{"name": "an app", "icons": []}', None])
def test_a_folder_that_is_no_trace_is_never_replaced(tmp_path, capsys, manifest):
    assert imported(tmp_path) == 0
    if manifest is None:
        (tmp_path / "a.trace" / "notes.txt").write_bytes(SECRET)
    else:
        for path in (tmp_path / "a.trace").iterdir():
            path.unlink()
        (tmp_path / "a.trace" / "manifest.json").write_bytes(manifest)
    before = sorted(path.name for path in (tmp_path / "a.trace").iterdir())
    assert imported(tmp_path, "--force") == 2
    assert "will not be replaced" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "a.trace").iterdir()) == before


def test_a_trace_is_replaced_by_force_even_where_it_is_damaged(tmp_path):
    assert imported(tmp_path) == imported(tmp_path, "--force") == 0
    (tmp_path / "a.trace" / "manifest.json").write_bytes(b"{")
    assert imported(tmp_path, "--force") == 0
    assert json.loads((tmp_path / "a.trace" / "manifest.json").read_text())["rows"] == 1
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_link_or_a_folder_that_others_can_write_to_is_no_cache(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (tmp_path / "kernels").symlink_to(elsewhere)
    with pytest.raises(cache_folder.UnsafeFolder, match="is a link"):
        cache_folder.check_folder(tmp_path / "kernels")
    assert elsewhere.stat().st_mode & 0o777 == 0o755 and not list(elsewhere.iterdir())
    for mode in (0o777, 0o770, 0o1777):
        elsewhere.chmod(mode)
        with pytest.raises(cache_folder.UnsafeFolder, match="others can write"):
            cache_folder.check_folder(elsewhere)
        assert elsewhere.stat().st_mode & 0o7777 == mode
    with pytest.raises(cache_folder.UnsafeFolder, match="others can write"):
        elsewhere.chmod(0o777)
        cache_folder.check_folder(elsewhere / "kernels")
    cache_folder.check_folder(tmp_path / "new" / "kernels")
    assert (tmp_path / "new" / "kernels").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_a_folder_of_another_user_is_no_cache(tmp_path):
    (tmp_path / "kernels").mkdir(mode=0o755)
    os.chown(tmp_path / "kernels", 12_345, 12_345)
    with pytest.raises(cache_folder.UnsafeFolder, match="belongs to another user"):
        cache_folder.check_folder(tmp_path / "kernels")


ROOTS = """
import subprocess, sys
from replay_native.ground.cache_folder import cache_root
print(cache_root())
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", sys.argv[0] if 0 else open("code").read(), "child"], check=True)
"""


def test_where_no_place_is_safe_a_private_one_is_used_and_this_is_said_once(tmp_path):
    (tmp_path / "code").write_text(ROOTS)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "lane-0123456789abcdef").mkdir()
    (tmp_path / "tmp").mkdir(mode=0o700)
    (tmp_path / "tmp" / f"replay-kernels-{os.geteuid()}").symlink_to(tmp_path / "victim")
    (tmp_path / "shared" / "replay" / "kernels").mkdir(parents=True)
    (tmp_path / "shared" / "replay" / "kernels").chmod(0o777)
    env = {key: value for key, value in os.environ.items() if not key.startswith("REPLAY")}
    env |= {"TMPDIR": str(tmp_path / "tmp"), "REPLAY_CACHE": str(tmp_path / "shared")}
    done = subprocess.run(
        [sys.executable, "-c", ROOTS], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
        env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    first, second = done.stdout.split()
    assert first == second and Path(first).parent == tmp_path / "tmp" and not Path(first).exists()
    assert len(done.stderr.splitlines()) == 1
    assert "others can write" in done.stderr and "is a link" in done.stderr and "REPLAY_CACHE" in done.stderr


def test_pruning_deletes_only_what_has_the_names_of_a_cache(tmp_path):
    root, victim = tmp_path / "root", tmp_path / "victim"
    names = [f"lane-{number:016x}" for number in range(4)]
    for number, name in enumerate([*names, "my-project-1", "my-project-2", "my-project-3"]):
        (root / name).mkdir(parents=True)
        (root / name / "lane.run-77.py311.nbi").touch()
        os.utime(root / name, (number, number))
    (root / names[1] / "notes.txt").write_bytes(SECRET)
    victim.mkdir()
    (victim / "lane.run-77.py311.nbi").touch()
    (root / f"lane-{9:016x}").symlink_to(victim)
    os.utime(root / names[1], (1, 1))
    cache_folder.prune(root, 1)
    left = {path.name for path in root.iterdir()}
    assert left == {names[1], names[3], f"lane-{9:016x}", "my-project-1", "my-project-2", "my-project-3"}
    assert [path.name for path in (root / names[1]).iterdir()] == ["notes.txt"]
    assert list(victim.iterdir()) and list((root / "my-project-1").iterdir())


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="not a file"):
            files.read_whole(path)
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(InputError, match="larger than"):
        files.read_whole(tmp_path / "large", 4)

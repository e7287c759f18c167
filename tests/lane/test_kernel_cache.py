"""Compiled kernels as files: what is damaged, foreign, of other versions or for another CPU is never used, and said once."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from replay.cli import progress
from replay_native.ground import cache_folder, cpu, kernel_cache, shipped, sources

KERNEL = """
import sys
from replay_native.ground import jit
jit.warm(["ground.simd"])
import numpy as np
from replay_native.ground.simd import find_one
print(find_one(np.array([97, 98, 99], np.uint8), 0, 3, np.uint8(99)))
"""


def run(code: str, **settings: str | Path) -> subprocess.CompletedProcess[str]:
    """A process that loads or compiles a small module."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("REPLAY", "NUMBA", "XDG"))
    }
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), **{name: str(value) for name, value in settings.items()}}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False, env=env
    )


def kept(cache: Path) -> list[Path]:
    """The files of compiled kernels."""
    return sorted((cache / "replay" / "kernels").glob("*/*.kernel"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one small module."""
    cache = tmp_path_factory.mktemp("cache")
    done = run(KERNEL, REPLAY_CACHE=cache)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
    return cache


def test_what_is_kept_is_not_compiled_again(filled):
    before = {path: path.stat().st_mtime_ns for path in kept(filled)}
    assert before and run(KERNEL, REPLAY_CACHE=filled).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept(filled)} == before


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "foreign"])
def test_a_damaged_kernel_is_said_once_and_compiled_again(filled, damage):
    for path in kept(filled):
        found = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "short": found[:-1], "flipped": found[:40] + bytes([found[40] ^ 1]) + found[41:],
             "foreign": b"cos\nsystem\n(S'echo harm'\ntR."}[damage]
        )  # fmt: skip
    done = run(KERNEL, REPLAY_CACHE=filled)
    assert (done.returncode, done.stdout) == (0, "2\n")
    (line,) = done.stderr.splitlines()
    assert "damaged" in line and str(filled) in line
    assert run(KERNEL, REPLAY_CACHE=filled).stderr == ""


def test_a_cache_of_another_cpu_is_not_used(filled):
    before = kept(filled)
    assert run(KERNEL, REPLAY_CACHE=filled, **cpu.settings_for("x86-64")).stdout == "2\n"
    assert len(kept(filled)) > len(before) and set(before) < set(kept(filled))


def test_a_full_disk_is_said_once_and_stops_nothing(tmp_path):
    full = "import os\nfrom pathlib import Path\n" + (
        "def write(self, content):\n    raise OSError(28, os.strerror(28))\nPath.write_bytes = write\n"
    )
    done = run(full + KERNEL, REPLAY_CACHE=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2\n")
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line and "REPLAY_CACHE" in line


def test_a_place_that_cannot_be_written_to_is_said_once(tmp_path):
    (tmp_path / "file").touch()
    done = run(KERNEL, REPLAY_CACHE=tmp_path / "file", TMPDIR=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2\n")
    (line,) = done.stderr.splitlines()
    assert "cannot be used" in line and f"are kept in {tmp_path}/replay-kernels-" in line


def test_a_filled_cache_may_be_read_only(filled, monkeypatch):
    """That of an image: files of root's, on a file system without writing."""
    monkeypatch.setenv("REPLAY_CACHE", str(filled))
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    cache_folder._readable.cache_clear()
    try:
        assert filled / "replay" / "kernels" in cache_folder._readable()
    finally:
        cache_folder._readable.cache_clear()


CPU = ("x86_64-unknown-linux-gnu", "x86-64-v3", "+avx")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "compiled"
    folder.mkdir(mode=0o755)
    path = folder / "x86-64-v3.kernels"
    path.write_bytes(shipped.pack({"one-1/a.kernel": b"first", "one-1/b.kernel": b"second" * 99}, CPU))
    path.chmod(0o644)
    return path


def test_an_archive_gives_back_what_was_packed(archive):
    found = shipped.open_archive(archive)
    assert found.cpu == CPU
    assert found.read("one-1", "a.kernel") == b"first" and found.read("one-1", "b.kernel") == b"second" * 99
    assert found.read("one-2", "a.kernel") is None and not found.has("one-2", "a.kernel")


def test_each_changed_byte_of_an_archive_is_noticed(archive, monkeypatch, capsys):
    monkeypatch.delenv("REPLAY_SAID", raising=False)
    whole = archive.read_bytes()
    for at in range(len(whole)):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            found = shipped.open_archive(archive)
            read = [found.read("one-1", name) for name in ("a.kernel", "b.kernel")]
        except shipped.Unfit:
            continue
        assert None in read, at
        assert set(read) <= {None, b"first", b"second" * 99}
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.delenv("REPLAY_SAID")


@pytest.mark.parametrize("what", ["numba", "llvmlite", "Python"])
def test_an_archive_of_another_version_is_not_used(archive, monkeypatch, what):
    versions = sources.versions() | {what: "another"}
    monkeypatch.setattr(sources, "versions", lambda: versions)
    with pytest.raises(shipped.Unfit, match=f"for {what} .*, but {what} another is installed"):
        shipped.open_archive(archive)


def test_an_archive_that_others_can_write_to_is_not_used(archive):
    for place, usual in ((archive, 0o644), (archive.parent, 0o755)):
        place.chmod(usual | 0o002)
        with pytest.raises(shipped.Unfit, match="others can write"):
            shipped.open_archive(archive)
        place.chmod(usual)
    assert shipped.open_archive(archive)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_archive_of_another_user_is_not_used(archive):
    os.chown(archive, 12_345, 12_345)
    with pytest.raises(shipped.Unfit, match="another user"):
        shipped.open_archive(archive)


def test_a_link_is_no_archive(archive):
    target = archive.rename(archive.with_name("elsewhere"))
    archive.symlink_to(target)
    with pytest.raises(shipped.Unfit, match="is a link"):
        shipped.open_archive(archive)


@pytest.mark.parametrize(
    ("lacks", "setting", "met"),
    [
        ((), "", ["x86-64-v3", "x86-64"]),
        (("avx2",), "", ["x86-64"]),
        (("sse2",), "", []),
        ((), "generic", ["x86-64"]),
        ((), "x86-64-v3", ["x86-64-v3"]),
        ((), "znver3", []),
    ],
)
def test_the_baselines_of_a_cpu(monkeypatch, lacks, setting, met):
    features = {name: name not in lacks for name in cpu.BASELINES["x86-64-v3"]}
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setenv("NUMBA_CPU_NAME", setting)
    assert cpu.baselines_met() == met


def test_kernels_ask_for_what_is_compiled_for(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+sse2,-avx,+sse4.2")
    assert cpu.features() == {"sse2", "sse4.2"}


def test_what_was_sealed_is_opened_and_nothing_else():
    assert kernel_cache.opened(kernel_cache.sealed(b"content")) == b"content"
    assert (
        kernel_cache.opened(b"") is None and kernel_cache.opened(kernel_cache.sealed(b"content")[:-1]) is None
    )


def test_the_time_left():
    assert progress.left_text(0.01, 60) == ""
    assert progress.left_text(0.5, 20) == ", about 20 s left"
    assert progress.left_text(0.99, 20) == ", about 1 s left"


def test_usual_commands_have_their_kernels_compiled_at_once():
    usual = progress.usual_kernels()
    assert set(progress.KERNELS) < set(usual) and {"statistics.rank", "importing.field_log"} < set(usual)
    assert not [name for name in usual if name.startswith(("kafka.", "staging."))]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_help_is_printed_without_numba(arguments):
    code = (
        "import sys\nfrom replay.cli.commands import invoke\n"
        f"code = invoke({arguments!r})\nprint(code, 'numba' in sys.modules)"
    )
    done = run(code)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert done.stderr == ""

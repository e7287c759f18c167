"""`make wheel`: a plain wheel, and one with compiled kernels for each installed CPython, in dist/.

A wheel with compiled kernels is the plain one, with an archive for each CPU baseline (replay_native/ground/shipped.py),
the tags of that CPython, and Numba and llvmlite pinned to the versions that compiled the kernels. With other versions
the kernels would have to be compiled again.

PYTHONS names other interpreters than python3.11 to python3.13.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
PINNED = ("numba", "llvmlite")
PLATFORM = "linux_x86_64"
FACTS = (
    "import sys, importlib.metadata as m;"
    f"print('cp%d%d' % sys.version_info[:2], *(m.version(name) for name in {PINNED}))"
)


def run(*command: str | Path) -> str:
    """Run a command, and return what it prints. CalledProcessError if it fails."""
    return subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def interpreters() -> list[str]:
    """Return the interpreters of `PYTHONS` that are installed and can make a venv."""
    found = []
    for name in os.environ.get("PYTHONS", " ".join(PYTHONS)).split():
        path = shutil.which(name)
        if (
            path
            and subprocess.run([path, "-c", "import ensurepip"], capture_output=True, check=False).returncode
            == 0
        ):
            found.append(path)
        else:
            print(f"{name} is not installed, or cannot make a venv: no wheel is made for it")
    return found


def record_line(name: str, content: bytes) -> str:
    """Return the line of a file in RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def pinned(metadata: str, pins: dict[str, str], python: str) -> str:
    """Return the METADATA of a wheel that requires one CPython and exactly these versions."""
    for name in pins:
        metadata = re.sub(rf"^Requires-Dist: {name}(?![\w.-]).*\n", "", metadata, flags=re.MULTILINE)
    required = "".join(f"Requires-Dist: {name}=={version}\n" for name, version in pins.items())
    minor = f"{python[2]}.{python[3:]}"
    return re.sub(
        r"^Requires-Python: .*\n", f"Requires-Python: =={minor}.*\n{required}", metadata, flags=re.MULTILINE
    )


def with_kernels(plain: Path, archives: list[Path], python: str, pins: dict[str, str], folder: Path) -> Path:
    """Write the plain wheel with archives of compiled kernels into `folder`, and return its path."""
    tag = f"{python}-{python}-{PLATFORM}"
    out = folder / plain.name.replace("py3-none-any", tag)
    with zipfile.ZipFile(plain) as source:
        files = {name: source.read(name) for name in source.namelist() if not name.endswith("/")}
    files |= {f"replay_native/compiled/{path.name}": path.read_bytes() for path in archives}
    (record,) = (name for name in files if name.endswith(".dist-info/RECORD"))
    info = record.removesuffix("RECORD")
    files[f"{info}METADATA"] = pinned(files[f"{info}METADATA"].decode(), pins, python).encode()
    words = files[f"{info}WHEEL"].decode().replace("Tag: py3-none-any", f"Tag: {tag}")
    files[f"{info}WHEEL"] = words.replace("Root-Is-Purelib: true", "Root-Is-Purelib: false").encode()
    del files[record]
    lines = [record_line(name, content) for name, content in files.items()]
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return out


def make_wheel(python: str, plain: Path, folder: Path) -> Path:
    """Make a wheel with kernels that `python` compiles with the locked versions of their dependencies."""
    with tempfile.TemporaryDirectory(prefix="replay-wheel-") as area:
        run(python, "-m", "venv", f"{area}/venv")
        inside = f"{area}/venv/bin/python"
        run(inside, "-m", "pip", "install", "-q", "-r", ROOT / "requirements.lock")
        run(inside, "-m", "pip", "install", "-q", "--no-deps", plain)
        run(inside, "-m", "replay_native.ground.packing", f"{area}/kernels")
        tag, *versions = run(inside, "-c", FACTS).split()
        archives = sorted(Path(area, "kernels").iterdir())
        return with_kernels(plain, archives, tag, dict(zip(PINNED, versions, strict=True)), folder)


def main() -> None:
    """Make the plain wheel and those with kernels in dist/, and print their sizes."""
    folder = ROOT / "dist"
    with tempfile.TemporaryDirectory(prefix="replay-wheel-") as area:
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", area, ROOT)
        (built,) = Path(area).glob("*.whl")
        folder.mkdir(exist_ok=True)
        plain = Path(shutil.copy(built, folder))
    wheels = [plain, *(make_wheel(python, plain, folder) for python in interpreters())]
    for wheel in wheels:
        print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

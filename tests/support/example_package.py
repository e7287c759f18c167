"""The example package, installed into a folder of its own for processes that a test starts."""

from __future__ import annotations

import os
import shutil
import tomllib
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "example_package"


def install(folder: Path) -> dict[str, str]:
    """Install the package into `folder` as `pip install --target` would; the environment in which Python finds it.

    The files are copied and its entry points are written into a dist-info folder, so that no network is needed.
    """
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]
    shutil.copytree(SOURCE / "replay_example", folder / "replay_example", dirs_exist_ok=True)
    info = folder / f"replay_example-{project['version']}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {what}" for name, what in entries.items()), ""]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}

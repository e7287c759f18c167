"""`python -m replay_native.ground.packing FOLDER`: compile all entries for each CPU baseline into archives.

A separate process compiles for each baseline, because Numba reads its CPU settings only once. `shipped.py` reads the
archives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import cache_folder, cpu, jit, kernel_cache, parallel, shipped, sources


def make_archive(cache: Path) -> bytes:
    """Compile all entries into an empty cache, and return an archive of them.

    Pieces are left out, because entries already contain them.
    """
    from numba.core.registry import cpu_target

    names = sources.with_entries()
    if not parallel.compile_apart(names):
        jit.warm(names)
    kernels = {}
    for name in names:
        for path in sorted(
            (cache / sources.digest(name)).glob(f"*-{kernel_cache.ENTRY}-*{kernel_cache.SUFFIX}")
        ):
            content = kernel_cache.opened(path.read_bytes())
            assert content is not None, path
            kernels[f"{path.parent.name}/{path.name}"] = content
    return shipped.pack(kernels, cpu_target.target_context.codegen().magic_tuple())


def main(folder: Path) -> None:
    """Write an archive for each baseline to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for baseline in cpu.BASELINES:
        with tempfile.TemporaryDirectory(prefix="replay-pack-") as cache:
            environment = os.environ | cpu.settings_for(baseline) | {cache_folder.CHOSEN: cache}
            command = [sys.executable, "-m", f"{__package__}.packing", baseline, str(folder)]
            subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    if sys.argv[1] in cpu.BASELINES:
        archive = make_archive(cache_folder.root())
        path = Path(sys.argv[2]) / f"{sys.argv[1]}{shipped.SUFFIX}"
        path.write_bytes(archive)
        print(f"{path}: {len(archive) / 1e6:.1f} MB")
    else:
        main(Path(sys.argv[1]))

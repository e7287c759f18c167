"""Where the tests find the project, their own data, and the recordings that lie beside the project."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
SHARED_TRACES = ROOT.parent / "shared" / "traces"
"""Real recordings, read where they are. Tests that need one are skipped where it isn't there."""

"""The exit code of a run whose agents were all lost."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from replay.cli.run import exit_code
from replay.results.document import EndedHow, Ending
from replay.results.run import load_run
from tests.support.compare_data import make_run


@pytest.mark.parametrize(
    ("how", "code"), [("whole", 0), ("killed", 1), ("failed", 1), ("interrupted", 130), ("over_limit", 1)]
)
def test_a_run_that_lost_every_agent_is_no_success(tmp_path: Path, how: EndedHow, code: int) -> None:
    document = load_run(make_run(tmp_path / "run", seed=1)).document
    ended = msgspec.structs.replace(document, ending=Ending(how=how, at_s=1.0))
    assert exit_code(ended) == code

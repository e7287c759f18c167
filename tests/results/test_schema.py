"""docs/run-format.md says what the files of a run are."""

from __future__ import annotations

from replay.results import schema
from replay.results.document import FORMAT_VERSION
from tests.support.places import ROOT

PAGE = (ROOT / "docs" / "run-format.md").read_text(encoding="utf-8")


def test_the_schemas_are_those_of_the_structs():
    assert schema.with_schemas(PAGE) == PAGE, "run: python -m replay.results.schema docs/run-format.md"


def test_the_page_names_the_version_that_is_written():
    assert f"format version {FORMAT_VERSION}" in PAGE

"""Mutated files of every format (a taste of `make fuzz`)."""

from __future__ import annotations

from replay.trace.importing import importers
from tests.oracles import format_oracle


def test_no_mutated_file_crashes_an_importer_or_upsets_its_accounts() -> None:
    assert [complaint for seed in range(3000) if (complaint := format_oracle.one_case(seed))] == []


def test_no_mutated_file_crashes_an_import() -> None:
    assert [complaint for seed in range(100) if (complaint := format_oracle.whole_import(seed))] == []


def test_json_is_cut_as_the_standard_library_reads_it() -> None:
    assert [complaint for seed in range(150) if (complaint := format_oracle.json_case(seed))] == []


def test_lines_of_json_are_read_together_as_each_is_alone() -> None:
    assert [complaint for seed in range(300) if (complaint := format_oracle.alike_case(seed))] == []


def test_lines_of_pairs_are_cut_as_plain_python_cuts_them() -> None:
    assert [complaint for seed in range(400) if (complaint := format_oracle.pairs_case(seed))] == []


def test_headers_in_any_order_are_read_alike() -> None:
    assert [complaint for seed in range(200) if (complaint := format_oracle.orders_case(seed))] == []


def test_gor_records_are_read_at_once_as_they_are_one_by_one() -> None:
    assert [complaint for seed in range(300) if (complaint := format_oracle.gor_case(seed))] == []


def test_every_format_is_mutated() -> None:
    elsewhere = {"parquet", "journal"}  # tests/trace/test_journal.py mutates journals
    assert set(format_oracle.SEEDS) == set(importers()) - elsewhere

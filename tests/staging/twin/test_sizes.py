"""A twin whose load needs more processor time than there is, is refused before it starts."""

from __future__ import annotations

import os
from typing import Any

import pytest

from replay.errors import UsageError
from replay.staging.twin.reading import parse_twin
from replay.staging.twin.sizes import cpus_needed


def twin_with(rate: str, **route: Any) -> dict[str, Any]:
    """Two services; each request of the first calls the second once."""
    return {
        "load": {"GET /a": rate},
        "services": {
            "first": {
                "routes": {"a": {"match": "/a", "calls": ["second"]}},
                "calls": {"second": {}},
            },
            "second": {"routes": {"a": {"match": "/a", **route}}},
        },
    }


def test_processor_time_is_that_of_all_services_on_the_way() -> None:
    assert cpus_needed(parse_twin(twin_with("10/s", time="20ms", work="cpu"))) == pytest.approx(0.206)
    assert cpus_needed(parse_twin(twin_with("10/s", time="20ms"))) == pytest.approx(0.006)


def test_more_load_than_the_machine_can_serve_is_refused_with_its_size() -> None:
    cpus = len(os.sched_getaffinity(0))
    with pytest.raises(UsageError, match=rf"load.*needs about .* CPUs, and this process may use {cpus}"):
        parse_twin(twin_with(f"{cpus * 100}/s", time="10ms", work="cpu"))


def test_too_few_workers_are_no_mistake() -> None:
    assert parse_twin(twin_with("500/s", time="1s")).load

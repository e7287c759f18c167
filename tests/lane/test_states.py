"""The table of a connection's states is what the kernels do, and what the docs draw."""

from __future__ import annotations

import ast
from pathlib import Path

import replay_native
from replay_native.lane import states
from replay_native.lane.states import STATES, TRANSITIONS
from tests.support.places import ROOT

LANE = Path(replay_native.__file__).parent / "lane"
CONTRACT = ROOT / "docs" / "lane-contract.md"


def assignments() -> set[tuple[str, str]]:
    """Every kernel of the lane that sets the state of a connection, and the state."""
    found = set()
    for path in LANE.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.Assign) and any(
                        ast.unparse(t).endswith(".state") for t in node.targets
                    ):
                        found.add((function.name, ast.unparse(node.value)))
    return {(kernel, state) for kernel, state in found if state in STATES}


def test_the_kernels_set_the_states_that_the_table_says() -> None:
    assert assignments() == {(one.kernel, STATES[one.after]) for one in TRANSITIONS}


def test_every_state_is_entered_left_and_explained() -> None:
    every = set(range(len(STATES)))
    assert {one.before for one in TRANSITIONS} == {one.after for one in TRANSITIONS} == every
    assert set(states.MEANINGS) == every
    assert len({(one.before, one.after) for one in TRANSITIONS}) == len(TRANSITIONS)


def test_the_docs_have_the_current_drawing() -> None:
    page = CONTRACT.read_text()
    assert page == states.drawn_in(page), "run: python -m replay_native.lane.states docs/lane-contract.md"

"""What kernels take: few parameters, and groups that are declared once."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pytest

import replay_native
from replay_native.ground import jit
from replay_native.ground.bundle import Array, bundle, descriptions
from replay_native.trace.columns import TraceRows
from replay_native.workload import scale

ROOT = Path(replay_native.__file__).parent
PARAMETERS_MAX = 8


def functions() -> list[tuple[str, ast.FunctionDef]]:
    """Every function of the data plane, with its module."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        nodes = ast.walk(ast.parse(path.read_text()))
        found += [(module, node) for node in nodes if isinstance(node, ast.FunctionDef)]
    return found


def is_kernel(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("kernel(") for decorator in function.decorator_list)


def test_no_kernel_has_more_than_eight_parameters() -> None:
    kernels = [(module, function) for module, function in functions() if is_kernel(function)]
    assert len(kernels) > 500
    counts = {
        f"{module}.{function.name}": len(
            function.args.args + function.args.posonlyargs + function.args.kwonlyargs
        )
        for module, function in kernels
    }
    assert {name: count for name, count in counts.items() if count > PARAMETERS_MAX} == {}


def test_every_member_of_a_group_is_described() -> None:
    declared = 0
    for path in sorted(ROOT.glob("*/*.py")):
        module = importlib.import_module(f"replay_native.{path.parent.name}.{path.stem}")
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and {"bundle", "value"} & {
                ast.unparse(d) for d in node.decorator_list
            }:
                declared += 1
                words = descriptions(getattr(module, node.name))
                assert words and all(words.values()), node.name
    assert declared > 20


def test_a_member_without_type_and_description_is_refused() -> None:
    class Bare(NamedTuple):
        rows: Array

    class Undescribed(NamedTuple):
        rows: Annotated[Array, "int64[::1]"]

    for declared in (Bare, Undescribed):
        with pytest.raises(TypeError, match="rows: declare"):
            bundle(declared)


def test_a_member_of_another_type_is_refused_by_name() -> None:
    jit.warm(["workload.scale"])
    ints, words = np.zeros(1, np.int64), np.zeros(1, np.uint32)
    rows = TraceRows(ints, words, words, np.zeros(1, np.int16), ints)
    growth = scale.Growth(ints, ints, np.zeros((1, 2), np.int64), ints, 1, False)
    out = scale.Copies(ints, ints, words)
    table = np.zeros((1, 7), np.int64)
    for wrong, name in (
        (rows._replace(request=ints), "TraceRows.request"),
        (rows._replace(at_ns=np.zeros(4, np.int64)[::2]), "at_ns"),
    ):
        with pytest.raises(TypeError, match=name):
            scale.grow(wrong, 1, table, growth, 0, out)
    with pytest.raises(TypeError, match="seed"):
        scale.grow(rows, 1, table, growth._replace(seed="1"), 0, out)  # type: ignore[arg-type]

"""GitHub's workflow commands: lines that it shows beside a build."""

from __future__ import annotations

from collections.abc import Sequence

from replay.shown import shown

from .result import Annotation

SHOWN_MAX = 10
"""The most annotations of one level that GitHub shows per step."""


def workflow_commands(annotations: Sequence[Annotation]) -> list[str]:
    """Return one line per annotation, at most SHOWN_MAX."""
    return [_line(annotation) for annotation in annotations[:SHOWN_MAX]]


def _line(annotation: Annotation) -> str:
    title = _escaped(f"replay: {annotation.title}", ":,")
    return f"::{annotation.level} title={title}::{_escaped(annotation.message)}"


def _escaped(text: str, also: str = "") -> str:
    text = shown(text.replace("\n", " "))
    for char in "%\r\n" + also:
        text = text.replace(char, f"%{ord(char):02X}")
    return text

"""The labels of a run in the list of runs: the build of its target, and the name of its scenario."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

VARIABLES = (
    "REPLAY_BUILD",
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "GIT_COMMIT",
    "BUILD_SOURCEVERSION",
    "CIRCLE_SHA1",
    "BUILDKITE_COMMIT",
    "BITBUCKET_COMMIT",
    "TRAVIS_COMMIT",
    "BUILD_NUMBER",
)
"""Environment variables of CI systems that identify the build. The first one with a printable value is used."""

LABEL_MAX = 200


def build_of(environ: Mapping[str, str]) -> str:
    """Return the build that the environment identifies, at most LABEL_MAX characters, or an empty string."""
    for name in VARIABLES:
        text = environ.get(name, "").strip()
        if text and text.isprintable():
            return text[:LABEL_MAX]
    return ""


def name_of(recording: str) -> str:
    """Return a name for a scenario that has none: the file name of its first recording, up to the first dot."""
    return PurePath(recording.split(" and ", maxsplit=1)[0]).name.split(".")[0]

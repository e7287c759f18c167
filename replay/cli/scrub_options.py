"""The options for secrets, shared by the verbs that record or import; `replay run` imports logs, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from replay.errors import InputError, UsageError, reason_of

if TYPE_CHECKING:
    from replay.trace.importing.scrub_rules import ScrubRules

Command = TypeVar("Command", bound=Callable[..., Any])

KEY_BYTES_MIN, KEY_BYTES_MAX = 16, 1 << 16


class Scrubbing(NamedTuple):
    """The user's rules for secrets, and the key of the pseudonyms."""

    rules: ScrubRules
    key: bytes
    keep_secrets: bool

    def check_used(self, why: str) -> None:
        """Raise UsageError if any of the options was given although nothing is imported."""
        if self.rules.rules or self.key or self.keep_secrets:
            raise UsageError(
                f"{why}: its secrets were handled when it was made",
                hint="give --scrub, --scrub-key-file or --keep-secrets to replay import",
            )


def scrub_options(command: Command) -> Command:
    """Add `--scrub`, `--scrub-key-file` and `--keep-secrets`, as parameters of these names (see `scrubbing`)."""
    for option in (
        click.option(
            "--keep-secrets", is_flag=True, help="Keep secrets unchanged; only you can read the trace."
        ),
        click.option(
            "--scrub-key-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="File with the key of the pseudonyms; the same key gives the same pseudonyms in every recording.",
        ),
        click.option(
            "--scrub",
            multiple=True,
            metavar="PLACE:NAME=HOW",
            help="How to treat a value: json:/email=email, form:password=drop, header:x-user=keep; repeatable.",
        ),
    ):
        command = option(command)
    return command


def scrubbing(scrub: tuple[str, ...], scrub_key_file: Path | None, keep_secrets: bool) -> Scrubbing:
    """Return the rules and the key that the options give.

    UsageError if a rule is invalid or has no effect. InputError if the key cannot be read, or is too short or too long.
    """
    from replay.trace.importing.scrub_rules import parse_rules

    rules = parse_rules(scrub)
    if keep_secrets and (scrub or scrub_key_file):
        raise UsageError(
            "--keep-secrets keeps everything, so --scrub and --scrub-key-file have no effect",
            hint="leave out --keep-secrets or the others",
        )
    return Scrubbing(rules, b"" if scrub_key_file is None else _key(scrub_key_file), keep_secrets)


def _key(path: Path) -> bytes:
    from replay.files import read_whole

    try:
        key = read_whole(path, KEY_BYTES_MAX)
    except OSError as error:
        raise InputError(f"--scrub-key-file {path}: {reason_of(error)}", hint=_MAKE) from None
    if len(key) < KEY_BYTES_MIN:
        raise InputError(f"--scrub-key-file {path}: a key needs at least {KEY_BYTES_MIN} bytes", hint=_MAKE)
    return key


_MAKE = "head -c 32 /dev/urandom > FILE makes one"

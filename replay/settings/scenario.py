"""The scenario: all settings of all groups, in one struct.

Values have a unit in a file ("30s", "500/s"). Here durations are integers in ns, rates are requests per second, and
shares and factors are floats.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from replay._version import __version__

from .groups.answers import Answers
from .groups.clients import FAILURES, Retry
from .groups.kafka import Kafka
from .groups.load import BODY_METHODS, BodyRule
from .groups.output import OutputSettings
from .groups.safety import DEFAULT_MAX_DURATION_NS, DEFAULT_MAX_RATE_PER_S, Breaker, Limits
from .groups.target import Also
from .groups.time import Window
from .groups.tls import TlsSettings
from .headers import expand
from .kinds import setting_text
from .session_rules import Auth

__all__ = [
    "BODY_METHODS",
    "DEFAULT_MAX_DURATION_NS",
    "DEFAULT_MAX_RATE_PER_S",
    "FAILURES",
    "Also",
    "Answers",
    "BodyRule",
    "Breaker",
    "Kafka",
    "Limits",
    "Retry",
    "Scenario",
    "TlsSettings",
    "Window",
]


class Scenario(OutputSettings, kw_only=True, frozen=True):
    """All settings of a replay. `replay.settings.file.load` makes one from a file and flags."""

    def by_target(self) -> list[Scenario]:
        """Return the scenario of each target: that of `target`, then those of the [[also]] tables."""
        first = msgspec.structs.replace(self, also=())
        return [first, *(first.sent_also(rule) for rule in self.also)]

    def sent_also(self, rule: Also) -> Scenario:
        """Return this scenario for a further target.

        It has the rule's routes. `host`, captures, cookies, checks, rules that set values, and the auth header belong
        to the first target only.
        """
        given = {name: value for name in ("key", "value") if (value := getattr(rule, name)) is not None}
        return msgspec.structs.replace(
            self,
            target=rule.target,
            host="",
            only=rule.only,
            without=rule.without,
            methods=self.methods if rule.methods is None else rule.methods,
            capture=(),
            cookies=False,
            check=(),
            set=(),
            auth=Auth(),
            kafka=msgspec.structs.replace(self.kafka, **given),
        )

    def request_headers(self, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Return the headers that all requests share: User-Agent, Accept and `headers`, with $NAME expanded.

        `headers` may replace the other two. UsageError if a variable is not set, or if a header cannot be sent.
        """
        environ = os.environ if environ is None else environ
        expanded = [
            (name, expand(f"the header {name}", value, environ)) for name, value in self.headers.items()
        ]
        given = {name.lower() for name, _ in expanded}
        defaults = [("User-Agent", f"replay/{__version__}"), ("Accept", "*/*")]
        return [pair for pair in defaults if pair[0].lower() not in given] + expanded

    def saved(self) -> dict[str, Any]:
        """Return the settings as a run folder stores them, ready for JSON, without secrets.

        Body templates, values that rules set, and texts to compare are stored as digests. Of `headers`, only the names
        are stored. Credentials, web hooks and commands that are set become "given". Addresses of watched JSON documents
        lose their query.
        """
        saved: dict[str, Any] = msgspec.to_builtins(self, enc_hook=setting_text)
        saved["headers"] = sorted(self.headers)
        for secret in ("sasl_plain_username", "sasl_plain_password"):
            saved["kafka"][secret] = "given" if saved["kafka"][secret] else ""
        saved["notify"] = ["given" for _ in self.notify]
        for rule, kept in zip(self.body, saved["body"], strict=True):
            if rule.template is not None:
                kept["template"] = _digest(rule.template)
        for own, kept in zip(self.set, saved["set"], strict=True):
            if own.value is not None:
                kept["value"] = _digest(own.value)
        for check, kept in zip(self.check, saved["check"], strict=True):
            for key in ("contains", "equals"):
                if getattr(check, key) is not None:
                    kept[key] = _digest(getattr(check, key))
        for watch in saved["watch"]:
            watch["command"] = "given" if watch["command"] else ""
            watch["json"] = watch["json"].partition("?")[0]
        for secret in ("command", "value"):
            saved["auth"][secret] = "given" if saved["auth"]["command"] else ""
        return saved


def _digest(text: str) -> str:
    import hashlib  # Imported here, because help and completion need no digests.

    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

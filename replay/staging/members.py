"""Access control of the staging service: people register once, log in, and get a token for a limited time."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass


@dataclass(slots=True)
class _Member:
    number: int
    password: str
    token: str = ""


class Members:
    """E-mail addresses, passwords and tokens. A token is valid for `lifetime_s`, or until its owner logs in again."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._members: dict[str, _Member] = {}
        self._tokens: dict[str, tuple[str, float]] = {}

    def register(self, body: bytes) -> tuple[int, dict[str, object]]:
        """Register a member, and return status and response.

        The status is 201, 400 for an invalid body, or 409 for an existing address.
        """
        email, password = _credentials(body)
        if not email or not password:
            return 400, {"error": "email and password are needed"}
        if email in self._members:
            return 409, {"error": "this e-mail address is taken"}
        member = self._members[email] = _Member(len(self._members) + 1, password)
        return 201, {"id": f"m{member.number}", "email": email}

    def log_in(self, body: bytes) -> tuple[int, dict[str, object]]:
        """Log a member in, and return status and response: 200 with a new token, or 401."""
        email, password = _credentials(body)
        member = self._members.get(email)
        if member is None or member.password != password:
            return 401, {"error": "wrong e-mail address or password"}
        self._tokens.pop(member.token, None)
        member.token = secrets.token_hex(16)
        self._tokens[member.token] = (email, time.monotonic() + self._lifetime_s)
        return 200, {"token": member.token, "user": {"id": f"m{member.number}"}}

    def knows(self, authorization: str) -> bool:
        """Return whether `Bearer TOKEN` has a token that is valid now."""
        kind, _, token = authorization.partition(" ")
        _, until = self._tokens.get(token, ("", 0.0))
        return kind == "Bearer" and time.monotonic() < until


def _credentials(body: bytes) -> tuple[str, str]:
    try:
        found = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(found, dict):
        return "", ""
    return str(found.get("email") or ""), str(found.get("password") or "")

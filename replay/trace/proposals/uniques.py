"""Finds values that clients choose themselves: values unique to each client or request, passwords, and accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .found import Needed, OwnValues, Proposals, SentPlace, Unique
from .values import bits_of

UNIQUE_SHARE = 0.9
"""Values of a place count as unique if this share of them first occurs there, and this share has only one client."""

_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]+\.[^\s@]+")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_NAMES_OF_IDS = re.compile(
    r".*(?:id|uuid|guid|ref|reference|number|nr|key|order|username|user|login|account|nickname|nick|handle|slug|sku|phone"
    r"|mobile|mail|nonce)"
)
_PASSWORD = re.compile(
    r"password|passwd|pwd|pass|psw|pw|passwort|kennwort|passphrase|userpass|password\d?|password(?:confirm|confirmation|again|repeat)"
)
_CREATES = re.compile(
    r"regist|sign-?up|create|join|enrol|users?$|accounts?$|members?$|customers?$", re.IGNORECASE
)
_LOGS_IN = re.compile(r"log-?in|sign-?in|auth|token|session|oauth|password", re.IGNORECASE)
_LIKE_CHARS_MIN = 8
"""Shorter values have too few alternatives of the same form, so "like" does not generate them."""

WRITES = ("POST", "PUT", "PATCH")


def plain_name(name: str) -> str:
    """Return the last step of a place's name that is not a number, in lower case, without punctuation."""
    steps = [step for step in re.split(r"[/.\[\]]", name) if step and not step.isdigit()]
    return re.sub(r"[^a-z0-9]", "", (steps[-1] if steps else name).lower())


def is_password(place: SentPlace) -> bool:
    """Return whether a place is a JSON value, form field or query parameter with the name of a password."""
    return place.kind in ("json", "form", "query") and _PASSWORD.fullmatch(plain_name(place.name)) is not None


def logs_in(route: str) -> bool:
    """Return whether a route serves existing users, such as a login, judged by its path."""
    path = route.partition(" ")[2]
    return _LOGS_IN.search(path) is not None and _CREATES.search(path) is None


def passwords(found: Proposals) -> list[Needed]:
    """Return the passwords that the scenario needs: one variable for all password fields."""
    places = [place for place in found.own if is_password(place)]
    values = {value for place in places for value in found.own[place].values}
    return [Needed("password", places, len(values))] if places else []


def uniques(found: Proposals, routes: Sequence[str]) -> tuple[list[Unique], list[Needed]]:
    """Return the values unique to each client or request, and the accounts that existed before the recording."""
    made: list[Unique] = []
    needed: list[Needed] = []
    used = {place for session in found.sessions for place in session.places}
    used |= {place for place in found.own if is_password(place)}
    for place, own in sorted(found.own.items(), key=lambda item: -item[1].count):
        if (
            place in used
            or place.kind not in ("json", "form")
            or routes[place.route].split(" ")[0] not in WRITES
        ):
            continue
        created = {value for value in own.values if found.first_places.get(value) == place}
        generate = _generator(place, own, created)
        if not generate:
            continue
        others = [place, *_places_of(found, created, used | {place})]
        used.update(others)
        if logs_in(routes[place.route]) and any(
            is_password(one) for one in found.own if one.route == place.route
        ):
            needed.append(Needed(plain_name(place.name) or "account", others, len(own.values)))
        else:
            made.append(Unique(generate, place, others, len(created)))
    return made, needed


def _generator(place: SentPlace, own: OwnValues, created: set[str]) -> str:
    """Return the generator for the values of a place: email, uuid, like or word.

    Return "" if none fits, if the values are shared or were first sent elsewhere, or for passwords.
    """
    if not created or len(created) < UNIQUE_SHARE * len(own.values) or is_password(place):
        return ""
    values = list(own.values)
    shared = sum(len(clients) > 1 for clients in own.values.values())
    if shared > (1 - UNIQUE_SHARE) * len(values):
        return ""
    if all(map(_EMAIL.fullmatch, values)):
        return "email"
    if all(map(_UUID.fullmatch, values)):
        return "uuid"
    is_id = _NAMES_OF_IDS.fullmatch(plain_name(place.name)) is not None and not any(
        map(re.compile(r"\s").search, values)
    )
    if not is_id or len(values) < max(2, UNIQUE_SHARE * own.count):
        return ""
    if min(map(len, values)) >= _LIKE_CHARS_MIN and min(map(bits_of, values)) >= 20:
        return "like"
    return "word" if any(not value.isdigit() for value in values) else ""


def _places_of(found: Proposals, created: set[str], used: set[SentPlace]) -> list[SentPlace]:
    """Return the other places in which most of the values sent are among `created`."""
    return [
        place
        for place, own in found.own.items()
        if place not in used
        and place.kind in ("json", "form", "query", "path")
        and 2 * sum(value in created for value in own.values) > len(own.values)
    ]

"""The tables of a scenario that make sessions of a client's requests: values taken from answers and put into later
requests, variables, cookies, an auth header from a command, and checks of answers. docs/sessions.md shows them at work.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from replay import units
from replay.errors import UsageError

from .kinds import (
    Duration,
    Size,
    SizeRange,
    Statuses,
)
from .patterns import Pattern, compile_pattern

BUILT_IN = ("uuid", "email", "client", "n")
"""Names that every template knows: of the request a UUID, an e-mail address, the client's number, its own number."""

VALUE_BYTES_MAX = 1 << 20

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_RANGE = re.compile(r"\s*(<=|<|>=|>|)\s*(.*)")
_HUGE = 1 << 62


class Problem(NamedTuple):
    """What is wrong with a rule: its key, why, and what to do."""

    key: str
    why: str
    hint: str = ""


def placeholders(text: str) -> list[tuple[str, int]]:
    """The names in braces of a text, with the column (from 1) of each."""
    return [(match[1], match.start() + 1) for match in _PLACEHOLDER.finditer(text)]


def pointer_tokens(text: str) -> list[bytes]:
    """The reference tokens of a JSON Pointer (RFC 6901). UsageError where it is none."""
    if text and not text.startswith("/"):
        raise UsageError(
            f"{text!r} is no JSON Pointer", hint='write "/user/token": each step has a slash before it'
        )
    if "\0" in text or re.search(r"~(?![01])", text):
        raise UsageError(f"{text!r} is no JSON Pointer", hint="~ is written ~0, and / in a name ~1")
    return [token.replace("~1", "/").replace("~0", "~").encode() for token in text.split("/")[1:]]


def size_range(text: str) -> tuple[int, int]:
    """The least and the most bytes of a SizeRange. UsageError where it is none."""
    match = _RANGE.fullmatch(text)
    size = units.parse_size_bytes(match[2] if match else text)
    sign = match[1] if match else ""
    return {
        "": (size, size), "<": (0, size - 1), "<=": (0, size), ">": (size + 1, _HUGE), ">=": (size, _HUGE),
    }[sign]  # fmt: skip


def digest_of(text: str) -> bytes:
    """The 32 bytes of `sha256:...`."""
    return bytes.fromhex(text.partition(":")[2])


def _one_of(rule: msgspec.Struct, keys: tuple[str, ...]) -> Problem | None:
    """Exactly one of the keys must be given."""
    given = [key for key in keys if getattr(rule, key) is not None]
    if len(given) == 1:
        return None
    words = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if given:
        return Problem(given[1], f"beside {given[0]} it is too much", f"give one of {words}")
    return Problem("route", f"give one of {words}")


def _name_problem(name: str) -> Problem | None:
    if not _NAME.fullmatch(name):
        return Problem(
            "name", f"{name!r} is not a name", "letters, digits and _ alone; {name} stands for the value"
        )
    if name in BUILT_IN:
        return Problem("name", f"{{{name}}} has a meaning already", f"not {', '.join(BUILT_IN)}")
    return None


class _Finder(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Where in an answer a value is found."""

    header: Annotated[str | None, Meta(description="Value of the answer's first header of this name")] = None
    cookie: Annotated[
        str | None, Meta(description="Value of the cookie of this name that the answer sets")
    ] = None
    json: Annotated[
        str | None,
        Meta(description="JSON Pointer into the body: a text, a number, true or false", examples=["/token"]),
    ] = None
    regex: Annotated[
        str | None,
        Meta(
            description="Pattern over the body; the value is its group, or all of it",
            examples=['name="csrf" value="([^"]+)"'],
        ),
    ] = None

    def pattern(self) -> Pattern:
        """The compiled `regex`; without a group the whole match is taken. UsageError names what is not supported."""
        found = compile_pattern(self.regex or "")
        return found if found.has_group else compile_pattern(f"({self.regex})")

    def find_problem(self) -> Problem | None:
        """What is wrong with the place, if anything is."""
        key = "json" if self.json is not None else "regex"
        try:
            if self.json is not None:
                pointer_tokens(self.json)
            elif self.regex is not None:
                self.pattern()
        except UsageError as error:
            return Problem(key, str(error), error.hint)
        return None


class CaptureRule(_Finder, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A value of an answer, kept for the later requests of the same client."""

    route: Annotated[str, Meta(description="Route or action whose answers hold it; * stands for anything")]
    name: Annotated[str, Meta(description="Its name: {name} in later requests of the client")]
    longest: Annotated[Size, Meta(description="Longest value; a longer one is not taken")] = Size(2_048)
    as_: Annotated[
        Literal["text", "path"],
        Meta(
            description="text: one value, whatever it holds; path: a link, which keeps / ? & in a path of [[set]]"
        ),
    ] = msgspec.field(name="as", default="text")

    def problem(self) -> Problem | None:
        """What is wrong with the rule, if anything is."""
        if not 0 < self.longest <= VALUE_BYTES_MAX:
            return Problem("longest", f"it must be above 0 and at most {units.format_bytes(VALUE_BYTES_MAX)}")
        return (
            _name_problem(self.name)
            or _one_of(self, ("header", "cookie", "json", "regex"))
            or self.find_problem()
        )


class SetRule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A path or a header of requests, made of values: {name} of captures and variables, {uuid} {email} {client} {n}."""

    route: Annotated[str, Meta(description="Route or action that it is for; * stands for anything")]
    without: Annotated[
        tuple[str, ...], Meta(description="Routes or actions that it is not for", examples=[["POST /login"]])
    ] = ()
    path: Annotated[
        str | None,
        Meta(description="Path in place of the recorded one; a recorded query stays if this has none"),
    ] = None
    header: Annotated[str | None, Meta(description="Name of the header")] = None
    value: Annotated[str | None, Meta(description="Its value; $NAME is taken from the environment")] = None

    def problem(self) -> Problem | None:
        """What is wrong with the rule, if anything is."""
        found = _one_of(self, ("path", "header"))
        if found is not None:
            return found
        if (self.header is None) != (self.value is None):
            return Problem(
                "header" if self.header else "value",
                "a header has a name and a value",
                "give header and value",
            )
        if self.path is not None and not re.fullmatch(r"(?:/|\{[A-Za-z_]\w*\})[!-~]*", self.path):
            return Problem(
                "path", f"{self.path!r} is not a path", "begin with /, and %-encode what is not ASCII"
            )
        return None

    @property
    def text(self) -> str:
        """The template."""
        return self.path if self.path is not None else self.value or ""


class Variable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A value from a CSV file or a generator, the same for all requests of a client, or another for each."""

    name: Annotated[str, Meta(description="Its name: {name} in requests")]
    file: Annotated[
        str | None, Meta(description="CSV file with a line of names at its head, beside this scenario")
    ] = None
    column: Annotated[str, Meta(description="Column of the file; default: the variable's name")] = ""
    generate: Annotated[
        Literal["uuid", "email"] | None, Meta(description="A value made from the seed, no two alike")
    ] = None
    by: Annotated[
        Literal["client", "request"],
        Meta(description="client: each keeps its own; request: a new one each time"),
    ] = "client"

    def problem(self) -> Problem | None:
        """What is wrong with the rule, if anything is."""
        if self.column and self.file is None:
            return Problem("column", "only a file has columns", "give file as well")
        found = _name_problem(self.name) or _one_of(self, ("file", "generate"))
        return found._replace(key="name") if found is not None and found.key == "route" else found


class CheckRule(_Finder, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What an answer must be; one that is not is a mismatch."""

    route: Annotated[
        str, Meta(description="Route or action whose answers are checked; * stands for anything")
    ]
    status: Annotated[
        Statuses | None,
        Meta(description='"recorded", or the right ones: ["2xx", 404]', examples=["recorded"]),
    ] = None
    contains: Annotated[str | None, Meta(description="Text that the body holds")] = None
    size: Annotated[
        SizeRange | None, Meta(description="Bytes of the body: 64KiB, >=1KiB, <2MiB", examples=[">=1KiB"])
    ] = None
    digest: Annotated[str | None, Meta(description="sha256:... of the body")] = None
    equals: Annotated[
        str | None, Meta(description="What header, cookie, json or regex must find; without it: anything")
    ] = None

    def problem(self) -> Problem | None:
        """What is wrong with the rule, if anything is."""
        found = _one_of(self, ("status", "size", "contains", "digest", "header", "cookie", "json", "regex"))
        if found is not None:
            return found
        if self.equals is not None and (self.status or self.size or self.contains or self.digest):
            return Problem("equals", "it goes with header, cookie, json or regex")
        if self.contains == "":
            return Problem("contains", "every body holds the empty text")
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            return Problem(
                "digest", f"{self.digest!r} is no digest", "write sha256: and what `sha256sum FILE` prints"
            )
        return self.find_problem()


class Auth(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A header whose value a command prints; it is run again in time, and nothing of it is kept in a run."""

    command: Annotated[
        str,
        Meta(
            description="Program and arguments, run without a shell; $NAME of the environment",
            examples=["./token.sh"],
        ),
    ] = ""
    header: Annotated[str, Meta(description="Name of the header")] = "Authorization"
    value: Annotated[
        str, Meta(description="Its value; {output} is the first line that the command prints")
    ] = "Bearer {output}"
    refresh_ns: Annotated[Duration, Meta(description="How often the command is run again; 0: never")] = (
        msgspec.field(name="refresh", default=Duration(300 * units.SECOND_NS))
    )


def _link_problem(path: str, links: Collection[str]) -> Problem | None:
    """What is wrong with the links in a path: each must be the end of it, and must not make a `//`."""
    before = path.partition("?")[0]
    for match in _PLACEHOLDER.finditer(before):
        if match[1] not in links:
            continue
        first, last = match.start() == 0, match.end() == len(path)
        if not last or not (first or re.match(r"[\w~-]", before[match.start() - 1])):
            why = f"column {match.start() + 1}: {{{match[1]}}} is a whole path, which begins with / itself"
            return Problem("path", why, f'write "{{{match[1]}}}", or "/prefix{{{match[1]}}}"')
    if path.startswith("{") and (named := _PLACEHOLDER.match(path)) and named[1] not in links:
        return Problem("path", f"{path!r} is not a path", 'begin with /, or give the [[capture]] as = "path"')
    return None


def captures_problem(rules: Sequence[CaptureRule]) -> tuple[str, Problem] | None:
    """What is wrong with captures beside each other: the number of the rule, and the problem."""
    kinds: dict[str, str] = {}
    for index, rule in enumerate(rules):
        if kinds.setdefault(rule.name, rule.as_) != rule.as_:
            why = f"{rule.name!r} is taken as a {kinds[rule.name]} by another rule"
            return f"capture[{index}]", Problem("as", why, "give all captures of a name the same")
    return None


def names_problem(
    captured: Collection[str],
    variable: Sequence[Variable],
    rules: Sequence[SetRule],
    links: Collection[str] = (),
) -> tuple[str, Problem] | None:
    """What is wrong with the names of a scenario: the table and number of the rule, and the problem. `links` are the
    captured names that are whole paths.
    """
    seen = set(captured)
    for index, named in enumerate(variable):
        if named.name in seen:
            return f"variable[{index}]", Problem("name", f"{named.name!r} is named twice")
        seen.add(named.name)
    known = [*seen, *BUILT_IN]
    for index, rule in enumerate(rules):
        for name, column in placeholders(rule.text):
            if name not in known:
                guess = units.nearest(name, known)
                why = f"column {column}: nothing is named {name!r}" + (
                    f" (did you mean {guess!r}?)" if guess else ""
                )
                hint = "name it in a [[capture]] or a [[variable]]"
                return f"set[{index}]", Problem("path" if rule.path is not None else "value", why, hint)
        if rule.path is not None and (problem := _link_problem(rule.path, links)) is not None:
            return f"set[{index}]", problem
    return None

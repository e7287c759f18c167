"""The tables of rules for sessions: captures, variables, changed requests, checks of responses, the auth header.

docs/sessions.md explains them with examples.
"""

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from replay import units
from replay.errors import UsageError

from .kinds import Duration, Size, SizeRange, Statuses
from .row import Table, row

if TYPE_CHECKING:
    from .patterns import Pattern

BUILT_IN = ("uuid", "email", "client", "n")
"""Names that every template has: a UUID, an e-mail address, the client's number, the request's number."""

VALUE_BYTES_MAX = 1 << 20

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")


class Problem(NamedTuple):
    """Why a rule is invalid: its key, the reason, and a hint."""

    key: str
    why: str
    hint: str = ""


def placeholders(text: str) -> list[tuple[str, int]]:
    """Return the names in braces in a text, with the column (from 1) of each."""
    return [(match[1], match.start() + 1) for match in _PLACEHOLDER.finditer(text)]


def pointer_tokens(text: str) -> list[bytes]:
    """Return the reference tokens of a JSON Pointer (RFC 6901). UsageError if it is invalid."""
    if text and not text.startswith("/"):
        raise UsageError(
            f"{text!r} is not a JSON Pointer", hint='write "/user/token": each step has a slash before it'
        )
    if "\0" in text or re.search(r"~(?![01])", text):
        raise UsageError(
            f"{text!r} is not a JSON Pointer", hint="write ~ as ~0, and / in a name as ~1; leave out NUL"
        )
    return [token.replace("~1", "/").replace("~0", "~").encode() for token in text.split("/")[1:]]


def digest_of(text: str) -> bytes:
    """Return the 32 bytes of `sha256:...`."""
    return bytes.fromhex(text.partition(":")[2])


def _one_of(rule: msgspec.Struct, keys: tuple[str, ...]) -> Problem | None:
    """Return a problem unless exactly one of the keys is given."""
    given = [key for key in keys if getattr(rule, key) is not None]
    if len(given) == 1:
        return None
    words = f"{', '.join(keys[:-1])} or {keys[-1]}"
    if given:
        return Problem(given[1], f"it cannot be combined with {given[0]}", f"give one of {words}")
    return Problem("route", f"give one of {words}")


def _name_problem(name: str) -> Problem | None:
    if not _NAME.fullmatch(name):
        return Problem(
            "name", f"{name!r} is not a name", "write letters, digits and _, beginning with a letter or _"
        )
    if name in BUILT_IN:
        return Problem(
            "name", f"{{{name}}} is a built-in value", f"choose a name other than {', '.join(BUILT_IN)}"
        )
    return None


class _Finder(Table, kw_only=True, frozen=True):
    """The place of a value in a response."""

    header: Annotated[str | None, row("Value of the response's first header of this name")] = None
    cookie: Annotated[str | None, row("Value of the cookie of this name that the response sets")] = None
    json: Annotated[
        str | None,
        row("JSON Pointer into the body: a text, a number, true or false", example="/token"),
    ] = None
    regex: Annotated[
        str | None,
        row(
            "Pattern in the body; the value is its group, or the whole match",
            example='name="csrf" value="([^"]+)"',
        ),
    ] = None

    def pattern(self) -> "Pattern":
        """Compile `regex`. UsageError if it is invalid, not supported or too long.

        Without a group, the whole match is the value.
        """
        from .patterns import compile_pattern  # Compiled patterns need Numba, which would slow down --help.

        found = compile_pattern(self.regex or "")
        return found if found.has_group else compile_pattern(f"({self.regex})")

    def find_problem(self) -> Problem | None:
        """Return why the JSON Pointer or the pattern is invalid; None if they are valid or not given."""
        key = "json" if self.json is not None else "regex"
        try:
            if self.json is not None:
                pointer_tokens(self.json)
            elif self.regex is not None:
                self.pattern()
        except UsageError as error:
            return Problem(key, str(error), error.hint)
        return None


class CaptureRule(_Finder, kw_only=True, frozen=True):
    """Values from responses, for later requests of the same client."""

    route: Annotated[str, row("Route or action whose responses hold the value; * matches anything")]
    name: Annotated[str, row("Name of the value: {name} in later requests of the client")]
    longest: Annotated[Size, row("Longest value; a longer one is not captured")] = Size(2_048)
    as_: Annotated[
        Literal["text", "path"],
        row("text: one escaped value; path: a link, which keeps / ? & in a path of [[set]]"),
    ] = "text"

    def problem(self) -> Problem | None:
        """Return why the rule is invalid; None if it is valid."""
        if not 0 < self.longest <= VALUE_BYTES_MAX:
            return Problem("longest", f"it must be above 0 and at most {units.format_bytes(VALUE_BYTES_MAX)}")
        return (
            _name_problem(self.name)
            or _one_of(self, ("header", "cookie", "json", "regex"))
            or self.find_problem()
        )


class SetRule(Table, kw_only=True, frozen=True):
    """Paths, headers and fields of requests, set from values such as {name}, {uuid} or {n} (docs/sessions.md)."""

    route: Annotated[str, row("Route or action to change; * matches anything")]
    without: Annotated[
        tuple[str, ...], row("Routes or actions to leave unchanged", example=["POST /login"])
    ] = ()
    path: Annotated[
        str | None,
        row(
            "Path that replaces the recorded one; {*} keeps a segment; without a query in it, the recorded query is kept"
        ),
    ] = None
    header: Annotated[str | None, row("Name of the header")] = None
    json: Annotated[
        str | None, row("JSON Pointer to a value of the recorded body; * for any step", example="/user/email")
    ] = None
    form: Annotated[str | None, row("Field of a recorded body that is a form", example="password")] = None
    query: Annotated[str | None, row("Parameter of the recorded query", example="token")] = None
    value: Annotated[
        str | None,
        row("Value of the header, field or parameter; in a header $NAME comes from the environment"),
    ] = None
    when_recorded: Annotated[bool, row("Set the header only in requests that were recorded with it")] = False

    def problem(self) -> Problem | None:
        """Return why the rule is invalid; None if it is valid."""
        found = _one_of(self, SET_PLACES) or self._value_problem()
        if found is not None:
            return found
        if self.when_recorded and self.header is None:
            return Problem(
                "when_recorded",
                "it needs header",
                "fields and parameters are set only where they are recorded",
            )
        if self.json is not None:
            try:
                pointer_tokens(self.json)
            except UsageError as error:
                return Problem("json", str(error), error.hint)
        if self.path is not None and not re.fullmatch(r"(?:/|\{[A-Za-z_]\w*\})[!-~]*", self.path):
            return Problem(
                "path",
                f"{self.path!r} is not a path",
                "begin with /, and %-encode spaces and what is not ASCII",
            )
        return None

    def _value_problem(self) -> Problem | None:
        """Return a problem if a path has a value, or anything else has none."""
        if (self.path is None) == (self.value is not None):
            return None
        key = next(key for key in SET_PLACES if getattr(self, key) is not None)
        if self.value is not None:
            return Problem("value", "a path has no value", "write it into the path")
        return Problem(key, f"a {key} needs a value", f"give {key} and value")

    @property
    def text(self) -> str:
        """The template: the path or the value."""
        return self.path if self.path is not None else self.value or ""


SET_PLACES = ("path", "header", "json", "form", "query")
"""The keys of a [[set]] rule that select what it changes. A rule has exactly one of them."""


class Variable(Table, kw_only=True, frozen=True):
    """Values from a CSV file, a generator or the environment, for each client, each request or each recorded value."""

    name: Annotated[str, row("Name of the value: {name} in requests")]
    file: Annotated[
        str | None, row("CSV file whose first line names its columns, relative to this scenario")
    ] = None
    column: Annotated[str, row("Column of the file; default: the variable's name")] = ""
    generate: Annotated[
        Literal["uuid", "email", "word", "like"] | None,
        row("Make a unique value from the seed; like: in the form of the recorded value"),
    ] = None
    env: Annotated[
        str | None,
        row("Environment variable that has the value; --set overrides it", example="SHOP_PASSWORD"),
    ] = None
    by: Annotated[
        Literal["client", "request", "value"],
        row(
            "client: each client keeps its value; request: a new value for each request; value: one for each recorded "
            "value"
        ),
    ] = "client"
    each_run: Annotated[bool, row("Generate different values in each run")] = False

    def problem(self) -> Problem | None:
        """Return why the rule is invalid; None if it is valid."""
        if self.column and self.file is None:
            return Problem("column", "only a file has columns", "give file as well")
        found = _name_problem(self.name) or _one_of(self, ("file", "generate", "env"))
        if found is not None:
            return found._replace(key="name") if found.key == "route" else found
        for key, given in (("by", self.by == "value"), ("each_run", self.each_run)):
            if given and self.generate is None:
                return Problem(
                    key, "it applies to generated values only", 'give generate = "email", or leave it out'
                )
        if self.generate == "like" and self.by != "value":
            return Problem(
                "generate", "like makes a value in the form of the recorded one", 'give by = "value"'
            )
        if self.env is not None and not _NAME.fullmatch(self.env):
            return Problem(
                "env",
                f"{self.env!r} is not the name of an environment variable",
                "write a name such as SHOP_PASSWORD",
            )
        return None


class CheckRule(_Finder, kw_only=True, frozen=True):
    """Conditions that responses must meet.

    A response that does not meet them counts as a mismatch.
    """

    route: Annotated[str, row("Route or action whose responses are checked; * matches anything")]
    status: Annotated[
        Statuses | None,
        row(
            'Statuses that are accepted: "recorded", 200, or a list such as ["2xx", 404]', example="recorded"
        ),
    ] = None
    contains: Annotated[str | None, row("Text that the body must contain")] = None
    size: Annotated[SizeRange | None, row("Bytes of the body: 64KiB, >=1KiB, <2MiB", example=">=1KiB")] = None
    digest: Annotated[str | None, row("SHA-256 of the body, as sha256:...")] = None
    equals: Annotated[
        str | None, row("Value that header, cookie, json or regex must find; without it, any value")
    ] = None

    def problem(self) -> Problem | None:
        """Return why the rule is invalid; None if it is valid."""
        found = _one_of(self, ("status", "size", "contains", "digest", "header", "cookie", "json", "regex"))
        if found is not None:
            return found
        if self.equals is not None and (self.status or self.size or self.contains or self.digest):
            return Problem("equals", "it needs header, cookie, json or regex")
        if self.contains == "":
            return Problem("contains", "every body contains the empty text")
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            return Problem(
                "digest", f"{self.digest!r} is not a digest", "write sha256: and what `sha256sum FILE` prints"
            )
        return self.find_problem()


class Auth(Table, kw_only=True, frozen=True):
    """A header whose value a command prints.

    The command runs again every `refresh`, or only once if that is 0. A run folder contains neither the command nor
    its output.
    """

    command: Annotated[
        str,
        row(
            "Program and arguments, run without a shell; $NAME comes from the environment",
            example="./token.sh",
        ),
    ] = ""
    header: Annotated[str, row("Name of the header")] = "Authorization"
    value: Annotated[str, row("Value of the header; {output} is the first line that the command prints")] = (
        "Bearer {output}"
    )
    refresh_ns: Annotated[Duration, row("How often to run the command again; 0: never")] = Duration(
        300 * units.SECOND_NS
    )


def _link_problem(path: str, links: Collection[str]) -> Problem | None:
    """Return why a link in a path, or a placeholder at the path's start, is invalid; None if the path is valid.

    A link must end the path and make no `//`. A placeholder that begins the path must be a link.
    """
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
    """Return the first rule that contradicts another capture, as its table and number, and the problem.

    None if there is no such rule.
    """
    kinds: dict[str, str] = {}
    for index, rule in enumerate(rules):
        if kinds.setdefault(rule.name, rule.as_) != rule.as_:
            why = f"{rule.name!r} is captured as a {kinds[rule.name]} by another rule"
            return f"capture[{index}]", Problem("as", why, "give all captures of this name the same `as`")
    return None


def names_problem(
    captured: Collection[str],
    variable: Sequence[Variable],
    rules: Sequence[SetRule],
    links: Collection[str] = (),
) -> tuple[str, Problem] | None:
    """Return the first rule with a wrong name or link, as its table and number, and the problem.

    A name is wrong if it is unknown or used twice. None if there is no such rule. `links` are the captured names that
    are whole paths.
    """
    seen = set(captured)
    for index, named in enumerate(variable):
        if named.name in seen:
            return f"variable[{index}]", Problem("name", f"the name {named.name!r} is used twice")
        seen.add(named.name)
    known = [*seen, *BUILT_IN]
    for index, rule in enumerate(rules):
        for name, column in placeholders(rule.text):
            if name not in known:
                guess = units.nearest(name, known)
                why = f"column {column}: there is no value {name!r}" + (
                    f" (did you mean {guess!r}?)" if guess else ""
                )
                hint = "declare it in a [[capture]] or a [[variable]]"
                return f"set[{index}]", Problem("path" if rule.path is not None else "value", why, hint)
        if rule.path is not None and (problem := _link_problem(rule.path, links)) is not None:
            return f"set[{index}]", problem
    return None

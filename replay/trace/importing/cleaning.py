"""Removes secrets and personal data from recorded requests and responses.

Pseudonyms and fakes replace them in targets, headers and bodies. Headers with client addresses are dropped. The
user's rules (`--scrub`) take precedence.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import re2

from replay.trace.dictionary import Bytes, Int64s
from replay.trace.places import Kind, Place, cookies, form_fields, is_form, is_json, json_leaves, query_fields
from replay.trace.requests import Headers
from replay_native.importing import scan_table as scan

from .escapes import EscapedPattern, begins
from .marks import PERSON, Change, Marks
from .people import marked
from .pseudonyms import Pseudonyms
from .registry import Found, Options
from .scrub_rules import How
from .secret_names import WHO_WORDS, is_secret, is_secret_header
from .secrets import REDACTED, redacted

REMEMBERED = 1 << 16
"""Maximum number of cached texts, of remembered secrets, and of remembered texts of responses."""

REMEMBERED_BYTES_MAX = 4_096
"""Texts longer than this are not cached."""

VALUE_CHARS_MIN = 8
"""A secret shorter than this may occur by chance, so that it is not searched for in other places."""

_PARAMETER = re.compile(r"([?&;])([^=&;?#]*)=([^&;?#]+)")
_PATH_PARAMETER = re.compile(r"([;&])([^=&;?#/]*)=([^&;?#/]+)")
_ADDRESS = r"(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?::\d+)?"
_ADDRESS_LIST = re.compile(rf"[\s\"\[]*{_ADDRESS}[\"\]]*(?:[\s,]+[\"\[]*{_ADDRESS}[\"\]]*){{0,32}}\s*")
_ADDRESS_WORDS = frozenset({"ip", "addr", "address", "forwarded"})
WORD_CHARACTERS = r"\w.~-"
WORD = EscapedPattern(begins(WORD_CHARACTERS) + f"[{WORD_CHARACTERS}]{{8,}}")
_ELEMENT = re.compile(r"(<([\w:.-]{1,80})(?:\s[^<>]{0,400})?>)([^<>]{1,4096})(?=</)")
PARTS_OF_NAMES = (
    b"token", b"secret", b"pass", b"pw", b"psw", b"wort", b"key", b"sig", b"hmac", b"sess", b"credential", b"auth",
    b"assert", b"saml", b"bearer", b"jwt", b"csrf", b"xsrf", b"nonce", b"verif", b"code", b"answer", b"card",
    b"ccnum", b"cv", b"ssn", b"number", b"sid", b"otp", b"pin", b"ticket", b"hint", b"cookie", b"csc", b"iban", b"phone",
    b"msisdn", b"//", b"%", b"\\", b"eyj", b"basic", b"digest", b"@",
)  # fmt: skip
IGNORED_IN_NAMES = b"-_.[]"
"""Bytes that are removed from a lower-case copy of a body before the copy is searched for PARTS_OF_NAMES.

A body without any of PARTS_OF_NAMES holds no secret that is marked by a name.
"""

_NAMES = re2.compile(b"|".join(map(re2.escape, PARTS_OF_NAMES)))
"""Matches any of PARTS_OF_NAMES.

RE2 finds all of them in one pass over the body.
"""

_LOWERED = bytes(byte | 32 if 65 <= byte <= 90 else byte for byte in range(256))
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
_NUMBERS = re.compile(rb"\d[\dA-Z +%()-]{6}")

Known = tuple[bytes, list[Change]]


class Cleaner:
    """Cleans the texts of one recording and counts the changes in `found`.

    With `learns`, it recognizes a secret again in other places, such as a path segment or under another name. Readers
    of logs turn it off, because kernels, which cannot search for such values, read their lines.
    """

    def __init__(self, found: Found, options: Options, *, learns: bool = True) -> None:
        self._learns = learns
        self._found, self._keeps, self._rules = found, options.keep_secrets, options.scrub
        self._pseudonyms = Pseudonyms(options.scrub_key or found.key)
        self._known: dict[tuple[bytes, str], Known] = {}

    def _how(self, place: Kind, name: str) -> How | None:
        """Return the action of the user's rule for a value, None if there is none.

        A rule that applies is recorded as used.
        """
        rule = self._rules.of(place, name)
        if rule is None:
            return None
        self._found.rules_used.add(str(rule))
        return rule.how

    def _clean(self, text: bytes, place: str, clean: Callable[[str, Marks], str]) -> bytes:
        """Clean a text with `clean`, or take the result from the cache, and replace known secrets in it.

        The changes of a cached text are counted every time.
        """
        known = self._known.get((text, place))
        if known is None:
            marks = Marks(place)
            cleaned = marked(clean(text.decode("latin-1"), marks), marks.person)
            known = marks.resolved(cleaned, self._pseudonyms).encode("latin-1"), marks.changes
            if len(self._known) < REMEMBERED and len(text) <= REMEMBERED_BYTES_MAX:
                self._known[text, place] = known
            if self._learns:
                self._learn(marks.secrets)
        self._count(known[1])
        return self._without_known(known[0], place) if self._found.known_secrets else known[0]

    def _count(self, changes: list[Change]) -> None:
        if not changes:
            return
        found = self._found
        for change, count in Counter(changes).items():
            kind = change.place.rpartition(" ")[2]
            what = {
                "header": "header_values",
                "cookie": "header_values",
                "path": "query_values",
                "query": "query_values",
            }
            if change.name in PERSON:
                found.drop("pseudonyms", count)
            else:
                found.drop(what.get(kind, "body_values"), count)
                found.note_secret(change.name, count)
            found.note_change(change, count)

    def _learn(self, secrets: list[str]) -> None:
        """Search later texts for the last word of each value, if it is long and has only word characters.

        At most REMEMBERED words are searched for. If an earlier response contained a word under another name, an
        assumption reports its place.
        """
        for value in secrets:
            word = value.rpartition(" ")[2]
            if len(word) < VALUE_CHARS_MIN or not WORD.fullmatch(word):
                continue
            if len(self._found.known_secrets) < REMEMBERED:
                self._found.known_secrets.add(word)
            if (place := self._found.given_out.get(word)) is not None:
                self._found.assume(
                    f"a secret appeared earlier in a response, at {place}, where no name marks it as a secret:"
                    f" --scrub '{place}=pseudonym' replaces it there, too"
                )

    def _without_known(self, text: bytes, place: str) -> bytes:
        """Replace the words of a text that are known secrets, whatever name is beside them."""
        changes: list[Change] = []

        def word(match: re.Match[str]) -> str:
            if match[0] not in self._found.known_secrets:
                return match[0]
            changes.append(Change(place, "(known value)", "pseudonym"))
            return self._pseudonyms.of(match[0])

        cleaned = WORD.sub(word, text.decode("latin-1"))
        self._count(changes)
        return cleaned.encode("latin-1") if changes else text

    def target(self, target: bytes) -> bytes:
        """Replace the secrets in a request target, unless secrets are kept."""
        return target if self._keeps else self._clean(target, "query", self._clean_target)

    def targets(self, data: Bytes, ends: Int64s, needs: Int64s) -> tuple[Bytes, Int64s]:
        """Clean the targets that a kernel flagged, unless secrets are kept, and return all targets.

        If there are rules for queries or known values, which the kernels cannot search for, all targets are cleaned.
        """
        changed: dict[int, bytes] = {}
        if self._keeps:
            return data, ends
        every = self._rules.has("query") or bool(self._found.known_secrets)
        for row in range(len(needs)) if every else np.flatnonzero(needs & scan.SUSPECT).tolist():
            before = data[ends[row] : ends[row + 1]].tobytes()
            after = self.target(before)
            if after != before:
                changed[row] = after
        if not changed:
            return data, ends
        pieces, grown, at = [], np.zeros(len(ends), np.int64), 0
        for row, after in changed.items():
            pieces += [data[at : ends[row]], np.frombuffer(after, np.uint8)]
            at = int(ends[row + 1])
            grown[row + 1] = len(after) - int(ends[row + 1] - ends[row])
        pieces.append(data[at : ends[-1]])
        return np.concatenate(pieces), ends + np.cumsum(grown)

    def headers(self, pairs: Iterable[tuple[bytes, bytes | None]]) -> Headers:
        """Replace the secrets in header values, and drop headers with client addresses.

        Nothing changes if secrets are kept. A value of None stays None.
        """
        given = tuple(pairs)
        if self._keeps:
            return given
        kept: list[tuple[bytes, bytes | None]] = []
        for name, value in given:
            if value is None:
                kept.append((name, value))
                continue
            text = name.decode("latin-1").strip().lower()
            how = self._how("header", text)
            if how is None and _says_address(text, value):
                how = "drop"
            if how == "drop":
                self._found.drop("headers", 1)
                self._found.note_secret(text)
                self._found.note_change(Change("header", text, "drop"), 1)
            elif how == "keep":
                kept.append((name, value))
            else:
                kept.append((name, self._header(text, value, how is not None)))
        return tuple(kept)

    def _header(self, name: str, value: bytes, has_rule: bool) -> bytes:
        """Replace the secrets in the value of a header.

        Each value of `cookie` and `set-cookie` is replaced unless a rule keeps it. The whole value of another header is
        replaced if its name is secret or has a rule.
        """
        how = self._how("header", name) or "pseudonym"

        def clean(text: str, marks: Marks) -> str:
            if name == "cookie":
                return self._ruled(text, list(cookies(text)), "cookie", marks, default=True)
            if name == "set-cookie":
                return self._ruled(text, list(cookies(text))[:1], "cookie", marks, default=True)
            if (has_rule or is_secret_header(name)) and text.strip():
                return marks.mark(text, name, how, "header")
            return redacted(text, marks)

        return self._clean(value, f"header {name}" if has_rule or is_secret_header(name) else "header", clean)

    def body(self, body: bytes, side: str = "") -> bytes:
        """Replace the secrets in a body, unless secrets are kept.

        A binary body is unchanged. `side` is `response ` for response bodies.
        """
        if self._keeps or not body or _BINARY.search(body):
            return body
        start = body.lstrip()[:1]
        text = body.decode("latin-1")
        if start in (b"{", b"[", b'"'):
            return self._cleaned_body(body, f"{side}json", self._clean_json)
        if body.startswith(b"--") and b"form-data" in body:
            return self._cleaned_body(body, f"{side}form", redacted)
        if is_form(text):
            return self._cleaned_body(body, f"{side}form", self._clean_form)
        return self._cleaned_body(body, f"{side}text", _clean_markup)

    def _cleaned_body(self, body: bytes, place: str, clean: Callable[[str, Marks], str]) -> bytes:
        """Clean a body.

        Only known secrets are replaced if there are no rules for bodies, and the body has neither a part of a secret's
        name nor a long number.
        """
        if place.endswith("json") and place != "json":
            self._note_given_out(body)
        if not self._rules.has("json", "form"):
            plain = body.translate(_LOWERED, IGNORED_IN_NAMES)
            if not _NAMES.search(plain) and not _NUMBERS.search(body):
                return self._without_known(body, place) if self._found.known_secrets else body
        return self._clean(body, place, clean)

    def _note_given_out(self, body: bytes) -> None:
        """Remember the long strings of a JSON response, to report any that later proves to be a secret."""
        for leaf in json_leaves(body.decode("latin-1")):
            named = is_secret(leaf.name.rpartition("/")[2]) or self._rules.of("json", leaf.name) is not None
            is_new = leaf.value not in self._found.known_secrets and not named
            if is_new and leaf.quoted and len(leaf.value) >= 16 and len(self._found.given_out) < REMEMBERED:
                self._found.given_out.setdefault(leaf.value, f"json:{leaf.name}")

    def _ruled(
        self, text: str, places: Iterable[Place], kind: Kind, marks: Marks, *, default: bool = False
    ) -> str:
        """Mark or remove the values of a text to which rules apply.

        With `default`, values without a rule get pseudonyms.
        """
        pieces, at = [], 0
        for place in places:
            how = self._how(kind, place.name) or ("pseudonym" if default else None)
            if how is None or place.end == place.begin or place.begin < at:
                continue
            if how == "drop":
                marks.dropped(place.name, kind)
                begin, end = _with_separator(text, place)
                pieces.append(text[at : max(at, begin)])
                at = end
            else:
                mark = marks.mark(text[place.begin : place.end], place.name, how, kind)
                pieces += [text[at : place.begin], mark]
                at = place.end
        return "".join([*pieces, text[at:]]) if at else text

    def _clean_target(self, target: str, marks: Marks) -> str:
        """Mark the secrets in a target."""

        def one(match: re.Match[str]) -> str:
            if not is_secret(match[2]) or match[3].startswith(REDACTED):
                return match[0]
            return f"{match[1]}{match[2]}={marks.value(match[3], match[2])}"

        if self._rules.has("query"):
            target = self._ruled(target, query_fields(target), "query", marks)
        path, mark, query = target.partition("?")
        path = redacted(_PATH_PARAMETER.sub(one, path), marks, "/", in_url=True)
        if mark:
            query = redacted(_PARAMETER.sub(one, mark + query), marks, in_url=True)
        return path + query

    def _clean_json(self, text: str, marks: Marks) -> str:
        if self._rules.has("json") and is_json(text):
            text = self._ruled(text, json_leaves(text), "json", marks)
        return redacted(text, marks)

    def _clean_form(self, text: str, marks: Marks) -> str:
        if self._rules.has("form"):
            text = self._ruled(text, form_fields(text), "form", marks)
        return self._clean_target("?" + text, marks)[1:]


def _says_address(name: str, value: bytes) -> bool:
    """Return whether a header holds a client address, judged by its name or its value."""
    words = set(re.split(r"[-_.]", name))
    if words & _ADDRESS_WORDS and is_secret_header(name) and not words & (WHO_WORDS - _ADDRESS_WORDS):
        return True
    return _ADDRESS_LIST.fullmatch(value[:1_000].decode("latin-1")) is not None


def _with_separator(text: str, place: Place) -> tuple[int, int]:
    """Return the start and end of a member or field, including the separator after it, or else the one before it."""
    begin, end = place.first, place.end + place.quoted
    if place.quoted and text[begin] != '"':
        begin -= 1
    after = re.compile(r"[ \t\r\n]*[,&;][ \t\r\n]*").match(text, end)
    if after is not None:
        return begin, after.end()
    before = re.compile(r"[ \t\r\n]*[,&;][ \t\r\n]*\Z").search(text, 0, begin)
    return (before.start() if before is not None else begin), end


def _clean_markup(text: str, marks: Marks) -> str:
    """Mark the secrets in XML, HTML or any other text."""

    def element(match: re.Match[str]) -> str:
        name = match[2].rpartition(":")[2]
        return match[1] + marks.value(match[3], name) if is_secret(name) and match[3].strip() else match[0]

    return redacted(_ELEMENT.sub(element, text), marks)

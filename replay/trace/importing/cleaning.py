"""What an import keeps of requests: targets, headers and bodies without secrets, and pseudonyms for who is in a path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable

import numpy as np

from replay.trace.dictionary import Bytes, Int64s
from replay.trace.requests import Headers
from replay_native.importing import common_log as scan
from replay_native.importing import targets

from .registry import Found, Options
from .secrets import (
    EMAIL,
    JWT,
    REDACTED,
    SECRET_NAMES,
    SECRET_SUFFIXES,
    is_secret,
    is_secret_header,
    redacted,
    secret_key,
)

REMEMBERED = 1 << 16
"""Targets and header values whose clean form is remembered."""

_PARAMETER = re.compile(r"([?&;])([^=&;?#]*)=([^&;?#]+)")
_PATH_PARAMETER = re.compile(r"(;)([^=&;?#/]*)=([^&;?#/]+)")
_NOT_MAIL = frozenset(
    {
        "avif", "bmp", "cjs", "css", "csv", "eot", "gif", "gz", "htm", "html", "ico", "jpeg", "jpg", "js", "json", "map",
        "md", "min", "mjs", "mp3", "mp4", "otf", "pdf", "php", "png", "svg", "tgz", "ts", "ttf", "txt", "wasm", "webm",
        "webp", "woff", "xml", "xz", "zip",
    }
)  # fmt: skip
"""Endings of files: `logo@2x.png` is no address."""

_ADDRESS = r"(?:(?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?::\d+)?"
_ADDRESS_LIST = re.compile(rf"[\s\"\[]*{_ADDRESS}[\"\]]*(?:[\s,]+[\"\[]*{_ADDRESS}[\"\]]*){{0,32}}\s*")
_FORM = re.compile(rb"[!-;=?-z|~]+")
_PARTS_OF_NAMES = (
    *(
        b"token",
        b"secret",
        b"pass",
        b"pw",
        b"psw",
        b"wort",
        b"key",
        b"sig",
        b"hmac",
        b"sess",
        b"credential",
        b"auth",
    ),
    *(
        b"assert",
        b"saml",
        b"bearer",
        b"jwt",
        b"csrf",
        b"xsrf",
        b"nonce",
        b"verif",
        b"code",
        b"answer",
        b"card",
    ),
    *(
        b"ccnum",
        b"cv",
        b"ssn",
        b"number",
        b"sid",
        b"otp",
        b"pin",
        b"ticket",
        b"hint",
        b"cookie",
        b"csc",
        b"iban",
    ),
    *(b"//", b"%", b"\\", b"eyj", b"basic", b"digest"),
)
"""A body without any of these, in lower case and without the marks of names, holds no secret that has a name."""

_LOWERED = bytes(byte | 32 if 65 <= byte <= 90 else byte for byte in range(256))
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
_CODE = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_UPPER, _LOWER, _DIGIT = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz", b"0123456789"


def packed_names() -> tuple[Bytes, Int64s, list[str]]:
    """The names of secrets as `targets.find_secret` takes them, and the name of each key."""
    keys = [(name, True) for name in SECRET_SUFFIXES] + [(name, False) for name in SECRET_NAMES]
    keys.sort(key=lambda key: (key[0][-1], -len(key[0])))
    lasts = np.frombuffer("".join(name[-1] for name, _ in keys).encode(), np.uint8)
    begins = np.cumsum([0, *(len(name) for name, _ in keys)])
    ends = 2 * begins + np.array([*(is_suffix for _, is_suffix in keys), False], np.int64)
    firsts = np.searchsorted(lasts, np.arange(targets.FIRST_KEYS))
    data = np.frombuffer(bytearray("".join(name for name, _ in keys).encode()), np.uint8)
    return data, np.concatenate([firsts, ends]).astype(np.int64), [name for name, _ in keys]


class Pseudonyms:
    """Makes names of people into others: the same one for the same name, of the same letters and digits and as long.

    `key` is of the recording alone: whoever has the trace without it cannot try names.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"replay-pseudonym").digest()

    def of(self, text: str) -> str:
        """Another text in which letters are letters and digits are digits; other characters stay."""
        seed = hashlib.blake2b(text.lower().encode(), key=self._key, digest_size=32).digest()
        units = _CODE.findall(text)
        stream = hashlib.shake_256(seed).digest(2 * len(units))
        made = []
        for place, unit in enumerate(units):
            number = stream[2 * place] << 8 | stream[2 * place + 1]
            alphabet = next(
                (a for a in (_LOWER, _UPPER, _DIGIT) if len(unit) == 1 and unit.encode() in a), b""
            )
            made.append(chr(alphabet[number % len(alphabet)]) if alphabet else unit)
        return "".join(made)

    def jwt(self, match: re.Match[str]) -> str:
        """That of a JSON Web Token, which still looks like one."""
        return "eyJ" + self.of(match[0][3:])

    def email(self, match: re.Match[str]) -> str:
        """That of an e-mail address; the last label of its domain stays."""
        domain, dot, last = match["domain"].rpartition(".")
        local = match[0][: match.start("at") - match.start()]
        return self.of(local) + match["at"] + self.of(domain) + dot + last


class Cleaner:
    """Cleans what one import keeps, and counts in `found` what it took out."""

    def __init__(self, found: Found, options: Options) -> None:
        self._found, self._keeps = found, options.keep_secrets
        self._pseudonyms = Pseudonyms(found.key)
        self._known: dict[tuple[bytes, bool], tuple[bytes, list[str], int]] = {}

    def _clean(self, text: bytes, clean: Callable[[str, list[str]], str], what: str, is_url: bool) -> bytes:
        """A text cleaned, with pseudonyms in it, and remembered; what was taken out is counted every time."""
        known = self._known.get((text, is_url))
        if known is None:
            names: list[str] = []
            named, people = self._named(clean(text.decode("latin-1"), names))
            known = named.encode("latin-1"), names, people
            if len(self._known) < REMEMBERED:
                self._known[text, is_url] = known
        self._found.drop(what, len(known[1]))
        self._found.drop("pseudonyms", known[2])
        for name in known[1]:
            self._found.note_secret(name)
        return known[0]

    def _named(self, text: str) -> tuple[str, int]:
        """A text with pseudonyms for its tokens and addresses, and how many."""
        count = 0

        def email(match: re.Match[str]) -> str:
            nonlocal count
            domain = match["domain"].lower()
            if domain.rpartition(".")[2] in _NOT_MAIL:
                return match[0]
            count += 1
            return self._pseudonyms.email(match)

        if "eyJ" in text:
            text, count = JWT.subn(self._pseudonyms.jwt, text)
        if "@" in text or "40" in text:
            text = EMAIL.sub(email, text)
        return text, count

    def target(self, target: bytes) -> bytes:
        """A request's target without secrets."""
        if self._keeps:
            return target
        return self._clean(target, _clean_target, "query_values", is_url=True)

    def targets(self, data: Bytes, ends: Int64s, needs: Int64s) -> tuple[Bytes, Int64s]:
        """The targets of rows that kernels have cleaned, with those that they found suspect cleaned once more."""
        changed: dict[int, bytes] = {}
        for row in np.flatnonzero(needs & scan.SUSPECT).tolist():
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

    def headers(self, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Headers without those that are secrets or say who asked, and without secrets in the values of others."""
        given = tuple(pairs)
        if self._keeps:
            return given
        kept: list[tuple[bytes, bytes]] = []
        for name, value in given:
            text = name.decode("latin-1")
            if is_secret_header(text) or _ADDRESS_LIST.fullmatch(value[:1_000].decode("latin-1")):
                self._found.note_secret(text.lower())
                continue
            kept.append((name, self._clean(value, _clean_text, "header_values", is_url=False)))
        self._found.drop("headers", len(given) - len(kept))
        return tuple(kept)

    def body(self, body: bytes) -> bytes:
        """A body of a form or of JSON without the secrets in it; any other body as it is."""
        if self._keeps or not body or _BINARY.search(body):
            return body
        plain = body.translate(_LOWERED, b"-_.[]")
        if not any(part in plain for part in _PARTS_OF_NAMES):
            return body
        start = body.lstrip()[:1]
        names: list[str] = []
        text = body.decode("latin-1")
        if start in (b"{", b"[", b'"') or (body.startswith(b"--") and b"form-data" in body):
            text = redacted(text, names.append)
        elif _FORM.fullmatch(body) and b"=" in body:
            text = _clean_target("?" + text, names)[1:]
        else:
            return body
        if "eyJ" in text:
            text, tokens = JWT.subn(self._pseudonyms.jwt, text)
            self._found.drop("pseudonyms", tokens)
        self._found.drop("body_values", len(names))
        for name in names:
            self._found.note_secret(name)
        return text.encode("latin-1")


def _clean_target(target: str, names: list[str]) -> str:
    """A target or query without secrets; their names are added to `names`."""

    def one(match: re.Match[str]) -> str:
        if not is_secret(match[2]) or match[3] == REDACTED:
            return match[0]
        names.append(secret_key(match[2]))
        return f"{match[1]}{match[2]}={REDACTED}"

    path, mark, query = target.partition("?")
    path = redacted(_PATH_PARAMETER.sub(one, path), names.append, "/", in_url=True)
    if mark:
        query = redacted(_PARAMETER.sub(one, mark + query), names.append, in_url=True)
    return path + query


def _clean_text(text: str, names: list[str]) -> str:
    return redacted(text, names.append)

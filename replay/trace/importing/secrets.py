"""What is taken out of a recording before it is kept or shown: credentials, and who asked.

A value is known as a secret by the name beside it, wherever the pair stands: in a URL, a header, a form, JSON, or a text
inside one of these. The marks around it may be percent-encoded or escaped for JSON. Kernels do the plain parameters of
targets (`replay_native.targets`); everything else is done here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

SECRET_SUFFIXES = (
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "passwordconfirm",
    "passwordconfirmation",
    "passwordagain",
    "userpass",
    "passwort",
    "kennwort",
    "pwd",
    "apikey",
    "accesskey",
    "accesskeyid",
    "privatekey",
    "secretkey",
    "subscriptionkey",
    "signature",
    "hmac",
    "sessionid",
    "sessid",
    "sessionkey",
    "credential",
    "credentials",
    "authorization",
    "assertion",
    "samlrequest",
    "samlresponse",
    "bearer",
    "jwt",
    "csrf",
    "xsrf",
    "wpnonce",
    "verifier",
    "authcode",
    "accesscode",
    "verificationcode",
    "securitycode",
    "securityanswer",
    "cardnumber",
    "cardnum",
    "cardno",
    "creditcard",
    "ccnumber",
    "cvv",
    "ssn",
    "securitynumber",
    "passportnumber",
)
"""A parameter whose name ends with one of these is a secret (`csrf_token`, `X-Amz-Signature`, `PHPSESSID`).
"""

SECRET_NAMES = (
    "key",
    "pass",
    "pw",
    "psw",
    "auth",
    "oauth",
    "sig",
    "session",
    "sid",
    "connectsid",
    "code",
    "otp",
    "totp",
    "pin",
    "pincode",
    "ticket",
    "serviceticket",
    "samlart",
    "idtokenhint",
    "nonce",
    "cookie",
    "card",
    "cvc",
    "csc",
    "iban",
)
"""A parameter of exactly this name is a secret."""

SECRET_WORDS = frozenset(
    {
        "auth", "authorization", "authentication", "bearer", "cookie", "credential", "credentials", "csrf", "hmac", "jwt",
        "otp", "password", "pin", "saml", "secret", "session", "sid", "sig", "signature", "ssn", "ticket", "token", "xsrf",
        "assertion", "apikey", "cert",
    }
)  # fmt: skip
"""A header with one of these words in its name (`X-User-Jwt`) is a secret."""

WHO_WORDS = frozenset({"ip", "addr", "address", "email", "forwarded", "user", "username", "userid", "from"})
"""A header with one of these words in its name (`X-Real-IP`) says who asked."""

_HARMLESS_HEADERS = frozenset(
    {
        "user-agent", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-path",
        "x-forwarded-server", "x-forwarded-scheme", "x-forwarded-protocol", "x-forwarded-ssl", "sec-ch-ua",
    }
)  # fmt: skip

REDACTED = "REDACTED"
"""What stands in the place of a secret's value."""

Note = Callable[[str], None]
"""Called with the name beside each value that was taken out."""

_NAME = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_MARKS = re.compile(r"[-_.\[\]]")
_DIGITS = "0123456789"


@lru_cache(1 << 12)
def secret_key(name: str) -> str:
    """The known name that a parameter's is, or ends with; empty where it is no secret's.

    Compared in lower case, percent-decoded, without `- _ . [ ]` and without digits at its end.
    """
    decoded = _NAME.sub(lambda m: chr(int(m[0][1:], 16)) if len(m[0]) == 3 else m[0], name).lower()
    plain = _MARKS.sub("", decoded).rstrip(_DIGITS)
    if plain in SECRET_NAMES:
        return plain
    return max((suffix for suffix in SECRET_SUFFIXES if plain.endswith(suffix)), key=len, default="")


def is_secret(name: str) -> bool:
    """Whether a parameter's name looks like a secret's."""
    return secret_key(name) != ""


@lru_cache(1 << 12)
def is_secret_header(name: str) -> bool:
    """Whether a header says who asked, or lets its reader in."""
    lowered = name.strip().lower()
    if lowered in _HARMLESS_HEADERS:
        return False
    words = set(re.split(r"[-_.]", lowered))
    return bool(words & (SECRET_WORDS | WHO_WORDS)) or is_secret(lowered.removeprefix("x-"))


# Marks, in every way in which they may be written.

_CODED = r"%(?:25){0,4}"


def _marks(characters: str) -> str:
    """Any of some characters: as it is, percent-encoded (however often), or escaped for JSON or a log."""
    codes = "|".join(
        f"{code:02X}"
        if f"{code:02X}".isdigit()
        else "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in f"{code:02X}")
        for code in map(ord, characters)
    )
    return rf"(?:[{re.escape(characters)}]|{_CODED}(?:{codes})|\\{{1,16}}(?:u00|x)(?:{codes}))"


_QUOTE = r"(?:\\{0,16}[\"']|%(?:25){0,4}2[27]|\\{1,16}(?:u00|x)2[27]|&(?:quot|\#34|\#39);)"
_BLANK = r"(?:[ \t]|\+|%(?:25){0,4}20){0,8}"
"""All repeats are bounded, so that no text takes more than a multiple of its length."""
_OPERATOR = re.compile(rf"(?P<quote>{_QUOTE})?{_BLANK}(?P<mark>{_marks('=:')}(?:>)?)")
_NAME_AT_END = re.compile(r"[\w.\[\]$-]+\Z")
_ESCAPED = re.compile(r"\\{1,16}(?:u00|x)([0-9A-Fa-f]{2})")
_NAME_CHARS_MAX = 120
DECODED_TIMES = 4
SIBLING_CHARS_MAX = 400
_QUOTE_AT = re.compile(rf"{_BLANK}({_QUOTE})")
_OPENING_AT = re.compile(rf"{_BLANK}{_marks('[{')}")
_BLANK_AT = re.compile(_BLANK)
_AFTER_COLON = re.compile(rf"{_BLANK}(?:(?:Bearer|Basic|Digest)(?:[ +]|%(?:25){{0,4}}20)+)?", re.IGNORECASE)
_BRACKET = re.compile(rf"(?P<open>{_marks('[{')})|{_marks(']}')}")
_LITERAL = re.compile(r"(?:null|true|false)(?![\w-])")
_LINE_END = re.compile(r"[\r\n\"]|\\[rn]|%(?:25)*0[AaDd]")
_IN_JSON = re.compile(r"[\w.+-]*")
_VALUE_NAMES = frozenset({"value", "val", "values", "v"})
_SIBLING = re.compile(
    rf"(?<![A-Za-z])(?:name|key|header|field|param|parameter|k){_QUOTE}?{_BLANK}{_marks('=:')}{_BLANK}{_QUOTE}?((?:(?!{_QUOTE})[\w.$%\[\]-])+)",
    re.IGNORECASE,
)
_OBJECT_MARK = re.compile(rf"{_marks('{}')}|[<>\r\n]")


@lru_cache(64)
def _value_end(level: int, stops: str) -> re.Pattern[str]:
    """The end of a bare value: a delimiter that is written like the mark before it, or more plainly."""
    plain = re.escape("&;#?\"'<> \t\r\n" + stops)
    coded = rf"|%(?:25){{0,{level - 1}}}(?:2[0236]|3[BbCcEe]|0[AaDd])" if level else ""
    return re.compile(rf"[{plain}]|\\(?![/u])|\\u00(?:2[267]|3[ce])|&quot{coded}")


class Span(NamedTuple):
    """A secret value's place, the name beside it, and what is written in its place."""

    begin: int
    end: int
    name: str
    instead: str


def _quoted_end(text: str, begin: int, quote: str) -> int:
    """Where the string ends that begins behind `quote`: at a quote that is escaped as often, or less. The text's end where
    none does.
    """
    depth = len(quote) - len(quote.lstrip("\\"))
    if quote.lstrip("\\")[:1] in "\"'":
        for found in re.compile(rf"(\\*){re.escape(quote[-1])}").finditer(text, begin):
            if len(found[1]) <= depth:
                return found.start()
        return len(text)
    found_at = text.find(quote, begin)
    return found_at if found_at >= 0 else len(text)


def _bracket_end(text: str, begin: int) -> int:
    depth = 0
    for found in _BRACKET.finditer(text, begin):
        depth += 1 if found["open"] else -1
        if depth <= 0:
            return found.end()
    return len(text)


def _is_secret_beside_colon(name: str) -> bool:
    """Whether a key of JSON, or a header, names a secret. `user` and `address` may be keys of anything."""
    lowered = name.lower()
    return (
        is_secret(name) or lowered == "set-cookie" or (lowered.startswith("x-") and is_secret_header(lowered))
    )


def _sibling_is_secret(text: str, begin: int, end: int) -> bool:
    """Whether the object around a `value` names a secret (`{"name": "token", "value": ...}`), or is cut before it could."""
    first = max(0, begin - SIBLING_CHARS_MAX)
    first = max((found.end() for found in _OBJECT_MARK.finditer(text, first, begin)), default=first)
    last = min(len(text), end + SIBLING_CHARS_MAX)
    closing = _OBJECT_MARK.search(text, end, last)
    last = closing.start() if closing else last
    names = [_decoded(found[1]) for found in _SIBLING.finditer(text, first, last)]
    return any(map(_is_secret_beside_colon, names)) if names else last == len(text)


def _decoded(text: str) -> str:
    for _ in range(DECODED_TIMES):
        if "%" not in text:
            break
        text = unquote(text, "latin-1")
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "\\" in text else text


def _name_before(text: str, end: int) -> str:
    """The name that ends at `end`, decoded."""
    found = _NAME_AT_END.search(_decoded(text[max(0, end - _NAME_CHARS_MAX) : end]))
    return found[0].strip(".") if found else ""


def _secret_value(text: str, found: re.Match[str], stops: str, in_url: bool) -> Span | None:
    """The value behind an operator (`=`, `:`), where the name before it is a secret's."""
    name, mark, quote = _name_before(text, found.start()), found["mark"], found["quote"] or ""
    is_colon = mark[0] == ":" or mark.rstrip(">")[-2:].upper() == "3A"
    begin = found.end()
    if not name:
        return None
    string = _QUOTE_AT.match(text, begin)
    if not (_is_secret_beside_colon(name) if is_colon else is_secret(name)):
        if name.lower() not in _VALUE_NAMES:
            return None
        end = _quoted_end(text, string.end(), string[1]) if string else begin
        if not _sibling_is_secret(text, found.start(), end):
            return None
    if string:
        return Span(string.end(), _quoted_end(text, string.end(), string[1]), name, REDACTED)
    if (is_colon or quote) and _OPENING_AT.match(text, begin):
        return Span(begin, _bracket_end(text, begin), name, f"{quote}{REDACTED}{quote}")
    if is_colon and quote:
        begin = _BLANK_AT.match(text, begin).end()  # type: ignore[union-attr]
        bare = _IN_JSON.match(text, begin)
        end = bare.end() if bare else begin
        return None if _LITERAL.match(text, begin) else Span(begin, end, name, f"{quote}{REDACTED}{quote}")
    if is_colon:
        begin = _AFTER_COLON.match(text, begin).end()  # type: ignore[union-attr]
    if is_colon and not in_url:
        ending = _LINE_END.search(text, begin)
    elif mark == ":" and stops:
        return None
    else:
        level = 0 if mark[0] != "%" else 1 + (len(mark) - 3) // 2
        ending = _value_end(level, stops).search(text, begin)
    return Span(begin, ending.start() if ending else len(text), name, REDACTED)


def _secret_spans(text: str, stops: str, in_url: bool) -> Iterator[Span]:
    """The secret values of a text, from left to right; what is inside one is not looked at again."""
    done = 0
    for found in _OPERATOR.finditer(text):
        if found.start() < done:
            continue
        span = _secret_value(text, found, stops, in_url)
        if span is not None and span.end > span.begin and not text.startswith(REDACTED, span.begin):
            yield span
            done = span.end


def _replaced(text: str, spans: Iterator[Span], note: Note) -> str:
    pieces, at = [], 0
    for span in spans:
        note(span.name)
        pieces += [text[at : span.begin], span.instead]
        at = span.end
    return "".join([*pieces, text[at:]]) if pieces else text


_SCHEME = re.compile(
    r"\b((?:Bearer|Basic|Digest|Negotiate|NTLM|Token|ApiKey|AWS4-HMAC-SHA256)(?:[ \t]+|%(?:25)*20|\+|:[ ]*))"
    r"(?!REDACTED)(?=[^\s\"'&,;\\]*[A-Z0-9=_-])[^\s\"'&,;\\]{3,}",
    re.IGNORECASE,
)
_USER_INFO = re.compile(
    rf"((?::|{_CODED}3[Aa]|(?<![\w:.-]))(?:\\{{0,4}}/|{_CODED}2[Ff]){{2}})"
    rf"((?:(?!{_CODED}(?:2[Ff]|3[Ff]|23|22|20))[^/\s\"'<>?#\\])+)(?:@|{_CODED}40)"
)
_PART_OF_FORM = re.compile(
    r"(name=\\{0,4}\"?([^\"\\;\r\n]{1,100})\\{0,4}\"?[^\r\n]{0,200}?(?:\r?\n[^\r\n]{1,200}){0,4}?(?:\r?\n\r?\n|(?:\\r)?\\n(?:\\r)?\\n))(.*?)"
    r"(?=\r?\n--|(?:\\r)?\\n--|\Z)",
    re.DOTALL,
)


_MAY_HOLD = re.compile(r"[:=%\\ +]|//")


def redacted(text: str, note: Note, stops: str = "", *, in_url: bool = False) -> str:
    """A text without the secrets in it: values by their names, credentials behind their scheme, user info of URLs.

    `in_url` is for paths and queries, in which a bare value ends at the next delimiter. `stops` are those of a path, in
    which a bare colon says nothing (`/v1/key:rotate`).
    """
    if _MAY_HOLD.search(text) is None:
        return text

    def part(match: re.Match[str]) -> str:
        if not is_secret(match[2]) or not match[3] or match[3] == REDACTED:
            return match[0]
        note(match[2])
        return match[1] + REDACTED

    def scheme(match: re.Match[str]) -> str:
        note("authorization")
        return match[1] + REDACTED

    def user(match: re.Match[str]) -> str:
        note("user info")
        return match[1]

    if "form-data" in text:
        text = _PART_OF_FORM.sub(part, text)
    text = _USER_INFO.sub(user, text)
    text = _replaced(text, _secret_spans(text, stops, in_url), note)
    return _SCHEME.sub(scheme, text)


# Lines that are shown.

_IPV4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_GROUPS = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}"
_IPV6 = re.compile(
    rf"(?<![\w:])(?:(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}|{_GROUPS}::(?:{_GROUPS})?|::{_GROUPS})(?![\w:])"
)
"""All eight groups, or `::` for some: a time of day has colons, too."""
_LOG_HEAD = re.compile(r"^[^\s\[{\"]\S*(?: .{0,200}?)?(?= \[)")
"""Who asked, in a line that has a stamp in brackets behind it."""
JWT = re.compile(
    r"(?:(?<![\w-])|(?<=%[0-9A-Fa-f]{2})|(?<=25[0-9A-Fa-f]{2}))eyJ[\w-]{3,4096}(?:(?:\.|%(?:25)*2[Ee])[\w-]*){1,4}"
)
EMAIL = re.compile(
    r"(?:[\w.!#$*+~-]|%(?:25){0,4}(?:2[BbDdEe]|5[Ff])){1,64}(?P<at>@|%(?:25){0,4}40)"
    r"(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])"
)
_PASSWORD = re.compile(
    rf"((?:\\{{0,4}}/|{_CODED}2[Ff]){{2}})(?:(?!{_CODED})[^/\s\"'@:?#\\])+{_marks(':')}(?!\d{{1,5}}(?![\w.-]))[^/\s\"'@]*"
)
"""A user and password whose `@` was cut off: what is behind the colon is no port."""
_OPAQUE = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{24,}={0,2}")
_LISTED = re.compile(rf"({_QUOTE})([\w.-]{{1,100}})\1(\s*,\s*)\1((?:(?!\1).)+)\1(?!\s*:)")


def scrub(text: str, *, as_it_begins: bool = False) -> str:
    """A line fit to be shown: who asked, addresses, secrets and what looks like one taken out. `as_it_begins` leaves what
    stands before a stamp in brackets, but for addresses: there one sees what a line is wrapped in.
    """

    def listed(match: re.Match[str]) -> str:
        shown = f"{match[1]}{match[2]}{match[1]}{match[3]}{match[1]}{REDACTED}{match[1]}"
        return shown if is_secret(match[2]) or is_secret_header(match[2]) else match[0]

    text = text.replace("\0", "")
    if not as_it_begins:
        text = _LOG_HEAD.sub("- - -", text)
    text = _LISTED.sub(listed, redacted(text, lambda name: None))
    text = _PASSWORD.sub(rf"\1{REDACTED}", text)
    text = _OPAQUE.sub(REDACTED, JWT.sub(REDACTED, text))
    return _IPV6.sub("(address)", _IPV4.sub("(address)", EMAIL.sub("(address)", text)))


def showable(line: bytes, chars: int, *, as_it_begins: bool = False) -> str:
    """A line fit to be shown on a terminal: scrubbed (see `scrub`), controls written out, cut to `chars` characters."""
    text = scrub(line[: 4 * chars].decode("utf-8", "backslashreplace"), as_it_begins=as_it_begins)
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown if len(shown) <= chars else shown[: chars - 1] + "…"

"""Finds secrets in texts.

A value is recognized by the name beside it, wherever the pair occurs: in a URL, a header, a form, JSON, or a text
nested in one of these. The delimiters around it may be percent-encoded or escaped for JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote

from .escapes import EscapedPattern
from .secret_names import SET_COOKIE, is_secret, is_secret_header

REDACTED = "REDACTED"
"""Replaces a secret value in texts that are displayed."""


class Instead(Protocol):
    """Supplies the replacements of secrets."""

    def value(self, text: str, name: str) -> str:
        """Return the replacement of a value that is secret because of the name beside it."""
        ...

    def credentials(self, scheme: str, text: str) -> str:
        """Return the replacement of a scheme (`Bearer `) and the credentials after it."""
        ...

    def structure(self, text: str, name: str, quote: str) -> str:
        """Return the replacement of a JSON object or array whose strings are delimited by `quote`."""
        ...

    def bare(self, text: str, name: str, quote: str) -> str:
        """Return the replacement of an unquoted JSON value."""
        ...

    def user_info(self, text: str) -> None:
        """Record that the user info of a URL was removed."""
        ...


class Shown:
    """Replaces every secret by one fixed word, for texts that are displayed."""

    def value(self, text: str, name: str) -> str:
        """Return the fixed word."""
        return REDACTED

    def credentials(self, scheme: str, text: str) -> str:
        """Return the scheme, followed by the fixed word."""
        return scheme + REDACTED

    def structure(self, text: str, name: str, quote: str) -> str:
        """Return the fixed word in quotes."""
        return f"{quote}{REDACTED}{quote}"

    bare = structure

    def user_info(self, text: str) -> None:
        """Do nothing, because user info is removed without a replacement."""


CODED = r"%(?:25){0,4}"


def coded_marks(characters: str) -> str:
    """Return a pattern for any of these characters, in every encoding in which they may be written.

    They may be literal, percent-encoded (up to five times), or escaped for JSON or a log.
    """
    codes = "|".join(
        f"{code:02X}"
        if f"{code:02X}".isdigit()
        else "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in f"{code:02X}")
        for code in map(ord, characters)
    )
    return rf"(?:[{re.escape(characters)}]|{CODED}(?:{codes})|\\{{1,16}}(?:u00|x)(?:{codes}))"


QUOTE = r"(?:\\{0,16}[\"']|%(?:25){0,4}2[27]|\\{1,16}(?:u00|x)2[27]|&(?:quot|\#34|\#39);)"
_BLANK = r"(?:[ \t]|\+|%(?:25){0,4}20){0,8}"
"""All repetitions are bounded, so that the time of a search is linear in the length of the text."""
_OPERATOR = EscapedPattern(
    rf"(?P<quote>{QUOTE})?{_BLANK}(?P<mark>{coded_marks('=:')}(?:>)?)",
    plain=r"(?P<quote>[\"'])?[ \t+]{0,8}(?P<mark>[=:]>?)",
    marks="%\\&",
)
_NAME_AT_END = re.compile(r"[\w.\[\]$-]+\Z")
_ESCAPED = re.compile(r"\\{1,16}(?:u00|x)([0-9A-Fa-f]{2})")
_NAME_CHARS_MAX = 120
DECODED_TIMES = 4
SIBLING_CHARS_MAX = 400
_QUOTE_AT = re.compile(rf"{_BLANK}({QUOTE})")
_OPENING_AT = re.compile(rf"{_BLANK}{coded_marks('[{')}")
_BLANK_AT = re.compile(_BLANK)
_AFTER_COLON = re.compile(rf"{_BLANK}(?:(?:Bearer|Basic|Digest)(?:[ +]|%(?:25){{0,4}}20)+)?", re.IGNORECASE)
_BRACKET = re.compile(rf"(?P<open>{coded_marks('[{')})|{coded_marks(']}')}")
_LITERAL = re.compile(r"(?:null|true|false)(?![\w-])")
_LINE_END = re.compile(r"[\r\n\"]|\\[rn]|%(?:25)*0[AaDd]")
_IN_JSON = re.compile(r"[\w.+-]*")
_VALUE_NAMES = frozenset({"value", "val", "values", "v"})
_SIBLING = re.compile(
    rf"(?<![A-Za-z])(?:name|key|header|field|param|parameter|k){QUOTE}?{_BLANK}{coded_marks('=:')}{_BLANK}{QUOTE}?((?:(?!{QUOTE})[\w.$%\[\]-])+)",
    re.IGNORECASE,
)
_OBJECT_MARK = re.compile(rf"{coded_marks('{}')}|[<>\r\n]")


@lru_cache(64)
def _value_end(level: int, stops: str) -> re.Pattern[str]:
    """Return a pattern for the end of an unquoted value.

    It matches a delimiter that is percent-encoded as many times as the one before the value (`level`), or fewer.
    """
    plain = re.escape("&;#?\"'<> \t\r\n" + stops)
    coded = rf"|%(?:25){{0,{level - 1}}}(?:2[0236]|3[BbCcEe]|0[AaDd])" if level else ""
    return re.compile(rf"[{plain}]|\\(?![/u])|\\u00(?:2[267]|3[ce])|&quot{coded}")


class Span(NamedTuple):
    """The position of a secret value, the name beside it, and how it is written."""

    begin: int
    end: int
    name: str
    form: Literal["value", "structure", "bare"] = "value"
    quote: str = ""


def _quoted_end(text: str, begin: int, quote: str) -> int:
    """Return where the string that begins after `quote` ends.

    It ends at the next quote that is escaped equally or less, or at the end of the text.
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
    """Return whether a JSON key or header is the name of a secret.

    `user` and `address` do not count, because they are too common as keys.
    """
    lowered = name.lower()
    return (
        is_secret(name) or lowered == SET_COOKIE or (lowered.startswith("x-") and is_secret_header(lowered))
    )


def _sibling_is_secret(text: str, begin: int, end: int, *, may_be_cut: bool) -> bool:
    """Return whether the object around a `value` marks it as secret (`{"name": "token", "value": ...}`).

    If no sibling names the value, the result is true only if `may_be_cut` is set and the text ends within the object,
    which may then have been cut off. Parameters (`v=1`) are not in an object, so that `may_be_cut` is false for them.
    """
    first = max(0, begin - SIBLING_CHARS_MAX)
    first = max((found.end() for found in _OBJECT_MARK.finditer(text, first, begin)), default=first)
    last = min(len(text), end + SIBLING_CHARS_MAX)
    closing = _OBJECT_MARK.search(text, end, last)
    last = closing.start() if closing else last
    names = [_decoded(found[1]) for found in _SIBLING.finditer(text, first, last)]
    return any(map(_is_secret_beside_colon, names)) if names else may_be_cut and last == len(text)


def _decoded(text: str) -> str:
    for _ in range(DECODED_TIMES):
        if "%" not in text:
            break
        text = unquote(text, "latin-1")
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "\\" in text else text


def _name_before(text: str, end: int) -> str:
    """Return the decoded name that ends at `end`."""
    found = _NAME_AT_END.search(_decoded(text[max(0, end - _NAME_CHARS_MAX) : end]))
    return found[0].strip(".") if found else ""


def _secret_value(text: str, found: re.Match[str], stops: str, in_url: bool) -> Span | None:
    """Return the secret value after an operator (`=`, `:`); None if there is none.

    The name before the operator marks it as secret. A `value` may be marked by a name in the same object.
    """
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
        if not _sibling_is_secret(text, found.start(), end, may_be_cut=is_colon):
            return None
    if string:
        return Span(string.end(), _quoted_end(text, string.end(), string[1]), name)
    if (is_colon or quote) and _OPENING_AT.match(text, begin):
        return Span(begin, _bracket_end(text, begin), name, "structure", quote)
    if is_colon and quote:
        begin = _BLANK_AT.match(text, begin).end()  # type: ignore[union-attr]
        bare = _IN_JSON.match(text, begin)
        end = bare.end() if bare else begin
        return None if _LITERAL.match(text, begin) else Span(begin, end, name, "bare", quote)
    if is_colon:
        begin = _AFTER_COLON.match(text, begin).end()  # type: ignore[union-attr]
    if is_colon and not in_url:
        ending = _LINE_END.search(text, begin)
    elif mark == ":" and stops:
        return None
    else:
        level = 0 if mark[0] != "%" else 1 + (len(mark) - 3) // 2
        ending = _value_end(level, stops).search(text, begin)
    return Span(begin, ending.start() if ending else len(text), name)


def _secret_spans(text: str, stops: str, in_url: bool) -> Iterator[Span]:
    """Yield the secret values of a text from left to right.

    Secrets are not searched for nested ones.
    """
    done = 0
    for found in _OPERATOR.finditer(text):
        if found.start() < done:
            continue
        span = _secret_value(text, found, stops, in_url)
        if span is not None and span.end > span.begin and not text.startswith(REDACTED, span.begin):
            yield span
            done = span.end


def _replaced(text: str, spans: Iterator[Span], instead: Instead) -> str:
    pieces, at = [], 0
    for span in spans:
        value = text[span.begin : span.end]
        if span.form == "value":
            shown = instead.value(value, span.name)
        elif span.form == "bare":
            shown = instead.bare(value, span.name, span.quote)
        else:
            shown = instead.structure(value, span.name, span.quote)
        pieces += [text[at : span.begin], shown]
        at = span.end
    return "".join([*pieces, text[at:]]) if pieces else text


_SCHEME = re.compile(
    r"\b((?:Bearer|Basic|Digest|Negotiate|NTLM|Token|ApiKey|AWS4-HMAC-SHA256)(?:[ \t]+|%(?:25)*20|\+|:[ ]*))"
    r"(?!REDACTED)(?=[^\s\"'&,;\\]*(?-i:[A-Z0-9=_])|[^\s\"'&,;\\]{16})[^\s\"'&,;\\]{3,}",
    re.IGNORECASE,
)
_USER_INFO = re.compile(
    rf"((?::|{CODED}3[Aa]|(?<![\w:.-]))(?:\\{{0,4}}/|{CODED}2[Ff]){{2}})"
    rf"((?:(?!{CODED}(?:2[Ff]|3[Ff]|23|22|20))[^/\s\"'<>?#\\])+)(?:@|{CODED}40)"
)
_PART_OF_FORM = re.compile(
    r"(name=\\{0,4}\"?([^\"\\;\r\n]{1,100})\\{0,4}\"?[^\r\n]{0,200}?(?:\r?\n[^\r\n]{1,200}){0,4}?(?:\r?\n\r?\n|(?:\\r)?\\n(?:\\r)?\\n))(.*?)"
    r"(?=\r?\n--|(?:\\r)?\\n--|\Z)",
    re.DOTALL,
)


_MAY_HOLD = re.compile(r"[:=%\\ +]|//")


def redacted(text: str, instead: Instead, stops: str = "", *, in_url: bool = False) -> str:
    """Replace the secrets in a text: values beside a secret's name, credentials after their scheme, user info of URLs.

    With `in_url`, an unquoted value ends at the next delimiter, as in paths and queries. `stops` are the delimiters
    of a path, where a bare colon has no meaning (`/v1/key:rotate`).
    """
    if _MAY_HOLD.search(text) is None:
        return text

    def part(match: re.Match[str]) -> str:
        if not is_secret(match[2]) or not match[3] or match[3].startswith(REDACTED):
            return match[0]
        return match[1] + instead.value(match[3], match[2])

    def user(match: re.Match[str]) -> str:
        instead.user_info(match[2])
        return match[1]

    if "form-data" in text:
        text = _PART_OF_FORM.sub(part, text)
    # Few texts have both characters of user info, and the search for it is slow.
    if ("@" in text or "40" in text) and ("/" in text or "%" in text):
        text = _USER_INFO.sub(user, text)
    text = _replaced(text, _secret_spans(text, stops, in_url), instead)
    return _SCHEME.sub(lambda match: instead.credentials(match[1], match[0][len(match[1]) :]), text)

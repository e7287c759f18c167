"""Makes texts from outside safe for a terminal, a page, a spreadsheet or a script.

Hosts, routes, tags, names of files and of certificates have the values that the author of the recording chose. An
escape sequence in one could move the cursor or set the clipboard, a bidirectional override could reverse a line,
a leading `=` could run as a formula.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

_UNSAFE_CLASS = (
    "\x00-\x1f\x7f-\x9f"  # C0 controls, DEL and C1 controls
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiners and fillers without width
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # zero width, line separators, directions
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"  # fillers, variation selectors, the byte order mark, specials
    "\ud800-\udfff"  # surrogates: bytes of names that are not UTF-8
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # shorthand and music formats, tags and selectors
)
_UNSAFE = re.compile(f"[{_UNSAFE_CLASS}]")
_UNSAFE_LINES = re.compile(f"(?!\n)[{_UNSAFE_CLASS}]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_FORMULA = re.compile(r"[\s\0]*[=+\-@\t\r\n|%\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


def without_user(text: str) -> str:
    """Remove user names and passwords from the URLs in a text.

    A URL in single quotes may lack its scheme: `'user:password@host'`.
    """
    return re.sub(r"(//|')[^/?#\s']*@", r"\1", text)


def _written(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        # PEP 383 maps a byte of a name that is not UTF-8 to this range.
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(text: str, *, lines: bool = False) -> str:
    """Return a text with every invisible or unsafe character written as an escape; `lines` keeps line breaks."""
    if text.isascii() and text.isprintable():
        return text
    return (_UNSAFE_LINES if lines else _UNSAFE).sub(_written, text)


def json_shown(data: bytes) -> bytes:
    r"""Return JSON with the same values, in which unsafe characters are escaped (`\u202e`).

    Line breaks and tabs are kept; other unsafe characters occur only within the strings of a JSON text.
    """

    def escaped(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))

    text = data.decode("utf-8", "surrogateescape")
    if text.isascii() and "\x7f" not in text:
        return data
    return re.sub(f"(?![\n\r\t])[{_UNSAFE_CLASS}]", escaped, text).encode("utf-8", "surrogateescape")


def without_surrogates(value: Any) -> Any:
    r"""Return a value for JSON in which bytes that are not UTF-8 are written as escapes (`\xff`).

    Names of files may have such bytes, and JSON cannot contain them.
    """
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATES.sub(_written, value)
    if isinstance(value, dict):
        return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list | tuple) else value


def csv_cell(text: str) -> str:
    """Return a cell that a spreadsheet does not run: text like a formula gets an apostrophe. A number is unchanged."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def html_table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return an HTML table for notebooks, whose cells are plain text and which loads nothing; "" without rows."""

    def row(cells: Sequence[str], tag: str = "td") -> str:
        made = (f'<{tag} style="text-align:left">{html.escape(shown(cell))}</{tag}>' for cell in cells)
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row(cells) for cells in rows)
    head = f"<thead>{row(heads, 'th')}</thead>" if heads else ""
    title = f'<caption style="text-align:left">{html.escape(shown(caption))}</caption>'
    return f"<table>{title}{head}<tbody>{body}</tbody></table>" if body else ""

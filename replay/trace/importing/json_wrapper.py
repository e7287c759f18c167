r"""Unwraps access lines that log collectors put inside JSON.

Filebeat, Vector and Logstash put the line in `message`, Fluent Bit and docker's json-file (if its keys are in another
order than usual) in `log`, journald in `MESSAGE`, Google Cloud in `textPayload`, Splunk in `_raw`. The wrapper is
removed if, in most of the first lines, the text contains a request (`"GET /a HTTP/1.1"`, or JSON or pairs with a
method) and the object around it has no method of its own.
"""

from __future__ import annotations

import re

import msgspec

_KEYS = rb'"(?:log|message|MESSAGE|msg|textPayload|line|_raw|@message)"'
_TEXT = rb'((?:[^"\\\n]|\\.)*)'
_OWN_REQUEST = (
    rb'"(?:method|verb|[\w.-]*[_.]method|requestMethod|httpMethod|RequestMethod|httpRequest|request|req|request_uri|ClientRequest\w+)"'
    rb"[ \t]*:"
)
_OF_A_REQUEST = rb'(?:[^"\\\n]|\\.)*(?:\\"[A-Z]{3,16} [^ \n]+ HTTP/\d|\\"(?:request_)?method\\"|\bmethod=|Started [A-Z]+ )'

PATTERN = re.compile(
    rb'^(?!\{"log":"(?:[^"\\\n]|\\.)*\\n")(?=\{)(?![^\n]*'
    + _OWN_REQUEST
    + rb")[^\n]*?"
    + _KEYS
    + rb'[ \t]*:[ \t]*"'
    rb"(?=" + _OF_A_REQUEST + rb")" + _TEXT + rb'"[^\n]*\n',
    re.MULTILINE,
)
"""Matches a JSON line with a request in its text.

It excludes docker's json-file with its keys in the usual order, because docker's own wrapper joins the parts of
lines.
"""

_ANY = re.compile(rb"^\{[^\n]*?" + _KEYS + rb'[ \t]*:[ \t]*"' + _TEXT + rb'"[^\n]*\n', re.MULTILINE)


def _text_of(found: re.Match[bytes]) -> bytes:
    try:
        text: str = msgspec.json.decode(b'"%s"' % found[1])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return found[0]
    return text.encode("utf-8", "replace").rstrip(b"\r\n") + b"\n"


def unwrap(data: bytes) -> bytes:
    """Replace each JSON line that has one of the collectors' keys by the text under that key.

    All other lines, and lines in which the text is not valid JSON, are unchanged.
    """
    return _ANY.sub(_text_of, data)

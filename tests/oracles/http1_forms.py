"""Forms of answers, and what the parser must make of each: what the published suites of other HTTP clients cover.

The forms are those that llhttp's, curl's and h11's suites try (what frames a body, what a line may hold, what a proxy or a
broken server sends); texts and bytes are our own. Where those three disagree, the comment says whom we follow.
"""
# ruff: noqa: E501 (a form is a line)

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from replay_native.http1 import parser as http1

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Form:
    """An answer, and how it must be read: `whole`, `more` (not yet whole) or `malformed` (with a reason)."""

    name: str
    data: bytes
    state: str = "whole"
    status: int = 200
    body: int = 0
    keeps: bool = True
    head: bool = False
    eof: bool = False
    reason: int = http1.NO_REASON


def whole(
    name: str, data: bytes, body: int = 0, status: int = 200, *, keeps: bool = True, head: bool = False
) -> Form:
    return Form(name, data, "whole", status, body, keeps, head)


def until_close(name: str, data: bytes, body: int, status: int = 200) -> Form:
    return Form(name, data, "whole", status, body, keeps=False, eof=True)


def malformed(name: str, data: bytes, reason: int) -> Form:
    return Form(name, data, "malformed", reason=reason)


def more(name: str, data: bytes) -> Form:
    return Form(name, data, "more")


STATUS_LINES = [
    whole("no reason, with its space", b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
    whole("no reason, no space", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"),
    whole("no reason, bare line feed", b"HTTP/1.1 200\nContent-Length: 0\n\n"),
    whole("a second space before the reason", b"HTTP/1.1 200  Fine\r\nContent-Length: 0\r\n\r\n"),
    whole("a reason in UTF-8", "HTTP/1.1 200 Très bien\r\nContent-Length: 0\r\n\r\n".encode()),
    whole("a reason in Latin-1", b"HTTP/1.1 500 Op\xe9ration\r\nContent-Length: 0\r\n\r\n", status=500),
    whole("a reason that is a status line", b"HTTP/1.1 234 200 OK\r\nContent-Length: 0\r\n\r\n", status=234),
    whole("a long reason", b"HTTP/1.1 200 " + b"w" * 4_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    whole("a tab in the reason", b"HTTP/1.1 200 a\tb\r\nContent-Length: 0\r\n\r\n"),
    whole("a version of the future", b"HTTP/1.9 200 OK\r\nContent-Length: 3\r\n\r\nxyz", 3),
    whole("no registered status", b"HTTP/1.1 299 Odd\r\nContent-Length: 1\r\n\r\n!", 1, 299),
    whole("the last status", b"HTTP/1.1 599 Odd\r\nContent-Length: 1\r\n\r\n!", 1, 599),
    malformed("a letter of the name is missing", b"HTP/1.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("the name in lower case", b"http/1.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("a zero before the version", b"HTTP/01.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("two digits before the dot", b"HTTP/11.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("two digits behind the dot", b"HTTP/1.01 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("version 2 in the words of 1", b"HTTP/2.0 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("version 2 without a dot", b"HTTP/2 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("version 3", b"HTTP/3.0 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("version 5.6", b"HTTP/5.6 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("version 0.9", b"HTTP/0.9 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("no digit behind the dot", b"HTTP/1. 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("a tab behind the version", b"HTTP/1.1\t200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("no space behind the version", b"HTTP/1.1200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("another protocol's greeting", b"220 mail.example ESMTP ready\r\n", http1.NOT_HTTP),
    malformed("a page without a head", b"<!doctype html><title>x</title>", http1.NOT_HTTP),
    malformed("an alert of TLS", b"\x15\x03\x01\x00\x02\x02\x46", http1.NOT_HTTP),
    malformed("the preface of version 2", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", http1.NOT_HTTP),
    malformed("a streaming radio's answer", b"ICY 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("another protocol with a status", b"RTSP/1.0 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("an empty line first", b"\r\nHTTP/1.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("a space first", b" HTTP/1.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("a byte order mark first", b"\xef\xbb\xbfHTTP/1.1 200 OK\r\n\r\n", http1.NOT_HTTP),
    malformed("two spaces before the status", b"HTTP/1.1  200 OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a status of one digit", b"HTTP/1.1 2 OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a status of two digits", b"HTTP/1.1 20 OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a status with letters", b"HTTP/1.1 2xx OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a status with a sign", b"HTTP/1.1 -20 OK\r\n\r\n", http1.BAD_STATUS),
    malformed("a tab behind the status", b"HTTP/1.1 200\tOK\r\n\r\n", http1.BAD_STATUS),
    malformed("no status", b"HTTP/1.1 \r\n\r\n", http1.BAD_STATUS),
    malformed("a status below 100", b"HTTP/1.1 099 Low\r\n\r\n", http1.STATUS_RANGE),
    malformed("a status of zero", b"HTTP/1.1 000 None\r\n\r\n", http1.STATUS_RANGE),
    malformed("NUL in the reason", b"HTTP/1.1 200 O\x00K\r\n\r\n", http1.CONTROL_CHARACTER),
    malformed("a carriage return in the reason", b"HTTP/1.1 200 O\rK\r\n\r\n", http1.BARE_CR),
    malformed("an upgrade", b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nContent-Length: 4\r\n\r\nbody", http1.SWITCHING),
    more("nothing", b""),
    more("half a version", b"HTTP/1"),
    more("half a status", b"HTTP/1.1 20"),
    more("a status line alone", b"HTTP/1.1 200 OK\r\n"),
]  # fmt: skip

HEADERS = [
    whole("no space behind the colon", OK + b"Content-Length:2\r\n\r\nok", 2),
    whole("tabs and spaces around a value", OK + b"Content-Length: \t 2 \t\r\n\r\nok", 2),
    whole("names in any case", OK + b"cOnTeNt-LeNgTh: 2\r\n\r\nok", 2),
    whole("an empty value", OK + b"X-Empty:\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("a value of spaces", OK + b"X-Empty:    \r\nContent-Length: 2\r\n\r\nok", 2),
    whole("every token character", OK + b"a!#$%&'*+-.^_`|~9Z: x\r\nContent-Length: 0\r\n\r\n"),
    whole("bytes above 127 in a value", OK + b"X: \x80\xff\xfe\r\nContent-Length: 0\r\n\r\n"),
    whole("DEL in a value", OK + b"X: \x7f\r\nContent-Length: 0\r\n\r\n"),
    whole("bare line feeds", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 2),
    whole("line ends of both kinds", b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\nok", 2),
    whole("a folded value", OK + b"X: one\r\n two\r\n\tthree\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("a value that begins on the next line", OK + b"Content-Length:\r\n 2\r\n\r\nok", 2),
    whole("a fold of spaces alone", OK + b"Content-Length: 2\r\n  \r\n\r\nok", 2),
    whole("a colon in a value", OK + b"X: a: b:c\r\nContent-Length: 0\r\n\r\n"),
    whole("quotes that do not end", OK + b'X: "open\r\nContent-Length: 0\r\n\r\n'),
    whole("a name that begins as another", OK + b"Content-Length-X: 9\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("a name that others begin with", OK + b"Content: 9\r\nConnect: close\r\nContent-Length: 0\r\n\r\n"),
    whole("a long value", OK + b"X: " + b"v" * 20_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    whole("many headers", OK + b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(500)) + b"Content-Length: 0\r\n\r\n"),
    whole("a cookie with all that it may hold", OK + b"Set-Cookie: a=b; Path=/; Max-Age=0\r\nContent-Length: 0\r\n\r\n"),
    malformed("a space in a name", OK + b"Bad Name: x\r\n\r\n", http1.BAD_NAME),
    malformed("a space before the colon", OK + b"Content-Length : 2\r\n\r\nok", http1.BAD_NAME),
    malformed("no name", OK + b": x\r\n\r\n", http1.BAD_NAME),
    malformed("no colon", OK + b"Lonely\r\n\r\n", http1.BAD_NAME),
    malformed("a bracket in a name", OK + b"X(1): x\r\n\r\n", http1.BAD_NAME),
    malformed("NUL in a name", OK + b"X\x00: x\r\n\r\n", http1.BAD_NAME),
    malformed("a name in UTF-8", OK + "Größe: 1\r\n\r\n".encode(), http1.BAD_NAME),
    malformed("NUL in a value", OK + b"X: a\x00b\r\n\r\n", http1.CONTROL_CHARACTER),
    malformed("a vertical tab in a value", OK + b"X: a\x0bb\r\n\r\n", http1.CONTROL_CHARACTER),
    malformed("a form feed in a value", OK + b"X: a\x0cb\r\n\r\n", http1.CONTROL_CHARACTER),
    malformed("headers apart by a carriage return", OK + b"X: 1\rY: 2\r\n\r\n", http1.BARE_CR),
    malformed("an empty line by a carriage return", OK + b"X: 1\r\n\rbody", http1.BARE_CR),
    malformed("a fold behind the status line", OK + b" X: 1\r\n\r\n", http1.BAD_FOLD),
    malformed("a tab behind the status line", OK + b"\tX: 1\r\n\r\n", http1.BAD_FOLD),
    malformed("a head without end", OK + b"X: " + b"a" * 70_000, http1.TOO_LONG),
    more("a head without its empty line", OK + b"Content-Length: 0\r\n"),
    more("half an empty line", OK + b"Content-Length: 0\r\n\r"),
]  # fmt: skip

LENGTHS = [
    whole("a body of its length", OK + b"Content-Length: 11\r\n\r\nhello world", 11),
    whole("no body", OK + b"Content-Length: 0\r\n\r\n"),
    whole("zeros before the length", OK + b"Content-Length: 000000000000000000000000000002\r\n\r\nok", 2),
    whole("the same length twice", OK + b"Content-Length: 2\r\nX: 1\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("the same length twice in a line", OK + b"Content-Length: 2, 2\r\n\r\nok", 2),
    whole("the same length in three ways", OK + b"Content-Length: 2 ,\t2\r\ncontent-length:2\r\n\r\nok", 2),
    whole("a body that looks like an answer", OK + b"Content-Length: 19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 19),
    whole("a body of zero bytes", OK + b"Content-Length: 3\r\n\r\n\x00\x00\x00", 3),
    whole("no body after 204", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", status=204),
    whole("no chunks after 204", b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", status=204),
    whole("no body after 304", b"HTTP/1.1 304 Same\r\nContent-Length: 5000\r\n\r\n", status=304),
    whole("no chunks after 304", b"HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n", status=304),
    whole("204 without a length", b"HTTP/1.1 204 No\r\n\r\n", status=204),
    whole("a body after 205", b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", status=205),
    whole("no body to HEAD", OK + b"Content-Length: 500\r\n\r\n", head=True),
    whole("no chunks to HEAD", CHUNKED, head=True),
    whole("nothing that frames, to HEAD", OK + b"\r\n", head=True),
    until_close("a body until the close", OK + b"\r\nsome text", 9),
    until_close("no body until the close", OK + b"\r\n", 0),
    until_close("a body of version 1.0", b"HTTP/1.0 200 OK\r\n\r\nold text", 8),
    until_close("keep-alive without a length", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nHTTP/1.0 200 OK", 15),
    until_close("an answer in an answer's body", OK + b"\r\nHTTP/1.1 200 OK\r\n\r\n", 19),
    until_close("an upgrade that was not made", OK + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\nbody", 4),
    until_close("206 without a length", b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-3/9\r\n\r\npart", 4, 206),
    malformed("two lengths", OK + b"Content-Length: 5, 6\r\n\r\nhello", http1.TWO_LENGTHS),
    malformed("two lengths in two lines", OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", http1.TWO_LENGTHS),
    malformed("a length written in two ways", OK + b"Content-Length: 5\r\nContent-Length: 05\r\n\r\n", http1.TWO_LENGTHS),
    malformed("a negative length", OK + b"Content-Length: -5\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length with a plus", OK + b"Content-Length: +5\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length with a space in it", OK + b"Content-Length: 4 2\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length folded in two", OK + b"Content-Length: 4\r\n 2\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length with a point", OK + b"Content-Length: 4.0\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length in hexadecimal", OK + b"Content-Length: 0x5\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length and a semicolon", OK + b"Content-Length: 12;\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length of letters", OK + b"Content-Length: many\r\n\r\n", http1.BAD_LENGTH),
    malformed("an empty length", OK + b"Content-Length:\r\n\r\n", http1.BAD_LENGTH),
    malformed("an empty part of a length", OK + b"Content-Length: 5,\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length of 2^63", OK + b"Content-Length: 9223372036854775808\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length of 2^64", OK + b"Content-Length: 18446744073709551616\r\n\r\n", http1.BAD_LENGTH),
    malformed("a length of thirty digits", OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", http1.BAD_LENGTH),
    more("a body cut short", OK + b"Content-Length: 11\r\n\r\nhello"),
    more("the longest length", OK + b"Content-Length: 9223372036854775807\r\n\r\nhello"),
]  # fmt: skip

CHUNKS = [
    whole("two chunks", CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 11),
    whole("no chunk", CHUNKED + b"0\r\n\r\n"),
    whole("a size in capitals", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", 10),
    whole("a size in both cases", CHUNKED + b"1f\r\n" + b"x" * 31 + b"\r\n1F\r\n" + b"y" * 31 + b"\r\n0\r\n\r\n", 62),
    whole("zeros before a size", CHUNKED + b"00000000000000000000000002\r\nok\r\n000\r\n\r\n", 2),
    whole("spaces behind a size", CHUNKED + b"2  \r\nok\r\n0 \r\n\r\n", 2),
    whole("a tab behind a size", CHUNKED + b"2\t\r\nok\r\n0\r\n\r\n", 2),
    whole("an extension", CHUNKED + b"2;name=value\r\nok\r\n0;last\r\n\r\n", 2),
    whole("an extension without a name", CHUNKED + b"2;\r\nok\r\n0\r\n\r\n", 2),
    whole("a space before an extension", CHUNKED + b"2 ;a=b\r\nok\r\n0 ; c\r\n\r\n", 2),
    whole("white space around all of an extension", CHUNKED + b"2 \t ; a = b ;\tc\r\nok\r\n0\r\n\r\n", 2),
    whole("a quoted extension", CHUNKED + b'2;a="x; y";b="\\""\r\nok\r\n0\r\n\r\n', 2),
    whole("a quote that does not end", CHUNKED + b'2;a="x\r\nok\r\n0\r\n\r\n', 2),
    whole("a trailer", CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", 2),
    whole("trailers that frame nothing", CHUNKED + b"0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"),
    whole("a folded trailer", CHUNKED + b"0\r\nX: one\r\n two\r\n\r\n"),
    whole("trailers by bare line feeds", CHUNKED + b"0\r\nX: one\n\n"),
    whole("data that looks like chunks", CHUNKED + b"7\r\n0\r\n\r\n0\r\r\n0\r\n\r\n", 7),
    whole("chunks and a length", OK + b"Content-Length: 999\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2),
    whole("a length behind chunks", OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2),
    whole("chunks in capitals", OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2),
    whole("chunks said twice", OK + b"Transfer-Encoding: chunked\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2),
    whole("chunks said twice, apart", OK + b"Transfer-Encoding: chunked\r\nX: y\r\nTransfer-Encoding:chunked \r\n\r\n0\r\n\r\n"),
    whole("chunks of version 1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2, keeps=False),
    whole("a coding on the next line", OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    whole("a content coding is none of ours", OK + b"Content-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", 2),
    malformed("a coding before the chunks", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", http1.BAD_CODING),
    malformed("a coding behind the chunks", OK + b"Transfer-Encoding: chunked, deflate\r\n\r\n", http1.BAD_CODING),
    malformed("chunks and no coding", OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", http1.BAD_CODING),
    malformed("an empty coding", OK + b"Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", http1.BAD_CODING),
    malformed("a coding nobody knows", OK + b"Transfer-Encoding: pigeon\r\n\r\n", http1.BAD_CODING),
    malformed("the word twice as one", OK + b"Transfer-Encoding: chunkedchunked\r\n\r\n", http1.BAD_CODING),
    malformed("the word twice in a line", OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n", http1.BAD_CODING),
    malformed("a fold behind the word", OK + b"Transfer-Encoding: chunked\r\n abc\r\n\r\n", http1.BAD_CODING),
    malformed("a parameter of the coding", OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n", http1.BAD_CODING),
    malformed("a size of no digits", CHUNKED + b"\r\nok\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a size that is not a number", CHUNKED + b"xyz\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a negative size", CHUNKED + b"-1\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a size with 0x", CHUNKED + b"0x5\r\nhello\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a space before a size", CHUNKED + b" 5\r\nhello\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a word behind a size", CHUNKED + b"2 extra\r\nok\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a comma behind a size", CHUNKED + b"2,a=b\r\nok\r\n", http1.BAD_CHUNK_SIZE),
    malformed("an extension without a size", CHUNKED + b";a=b\r\nok\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a size of 2^63", CHUNKED + b"8000000000000000\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a size of 2^64", CHUNKED + b"10000000000000000\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a size of sixteen f", CHUNKED + b"ffffffffffffffff\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a bare line feed behind a size", CHUNKED + b"5\nhello\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a bare line feed behind an extension", CHUNKED + b"5;a\nhello\r\n", http1.BAD_CHUNK_SIZE),
    malformed("a bare carriage return behind a size", CHUNKED + b"5\rhello\r\n", http1.BARE_CR),
    malformed("a chunk that is longer", CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", http1.BAD_CHUNK_END),
    malformed("a chunk that is shorter", CHUNKED + b"7\r\nhello\r\n0\r\n\r\n", http1.BAD_CHUNK_END),
    malformed("a bare line feed behind a chunk", CHUNKED + b"5\r\nhello\n0\r\n\r\n", http1.BAD_CHUNK_END),
    malformed("a carriage return behind a chunk", CHUNKED + b"5\r\nhello\r0\r\n\r\n", http1.BAD_CHUNK_END),
    malformed("a trailer without a name", CHUNKED + b"0\r\n: x\r\n\r\n", http1.BAD_NAME),
    malformed("a fold as the first trailer", CHUNKED + b"0\r\n x\r\n\r\n", http1.BAD_FOLD),
    malformed("NUL in a trailer", CHUNKED + b"0\r\nX: \x00\r\n\r\n", http1.CONTROL_CHARACTER),
    malformed("an extension without end", CHUNKED + b"5;" + b"x" * 70_000, http1.TOO_LONG),
    more("a size alone", CHUNKED + b"1f"),
    more("the largest size", CHUNKED + b"7fffffffffffffff\r\nhello"),
    more("no last chunk", CHUNKED + b"5\r\nhello\r\n"),
    more("a last chunk without its empty line", CHUNKED + b"5\r\nhello\r\n0\r\n"),
]  # fmt: skip

CONNECTIONS = [
    whole("close", OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close in capitals", OK + b"CONNECTION: CLOSE\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close among others", OK + b"Connection: te,  close ,x\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close behind an empty part", OK + b"Connection: ,, close\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close in a second line", OK + b"Connection: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close on a folded line", OK + b"Connection: x,\r\n close\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("close and keep-alive", OK + b"Connection: keep-alive, close\r\nContent-Length: 0\r\n\r\n", keeps=False),
    whole("a word that begins with close", OK + b"Connection: closed\r\nContent-Length: 0\r\n\r\n"),
    whole("two words are none of ours", OK + b"Connection: close now\r\nContent-Length: 0\r\n\r\n"),
    whole("an empty Connection", OK + b"Connection:\r\nContent-Length: 0\r\n\r\n"),
    whole("the proxy's word is none of ours", OK + b"Proxy-Connection: close\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("version 1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2, keeps=False),
    whole("version 1.0 keeps", b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 2),
    whole("version 1.0 keeps without a body", b"HTTP/1.0 204 No\r\nConnection: keep-alive\r\n\r\n", status=204),
    whole("close without a body", b"HTTP/1.1 204 No\r\nConnection: close\r\n\r\n", status=204, keeps=False),
    whole("continue", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", 2),
    whole("hints, twice", b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 2 + OK + b"Content-Length: 2\r\n\r\nok", 2),
    whole("processing", b"HTTP/1.1 102 Processing\r\nX: 1\r\n\r\nHTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n", status=201),
    whole("what a hint says of the body", b"HTTP/1.1 103 Hints\r\nContent-Length: 9\r\nConnection: close\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    malformed("an upgrade behind a hint", b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 101 Up\r\n\r\n", http1.SWITCHING),
    malformed("no answer behind a hint", b"HTTP/1.1 103 Hints\r\n\r\nhello", http1.NOT_HTTP),
    more("a hint alone", b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n"),
]  # fmt: skip


def _mixed() -> list[Form]:
    """Every status line with every way to frame a body."""
    lines = {b"HTTP/1.1 200 OK\r\n": 200, b"HTTP/1.0 404 No\r\n": 404, b"HTTP/1.1 503\r\nServer: x\r\n": 503}
    bodies = {
        b"Content-Length: 4\r\n\r\nbody": 4,
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n": 4,
        b"Connection: keep-alive\r\nContent-Length: 0\r\n\r\n": 0,
        b"Connection: close\r\nContent-Length: 1\r\n\r\nx": 1,
    }
    found = []
    for (line, status), (rest, body) in product(lines.items(), bodies.items()):
        keeps = b"close" not in rest and (b"1.1" in line or b"keep-alive" in rest)
        found.append(whole(f"{line!r} with {rest!r}", line + rest, body, status, keeps=keeps))
    return found


FORMS = [*STATUS_LINES, *HEADERS, *LENGTHS, *CHUNKS, *CONNECTIONS, *_mixed()]

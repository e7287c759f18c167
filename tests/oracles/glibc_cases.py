"""Cases in which glibc and `replay` look up the same name: settings, hosts, and servers that fail in every way.

Server n of a case listens on 127.0.0.n; None is a server that is not there. A server is a dictionary of names: its
addresses `a`, an alias `cname`, and `fail`, how it fails by kind of record (`*`: both). `*silent`: it answers nothing.
"""

from __future__ import annotations

from typing import Any

OK4 = {"a": ["127.9.9.9"]}
OK6 = {"a": ["::9"]}
OK = {"a": ["127.9.9.9", "::9"]}


def c(
    label: str,
    name: str,
    servers: list[Any],
    conf: str = "",
    search: str = "",
    opts: str = "timeout:1 attempts:2",
    **k: Any,
) -> dict[str, Any]:
    text = "".join(f"nameserver 127.0.0.{i + 1}\n" for i in range(len(servers)))
    if search:
        text += f"search {search}\n"
    text += f"options {opts}\n" + conf
    return dict(label=label, name=name, servers=servers, conf=text, **k)


def f(how: str, kind: str = "*", **more: Any) -> dict[str, Any]:
    return {"fail": {kind: how}, **more}


HOW = ("SERVFAIL", "REFUSED", "NOTIMP", "FORMERR", "NXDOMAIN", "silence", "garbage", "lame")
CASES: list[dict[str, Any]] = []
for how in HOW:
    CASES.append(c(f"one server {how}", "a.example", [{"a.example": f(how)}]))
    CASES.append(
        c(f"A fine, AAAA {how}, 3 servers", "a.example", [{"a.example": {**OK4, "fail": {"AAAA": how}}}] * 3)
    )
    CASES.append(
        c(f"AAAA fine, A {how}, 3 servers", "a.example", [{"a.example": {**OK6, "fail": {"A": how}}}] * 3)
    )
    CASES.append(
        c(f"first server {how}, second fine", "a.example", [{"a.example": f(how)}, {"a.example": OK}])
    )
    CASES.append(c(f"three servers {how}", "a.example", [{"a.example": f(how)}] * 3))
    CASES.append(
        c(
            f"search, short name, first candidate {how}",
            "a",
            [{"a.one": f(how), "a.two": OK}],
            search="one two",
        )
    )
    CASES.append(
        c(
            f"search, ndots 5, all candidates {how}",
            "a.b",
            [{"a.b.one": f(how), "a.b.two": f(how), "a.b": f(how)}],
            search="one two",
            opts="ndots:5 timeout:1 attempts:1",
        )
    )
    CASES.append(
        c(
            f"as it is {how}, then search",
            "a.b",
            [{"a.b": f(how), "a.b.two": OK}],
            search="one two",
            opts="timeout:1 attempts:1",
        )
    )
    CASES.append(
        c(
            f"use-vc {how}",
            "a.example",
            [{"a.example": f(how)}, {"a.example": OK}],
            opts="use-vc timeout:1 attempts:1",
        )
    )
    CASES.append(
        c(
            f"edns0 {how}",
            "a.example",
            [{"a.example": f(how)}, {"a.example": OK}],
            opts="edns0 timeout:1 attempts:1",
        )
    )
    CASES.append(
        c(
            f"no-aaaa {how}",
            "a.example",
            [{"a.example": f(how)}, {"a.example": OK}],
            opts="no-aaaa timeout:1 attempts:1",
        )
    )
    CASES.append(
        c(
            f"single-request {how}",
            "a.example",
            [{"a.example": {**OK4, "fail": {"AAAA": how}}}, {"a.example": OK}],
            opts="single-request timeout:1 attempts:1",
        )
    )
CASES += [
    c("gone server", "a.example", [None]),
    c("gone, then fine", "a.example", [None, {"a.example": OK}]),
    c("gone, search", "a.b", [None], search="one two", opts="ndots:3 timeout:1 attempts:1"),
    c("gone, as is then search", "a.b", [None], search="one two", opts="timeout:1 attempts:1"),
    c("gone first, search", "a", [None, {"a.two": OK}], search="one two"),
    c("silent first", "a.example", [{"*silent": 1}, {"a.example": OK}]),
    c("silent all", "a.example", [{"*silent": 1}] * 3, opts="timeout:1 attempts:1"),
    c("silent all search", "a", [{"*silent": 1}] * 2, search="one two", opts="timeout:1 attempts:1"),
    c("truncated", "many.example", [{"many.example": {"a": [f"127.0.1.{n}" for n in range(1, 101)]}}]),
    c(
        "truncated both",
        "many.example",
        [
            {
                "many.example": {
                    "a": [f"127.0.1.{n}" for n in range(1, 101)] + [f"::{n:x}" for n in range(1, 60)]
                }
            }
        ],
    ),
    c(
        "truncated, second server",
        "many.example",
        [{"many.example": f("SERVFAIL")}, {"many.example": {"a": [f"127.0.1.{n}" for n in range(1, 101)]}}],
    ),
    c("no-tld-query", "a", [{"a": OK}], opts="no-tld-query timeout:1 attempts:1"),
    c("no-tld-query search", "a", [{"a": OK}], search="one", opts="no-tld-query timeout:1 attempts:1"),
    c("tld query search", "a", [{"a": OK}], search="one"),
    c("no-tld-query ndots0", "a", [{"a": OK}], search="one", opts="no-tld-query ndots:0"),
    c("127.1", "127.1", [{}]),
    c("hex", "0x7f000001", [{}]),
    c("decimal", "2130706433", [{}]),
    c("octal", "0177.0.0.1", [{}]),
    c("three", "127.0.1", [{}]),
    c("big", "4294967296", [{}]),
    c("09", "127.0.0.09", [{}]),
    c("address dot", "127.0.0.1.", [{}]),
    c("address space", "127.0.0.1 ", [{}]),
    c("v6 scope", "fe80::1%lo", [{}]),
    c("v6", "::1", [{}]),
    c("mapped", "::ffff:127.0.0.1", [{}]),
    c("bracket", "[::1]", [{}]),
    c("dot and hosts", "db.", [{"db": OK}], hosts="127.5.5.5 db\n"),
    c("hosts", "DB", [{"db": OK}], hosts="127.5.5.5 db\n::5 db\n"),
    c("hosts alias", "web", [{}], hosts="127.5.5.5 x web # y\n127.5.5.6 web\n"),
    c("hosts nss dns first", "db", [{"db": OK}], hosts="127.5.5.5 db\n", nss="hosts: dns files\n"),
    c("dns first missing", "db", [{}], hosts="127.5.5.5 db\n", nss="hosts: dns files\n"),
    c("dns notfound return", "db", [{}], hosts="127.5.5.5 db\n", nss="hosts: dns [NOTFOUND=return] files\n"),
    c(
        "dns !unavail return servfail",
        "db",
        [{"db": f("SERVFAIL")}],
        hosts="127.5.5.5 db\n",
        nss="hosts: dns [!UNAVAIL=return] files\n",
        opts="timeout:1 attempts:1",
    ),
    c("files only", "a.example", [{"a.example": OK}], nss="hosts: files\n"),
    c("no nss", "db", [{"db": OK}], hosts="127.5.5.5 db\n", nss=""),
    c("no nss 2", "a.example", [{"a.example": OK}], hosts="127.5.5.5 db\n", nss=""),
    c(
        "mdns minimal",
        "a.example",
        [{"a.example": OK}],
        nss="hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
    ),
    c(
        "mdns minimal local",
        "a.local",
        [{"a.local": OK}],
        nss="hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
    ),
    c("resolve", "a.example", [{"a.example": OK}], nss="hosts: files resolve [!UNAVAIL=return] dns\n"),
    c("myhostname", "localhost", [{}], nss="hosts: files myhostname dns\n"),
    c("localhost", "localhost", [{}], hosts=""),
    c("x.localhost", "x.localhost", [{}]),
    c("invalid", "a.invalid", [{}]),
    c("files notfound return", "a.example", [{"a.example": OK}], nss="hosts: files [NOTFOUND=return] dns\n"),
    c(
        "chain 20",
        "c0.example",
        [{**{f"c{n}.example": {"cname": f"c{n + 1}.example"} for n in range(20)}, "c20.example": OK}],
    ),
    c(
        "chain 5",
        "c0.example",
        [{**{f"c{n}.example": {"cname": f"c{n + 1}.example"} for n in range(5)}, "c5.example": OK}],
    ),
    c("rotate", "a.example", [{"a.example": OK}] * 3, opts="rotate timeout:1 attempts:1"),
    c("attempts 3 silent", "a.example", [{"*silent": 1}] * 2, opts="timeout:1 attempts:3"),
    c("root", ".", [{}]),
    c("empty label", "a..b", [{}]),
    c("long label", "x" * 64 + ".example", [{}]),
    c("underscore", "a_b.example", [{"a_b.example": OK}]),
    c("long name", ".".join(["x" * 60] * 5), [{}]),
    c("nodata", "a.example", [{"a.example": {"a": []}}]),
    c("nodata search", "a", [{"a.one": {"a": []}, "a.two": OK}], search="one two"),
    c("search root", "a", [{"a": OK}], search=". one"),
    c("search root last", "a", [{"a": OK}], search="one ."),
    c("comment on search", "a", [{}], conf="search one # two\n"),
    c("indented", "a.example", [{"a.example": OK}], conf=" options no-aaaa\n"),
    c("two search", "a", [{}], conf="search one\nsearch two three\n"),
    c("domain", "a", [{}], conf="domain one\n"),
    c("domain after search", "a", [{}], conf="search one two\ndomain three\n"),
    c("search after domain", "a", [{}], conf="domain three\nsearch one two\n"),
    c("seven search", "a", [{}], search="s1 s2 s3 s4 s5 s6 s7 s8"),
    c("ndots 20", "a.b.c", [{}], search="one", opts="ndots:20"),
    c("LOCALDOMAIN", "a", [{}], search="one", env={"LOCALDOMAIN": "x y"}),
    c("RES_OPTIONS", "a.b", [{}], search="one", env={"RES_OPTIONS": "ndots:2"}),
    c("ndots 0 option", "a", [{"a": OK}], search="one", opts="ndots:0"),
    c("trailing dot", "a.b.", [{}], search="one", opts="ndots:5"),
    c("four servers", "a.example", [{"a.example": f("SERVFAIL")}] * 4, opts="timeout:1 attempts:1"),
    c("idn", "bücher.example", [{"xn--bcher-kva.example": OK}]),
    c(
        "mixed: A servfail at 1, fine at 2",
        "a.example",
        [
            {"a.example": {"a": ["::9"], "fail": {"A": "SERVFAIL", "AAAA": "SERVFAIL"}}},
            {"a.example": {"a": ["127.9.9.9"], "fail": {"AAAA": "SERVFAIL"}}},
        ],
    ),
    c(
        "A nodata, AAAA servfail",
        "a.example",
        [{"a.example": {"a": [], "fail": {"AAAA": "SERVFAIL"}}}] * 2,
        search="one",
    ),
    c(
        "A nxdomain, AAAA servfail search",
        "a",
        [{"a.one": {"fail": {"A": "NXDOMAIN", "AAAA": "SERVFAIL"}}, "a.two": OK}],
        search="one two",
    ),
    c(
        "A silence, AAAA nodata",
        "a.example",
        [{"a.example": {"a": [], "fail": {"A": "silence"}}}] * 2,
        opts="timeout:1 attempts:1",
    ),
    c(
        "A silence, AAAA fine, 1 server",
        "a.example",
        [{"a.example": {**OK6, "fail": {"A": "silence"}}}],
        opts="timeout:1 attempts:1",
    ),
    c(
        "two AAAA silent candidates",
        "a",
        [{"a.one": {"a": [], "fail": {"AAAA": "silence"}}, "a.two": OK}],
        search="one two",
        opts="timeout:1 attempts:1",
    ),
]
CASES += [
    c(
        "single-request A SERVFAIL",
        "a.example",
        [{"a.example": {**OK6, "fail": {"A": "SERVFAIL"}}}, {"a.example": OK}],
        opts="single-request timeout:1 attempts:1",
    ),
    c("single-request both fine", "a.example", [{"a.example": OK}], opts="single-request"),
    c("single-request-reopen", "a.example", [{"a.example": OK}], opts="single-request-reopen"),
    c(
        "single A truncated",
        "many.example",
        [{"many.example": {"a": [f"127.0.1.{n}" for n in range(1, 101)]}}],
        opts="single-request",
    ),
    c("dangling alias", "a.b", [{"a.b": {"cname": "none.example"}}], search="one two"),
    c(
        "alias to nodata",
        "a.b",
        [{"a.b": {"cname": "none.example"}, "none.example": {"a": []}}],
        search="one two",
    ),
    c(
        "dangling in search",
        "a",
        [{"a.one": {"cname": "none.example"}, "none.example": {"a": []}, "a.two": OK}],
        search="one two",
    ),
    c(
        "servfail then silent candidates",
        "a",
        [{"a.one": f("SERVFAIL"), "a.two": f("silence"), "a.three": OK}],
        search="one two three",
        opts="timeout:1 attempts:1",
    ),
    c(
        "nxdomain then silent candidates",
        "a",
        [{"a.two": f("silence"), "a.three": OK}],
        search="one two three",
        opts="timeout:1 attempts:1",
    ),
    c("use-vc gone then fine", "a.example", [None, {"a.example": OK}], opts="use-vc timeout:1 attempts:1"),
    c("use-vc fine", "a.example", [{"a.example": OK}], opts="use-vc"),
    c(
        "use-vc search servfail",
        "a",
        [{"a.one": f("SERVFAIL"), "a.two": OK}],
        search="one two",
        opts="use-vc timeout:1 attempts:1",
    ),
    c(
        "truncated search",
        "many",
        [{"many.two": {"a": [f"127.0.1.{n}" for n in range(1, 101)]}}],
        search="one two",
    ),
    c(
        "truncated AAAA only",
        "many.example",
        [{"many.example": {"a": ["127.0.0.5"] + [f"::{n:x}" for n in range(1, 80)]}}],
    ),
    c(
        "nss tryagain",
        "a.example",
        [{"a.example": f("silence")}],
        hosts="127.4.4.4 a.example\n",
        nss="hosts: dns [TRYAGAIN=return] files\n",
        opts="timeout:1 attempts:1",
    ),
    c(
        "nss unavail return",
        "a.example",
        [{"a.example": f("silence")}],
        hosts="127.4.4.4 a.example\n",
        nss="hosts: dns [UNAVAIL=return] files\n",
        opts="timeout:1 attempts:1",
    ),
    c(
        "nss tabs comment",
        "a.example",
        [{"a.example": OK}],
        hosts="127.4.4.4 a.example\n",
        nss="# x\npasswd: files\n hosts:\tdns files # files\n",
    ),
    c("nss case", "a.example", [{"a.example": OK}], nss="hosts: files [notfound=RETURN] dns\n"),
    c("two hosts lines", "a.example", [{"a.example": OK}], nss="hosts: files\nhosts: dns\n"),
    c("conf no servers", "a.example", [{"a.example": OK}], env={}),
    c("hosts semicolon", "db", [{"db": OK}], hosts="127.5.5.5 db;x\n"),
    c("hosts indented", "db", [{"db": OK}], hosts="  127.5.5.5 db\n"),
    c("hosts short address", "db", [{"db": OK}], hosts="127.5 db\n"),
    c("upper", "A.EXAMPLE", [{"a.example": OK}]),
    c("dash start", "-a.example", [{"-a.example": OK}]),
    c("star", "*.example", [{"*.example": OK}]),
]

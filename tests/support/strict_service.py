"""A service that refuses: wrong passwords, stale tokens, missing CSRF tokens, and whatever must be unique and is not.

`python strict_service.py` prints its port, and ends when its standard input is closed. `GET /refused` says what it refused.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections import Counter
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PASSWORDS: dict[str, str] = {}
TOKENS: dict[str, str] = {}
FORMS: dict[str, str] = {}
ORDERS: dict[str, str] = {}
REFUSED: Counter[str] = Counter()
LOCK = threading.Lock()

Answer = tuple[int, dict[str, str], bytes]


def of_json(status: int, value: object, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(value).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        with LOCK:
            status, headers, answer = self.answer(self.command, path, body)
            if status >= 400:
                REFUSED[f"{self.command} {path} {status} {answer[:60].decode()}"] += 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = handle_one

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        if path == "/refused":
            return of_json(200, REFUSED)
        if path == "/public":
            return of_json(200, {"offers": [1, 2, 3], "date": "2026-11-30"})
        if (method, path) == ("POST", "/register"):
            return self.register(json.loads(body))
        if (method, path) == ("POST", "/login"):
            return self.log_in(json.loads(body))
        kind, _, token = (self.headers.get("Authorization") or "").partition(" ")
        email = TOKENS.get(token) if kind == "Bearer" else None
        if email is None:
            return of_json(401, {"error": "stale token"})
        if path == "/settings":
            return self.settings(method, email, body)
        if (method, path) == ("POST", "/orders"):
            order = json.loads(body)["order"]["id"]
            if order in ORDERS:
                return of_json(409, {"error": "this order is known"})
            ORDERS[order] = email
            number = secrets.token_hex(8)
            ORDERS[number] = email
            return of_json(201, {"accepted": True}, Location=f"/orders/{number}")
        if path.startswith("/orders/") and ORDERS.get(path.removeprefix("/orders/")) == email:
            return of_json(200, {"state": "paid"})
        return of_json(404, {"error": "no such thing of yours"})

    def register(self, said: dict[str, str]) -> Answer:
        if said["email"] in PASSWORDS:
            return of_json(409, {"error": "this address is taken"})
        PASSWORDS[said["email"]] = said["password"]
        return of_json(201, {"email": said["email"], "name": said["name"]})

    def log_in(self, said: dict[str, str]) -> Answer:
        if PASSWORDS.get(said["email"]) != said["password"]:
            return of_json(401, {"error": "wrong password"})
        for token in [token for token, email in TOKENS.items() if email == said["email"]]:
            del TOKENS[token]
        token = secrets.token_urlsafe(24)
        TOKENS[token] = said["email"]
        return of_json(200, {"data": {"access_token": token, "expires": 3600}})

    def settings(self, method: str, email: str, body: bytes) -> Answer:
        """A form: its CSRF token is good once, and only with the cookie that came with it."""
        if method == "GET":
            csrf, session = secrets.token_hex(12), secrets.token_hex(12)
            FORMS[session] = csrf
            page = f'<html><form><input type="hidden" name="csrf" value="{csrf}"></form></html>'
            return (
                200,
                {"Content-Type": "text/html", "Set-Cookie": f"form={session}; Path=/; HttpOnly"},
                page.encode(),
            )
        cookie = SimpleCookie(self.headers.get("Cookie") or "").get("form")
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if cookie is None or FORMS.pop(cookie.value, "") != form.get("csrf"):
            return of_json(403, {"error": "bad form"})
        return of_json(200, {"theme": form["theme"]})


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()

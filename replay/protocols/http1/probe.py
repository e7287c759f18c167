"""Makes a first TLS handshake before any request is sent.

It checks that an https target speaks TLS with a valid certificate, and that a plain target on a usual TLS port
does not speak TLS. A mistake is reported before any load, with advice on how to fix it.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, NoReturn

import trio

from replay.errors import TargetError
from replay.lane.contract import Address
from replay.lane.tls import Tls, python_context
from replay.results.document import TlsPeer

TIMEOUT_S = 5.0
AFTERWARDS_S = 0.25
"""Seconds to wait for a refusal, because a TLS 1.3 server refuses a client only after its handshake."""

NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which allows an expired certificate to be read."""

EXPIRED, NOT_YET_VALID = 10, 9
SELF_SIGNED, SELF_SIGNED_IN_CHAIN = 18, 19
ISSUER_UNKNOWN = (2, 20, 21)
WRONG_NAME = (62, 64)
"""EXPIRED to WRONG_NAME are verification codes of OpenSSL (x509_vfy.h)."""

HANDSHAKE, CERTIFICATE_REQUEST = 22, 13
"""The content type of a record and the type of a message (RFC 8446, sections 5.1 and 4)."""

INSECURE = "--insecure replays without verifying"


async def shake_hands(addresses: Sequence[Address], tls: Tls | None, authority: str) -> TlsPeer | None:
    """Make a TLS handshake with the first address that accepts a connection, and describe its server.

    Returns None for a plain target, or if no address accepts a connection. `authority` is the target's host and
    port, as the user wrote them. TargetError if the handshake fails, or if a plain target speaks TLS on a port that
    is usual for it.
    """
    for address in addresses:
        try:
            with trio.fail_after(TIMEOUT_S):
                stream = await trio.open_tcp_stream(address.host, address.port)
        except (OSError, trio.TooSlowError):
            continue
        async with stream:
            if tls is not None:
                return await _greet(stream, address, tls, authority)
        if is_port_of_tls(address.port):
            await _refuse_tls(address, authority)
        return None
    return None


class _Talk:
    """A TLS handshake that also keeps the first bytes it received.

    `asks_certificate` is true if the server requested a client certificate.
    """

    def __init__(self, stream: trio.abc.Stream, context: ssl.SSLContext, server_name: str) -> None:
        self._stream = stream
        self.asks_certificate = False
        if hasattr(context, "_msg_callback"):
            context._msg_callback = self._see
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name or None)
        self.seen = b""

    def _see(self, _: object, direction: str, version: int, kind: int, message: int, data: bytes) -> None:
        """Inspect a handshake message, because Python has no other way to learn what a server requested."""
        self.asks_certificate |= (direction, kind, message) == ("read", HANDSHAKE, CERTIFICATE_REQUEST)

    async def shake_hands(self) -> None:
        """Complete the handshake; in TLS 1.3, also wait shortly for a refusal.

        ssl.SSLError or OSError if the handshake fails or is refused.
        """
        await self._until_done(self.tls.do_handshake)
        if self.tls.version() == "TLSv1.3":
            with trio.move_on_after(AFTERWARDS_S):
                await self._receive()
                with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    self.tls.read(1)

    async def _until_done(self, step: Any) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive()
            except ssl.SSLError:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._flush()
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._stream.send_all(self._outgoing.read())

    async def _receive(self) -> None:
        data = await self._stream.receive_some(65_536)
        self.seen = self.seen or bytes(data[:16])
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


async def _greet(stream: trio.abc.Stream, address: Address, tls: Tls, authority: str) -> TlsPeer:
    """Make the handshake that every connection of the run will make."""
    talk = _Talk(stream, python_context(tls), tls.server_name)
    try:
        with trio.fail_after(TIMEOUT_S):
            await talk.shake_hands()
    except trio.TooSlowError:
        if await _answers_plainly(address, authority):
            raise _speaks_plain_http(authority) from None
        raise TargetError(
            f"the target {authority} did not answer a TLS handshake within {TIMEOUT_S:g} s",
            hint=f"check the port; if it speaks plain HTTP: --target http://{authority}",
        ) from None
    except ssl.SSLCertVerificationError as error:
        await _explain_certificate(error, address, tls, authority)
    except ssl.SSLError as error:
        _explain_handshake(error, talk.seen, tls, authority)
    except (OSError, trio.BrokenResourceError):
        raise _broken_off(authority) from None
    return _peer(talk.tls, tls, talk.asks_certificate)


def _peer(talk: ssl.SSLObject, tls: Tls, asks_certificate: bool) -> TlsPeer:
    certificate = talk.getpeercert() or {}
    cipher = talk.cipher()
    return TlsPeer(
        server_name=tls.server_name,
        version=(talk.version() or "").replace("TLSv", "TLS "),
        cipher=cipher[0] if cipher else "",
        verified=tls.verify,
        ca=tls.ca,
        client_certificate=tls.cert,
        asks_certificate=asks_certificate,
        certificate=", ".join(_names(certificate)),
        expires=str(certificate.get("notAfter", "")),
    )


def _names(certificate: dict[str, Any]) -> list[str]:
    """Return the host names and addresses in a certificate."""
    return [str(name) for _, name in certificate.get("subjectAltName", ())]


async def _read_certificate(address: Address, tls: Tls) -> dict[str, Any]:
    """Return the target's certificate, without checking names and dates; empty if it is not available."""
    context = python_context(tls)
    context.check_hostname = False
    context.verify_flags |= NO_CHECK_TIME
    with contextlib.suppress(ssl.SSLError, OSError, trio.BrokenResourceError, trio.TooSlowError):
        with trio.fail_after(TIMEOUT_S):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                talk = _Talk(stream, context, tls.server_name)
                await talk.shake_hands()
                return dict(talk.tls.getpeercert() or {})
    return {}


async def _explain_certificate(
    error: ssl.SSLCertVerificationError, address: Address, tls: Tls, authority: str
) -> NoReturn:
    """Raise the TargetError that explains what is wrong with a certificate."""
    code, store = error.verify_code, tls.ca or "this machine"
    certificate = (
        await _read_certificate(address, tls) if code in (EXPIRED, NOT_YET_VALID, *WRONG_NAME) else {}
    )
    if code == EXPIRED:
        when = f" on {certificate['notAfter']}" if "notAfter" in certificate else ""
        what, hint = f"expired{when}", f"renew it; {INSECURE}"
    elif code == NOT_YET_VALID:
        when = f" until {certificate['notBefore']}" if "notBefore" in certificate else " yet"
        what, hint = f"is not valid{when}", f"check this machine's clock, or renew it; {INSECURE}"
    elif code == SELF_SIGNED:
        what, hint = "is self-signed", f"--ca FILE with that certificate trusts it; {INSECURE}"
    elif code == SELF_SIGNED_IN_CHAIN or code in ISSUER_UNKNOWN:
        what = f"was issued by an authority that {store} does not trust"
        hint = f"--ca FILE with the authority's certificate trusts it; {INSECURE}"
    elif code in WRONG_NAME:
        names = ", ".join(_names(certificate)) or "another name"
        what = f"is for {names}, not for {tls.server_name}"
        hint = f"use a name of the certificate in --target, or request one: --server-name NAME; {INSECURE}"
    else:
        what, hint = f"cannot be verified: {error.verify_message}", INSECURE
    raise TargetError(f"the target {authority}: its certificate {what}", hint=hint) from None


_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no cipher in common, or it wants a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the issuer of the client certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know the requested name",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks neither TLS 1.2 nor 1.3",
    "UNSUPPORTED_PROTOCOL": "it speaks neither TLS 1.2 nor 1.3",
}
_ABOUT_CLIENT = ("TLSV13_ALERT", "SSLV3_ALERT", "TLSV1_ALERT_UNKNOWN_CA")
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE")


def _explain_handshake(error: ssl.SSLError, seen: bytes, tls: Tls, authority: str) -> NoReturn:
    """Raise the TargetError that explains a failed handshake."""
    reason = error.reason or ""
    if seen.startswith(b"HTTP/"):
        raise _speaks_plain_http(authority) from None
    if reason in _NO_TLS:
        raise TargetError(
            f"the target {authority} does not speak TLS on this port",
            hint=f"check the port; if it speaks plain HTTP: --target http://{authority}",
        ) from None
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        raise _broken_off(authority) from None
    what = _REASONS.get(reason, reason.replace("_", " ").lower() or str(error))
    another = "another one" if tls.cert else "one"
    hint = f"--cert FILE and --key FILE give {another}" if reason.startswith(_ABOUT_CLIENT) else ""
    if reason == "TLSV1_UNRECOGNIZED_NAME":
        hint = f"it was {tls.server_name}; --server-name NAME requests another one"
    raise TargetError(f"the TLS handshake with the target {authority} failed: {what}", hint=hint) from None


async def _answers_plainly(address: Address, authority: str) -> bool:
    """Return whether a server that does not complete the handshake answers a plain request."""
    with trio.move_on_after(TIMEOUT_S), contextlib.suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(f"OPTIONS * HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            return bytes(await stream.receive_some(16)).startswith(b"HTTP/")
    return False


def _speaks_plain_http(authority: str) -> TargetError:
    return TargetError(
        f"the target {authority} speaks plain HTTP, not TLS", hint=f"--target http://{authority}"
    )


def _broken_off(authority: str) -> TargetError:
    return TargetError(
        f"the target {authority} ended the connection in the TLS handshake",
        hint=f"check the port; if it speaks plain HTTP: --target http://{authority}",
    )


def is_port_of_tls(port: int) -> bool:
    """Return whether a port usually speaks TLS: 443, 8443 and other ports that end with 443."""
    return port % 1_000 == 443


async def _refuse_tls(address: Address, authority: str) -> None:
    """Raise TargetError if a server speaks TLS where the URL says plain HTTP, because it would refuse all requests."""
    context = python_context(Tls("", verify=False))
    with contextlib.suppress(ssl.SSLError, OSError, trio.BrokenResourceError, trio.TooSlowError):
        with trio.fail_after(TIMEOUT_S):
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                talk = _Talk(stream, context, "")
                await talk.shake_hands()
        raise TargetError(
            f"the target {authority} speaks TLS, not plain HTTP", hint=f"--target https://{authority}"
        )

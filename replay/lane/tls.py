"""How connections are secured, for Python's ssl (portable engine, probe) and for OpenSSL (native lanes).

Both trust the same certificates, speak TLS 1.2 and 1.3, and offer only http/1.1. Both accept a close without
close_notify as the end of a response.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.errors import EngineError, InputError, reason_of
from replay.settings.scenario import Scenario
from replay.settings.target import Target
from replay_native.lane import libssl

ALPN = ("http/1.1",)

_VERIFY_PEER, _HOST_NO_PARTIAL_WILDCARDS = 1, 0x4


@dataclass(frozen=True, slots=True)
class Tls:
    """How a connection is secured.

    `ca`, `cert` and `key` are PEM files. `ca` may also be a folder; if it is empty, the system's store is used.
    `server_name` is sent in SNI, unless it is an address. With `verify` the certificate must match it. With `resume` a
    new connection resumes an earlier session if it can.
    """

    server_name: str
    verify: bool = True
    ca: str = ""
    cert: str = ""
    key: str = ""
    resume: bool = True

    @property
    def sni(self) -> str:
        """The name sent in SNI; empty for an address, which must not be sent (RFC 6066, section 3)."""
        return "" if is_address(self.server_name) else self.server_name


def tls_for(scenario: Scenario, target: Target) -> Tls:
    """Return how connections to a target are secured."""
    given = scenario.tls
    return Tls(
        server_name=given.server_name or target.host,
        verify=not given.insecure,
        ca=given.ca,
        cert=given.cert,
        key=given.key,
        resume=given.resume,
    )


def is_address(name: str) -> bool:
    """Return whether a server's name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def python_context(tls: Tls) -> ssl.SSLContext:
    """Return the settings as Python's context. InputError if a file is missing or not of the expected kind."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(ALPN))
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        _load_authorities(context, tls.ca)
    else:
        context.load_default_certs()
    if tls.cert:
        _load_identity(context, tls)
    return context


def _load_authorities(context: ssl.SSLContext, ca: str) -> None:
    try:
        if Path(ca).is_dir():
            context.load_verify_locations(capath=ca)
        else:
            context.load_verify_locations(cafile=ca)
    except ssl.SSLError:
        raise InputError(
            f"{ca} holds no certificates to trust", hint="give --ca a file of certificates in PEM"
        ) from None
    except OSError as error:
        raise InputError(
            f"{ca}: {reason_of(error)}", hint="give --ca a file of certificates in PEM"
        ) from None


def _load_identity(context: ssl.SSLContext, tls: Tls) -> None:
    for path in (tls.cert, tls.key):
        if path and not Path(path).is_file():
            raise InputError(f"{path}: there is no such file", hint="give --cert and --key PEM files")
    try:
        context.load_cert_chain(tls.cert, tls.key or None, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InputError(
                f"the key {tls.key or tls.cert} does not belong to the certificate {tls.cert}",
                hint="give the --key that --cert was made for",
            ) from None
        raise InputError(
            f"{tls.cert}{f' and {tls.key}' if tls.key else ''}: no certificate with a key, or the key is encrypted",
            hint="give --cert the certificate chain and --key its unencrypted private key, both in PEM",
        ) from None
    except OSError as error:
        raise InputError(f"{tls.cert}: {reason_of(error)}", hint="give --cert and --key PEM files") from None


@contextlib.contextmanager
def native_context(tls: Tls, *, keeps_buffers: bool = False) -> Iterator[int]:
    """Yield the address of an SSL_CTX with these settings, for one lane (`libssl.new_context`).

    The SSL_CTX is freed at the end of the `with` block. EngineError if a file has changed since the run began.
    """
    context = libssl.new_context("TLS_client_method", keeps_buffers=keeps_buffers)
    try:
        protocols = b"".join(bytes([len(name)]) + name.encode() for name in ALPN)
        libssl.call("SSL_CTX_set_alpn_protos", context, protocols, len(protocols))
        if tls.verify:
            _verify(context, tls)
        if tls.cert and not libssl.use_identity(context, tls.cert, tls.key or tls.cert):
            raise _changed(tls.cert)
        yield context
    finally:
        libssl.call("SSL_CTX_free", context)


def _verify(context: int, tls: Tls) -> None:
    if not tls.ca:
        libssl.call("SSL_CTX_set_default_verify_paths", context)
    else:
        folder, path = Path(tls.ca).is_dir(), tls.ca.encode()
        places = (None, path) if folder else (path, None)
        if libssl.call_int("SSL_CTX_load_verify_locations", context, *places) != 1:
            raise _changed(tls.ca)
    libssl.call("SSL_CTX_set_verify", context, _VERIFY_PEER, None)
    parameters, name = libssl.call("SSL_CTX_get0_param", context), tls.server_name.encode()
    if is_address(tls.server_name):
        libssl.call("X509_VERIFY_PARAM_set1_ip_asc", parameters, name)
    else:
        libssl.call("X509_VERIFY_PARAM_set_hostflags", parameters, _HOST_NO_PARTIAL_WILDCARDS)
        libssl.call("X509_VERIFY_PARAM_set1_host", parameters, name, 0)


def _changed(path: str) -> EngineError:
    """Return the error for a file that OpenSSL cannot use.

    The file must have changed, because Python's ssl has already read everything that OpenSSL could refuse.
    """
    return EngineError(f"{path} cannot be read any more: it has changed since the run began")

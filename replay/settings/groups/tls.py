"""Settings about how connections to https targets are secured."""

from typing import Annotated, ClassVar

from replay.errors import UsageError

from ..naming import NameOf
from ..row import Table, row
from ..target import sendable
from .safety import SafetySettings


class TlsSettings(Table, kw_only=True, frozen=True):
    """TLS 1.2 or 1.3 for https targets, with verified certificates unless `insecure` is set."""

    ca: Annotated[
        str,
        row(
            "Certificates to trust, a PEM file or a folder",
            "--ca",
            metavar="FILE",
            default="the system's",
            used_by="https",
            example="ca.pem",
        ),
    ] = ""
    cert: Annotated[
        str,
        row(
            "Client certificate with its chain, a PEM file",
            "--cert",
            metavar="FILE",
            default="none",
            used_by="https",
            example="client.pem",
        ),
    ] = ""
    key: Annotated[
        str,
        row(
            "Private key of the client certificate",
            "--key",
            metavar="FILE",
            default="in the certificate's file",
            used_by="https",
            example="client.key",
        ),
    ] = ""
    server_name: Annotated[
        str,
        row(
            "Name to request (SNI) and to verify",
            "--server-name",
            metavar="NAME",
            default="the target's",
            used_by="https",
            example="staging.example",
        ),
    ] = ""
    insecure: Annotated[
        bool, row("Verify no certificate; the plan and the report mention it", "--insecure", used_by="https")
    ] = False
    resume: Annotated[
        bool, row("New connections resume a session; false: full handshakes only", used_by="https")
    ] = True


class SecuritySettings(SafetySettings, kw_only=True, frozen=True):
    """How connections to https targets are secured."""

    group: ClassVar[str] = "TLS"

    tls: Annotated[TlsSettings, row("An https target", used_by="https")] = TlsSettings()


def check(settings: SecuritySettings, name_of: NameOf) -> None:
    """Raise UsageError if the certificate settings contradict each other, or if the server name cannot be sent."""
    tls = settings.tls
    if tls.key and not tls.cert:
        raise UsageError(f"{name_of('tls.key')}: a key without its certificate", hint="give --cert FILE")
    if tls.insecure and tls.ca:
        raise UsageError(
            f"{name_of('tls.ca')}: no certificate is verified if insecure is set",
            hint="give one of the two",
        )
    if not sendable(tls.server_name):
        raise UsageError(f"{name_of('tls.server_name')}: {tls.server_name!r} is not a host name")

"""Certificates of a test's own: an authority, and what it vouches for, made when they are needed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import trustme

from replay.lane.tls import Tls
from replay.staging.sink import Identity

NAMES = ("127.0.0.1", "localhost", "sink.test")


@dataclass(frozen=True)
class Authority:
    """An authority, and the folder that its files go to."""

    ca: trustme.CA
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Authority:
        made = cls(trustme.CA(), folder)
        made.ca.cert_pem.write_to_path(str(made.path))
        return made

    @property
    def path(self) -> Path:
        """What to trust, for `--ca`."""
        return self.folder / "ca.pem"

    def issue(self, *names: str, expires: dt.datetime | None = None) -> Identity:
        """A certificate for these names, and its key."""
        leaf = self.ca.issue_cert(*(names or NAMES), not_after=expires)
        stem = f"leaf-{len(list(self.folder.iterdir()))}"
        cert, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return Identity(cert, key)

    def settings(self, server_name: str = "127.0.0.1", **more: object) -> Tls:
        """How to speak to whoever has a certificate of this authority."""
        return Tls(**({"server_name": server_name, "ca": str(self.path)} | more))  # type: ignore[arg-type]

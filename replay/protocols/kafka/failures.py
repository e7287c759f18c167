"""Kafka's errors: the outcome of a record, and the message for the user."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl

from aiokafka import errors

from replay.errors import ReplayError, TargetError, UsageError
from replay_native.ledger.lane_metrics import (
    GENERATOR,
    REFUSED,
    REJECTED,
    RESET,
    TIMEOUT,
)

from .gate import PLACE, HostRefusedError


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """A record that its topic rejects, such as one without a key on a compacted topic.

    aiokafka does not define this error code.
    """

    errno = 87
    message = "INVALID_RECORD"


TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
"""Errors of a batch that exceeds the limit of its topic or of a segment."""

NEVER_APPENDED = (
    InvalidRecordError,
    *TOO_LARGE, errors.InvalidTimestampError,
    errors.TopicAuthorizationFailedError, errors.InvalidTopicError, errors.PolicyViolationError,
)  # fmt: skip
"""Errors of a batch that the broker did not append, so that its sequence numbers were not used."""


def error_of(code: int) -> type[Exception]:
    """Return the exception class of a protocol error code."""
    found: type[Exception] = errors.for_code(code)
    return InvalidRecordError if code == InvalidRecordError.errno else found


def outcome_of(error: BaseException) -> int:
    """Return the outcome (an index of `OUTCOMES`) of a record that failed with this error."""
    if isinstance(error, errors.KafkaTimeoutError | errors.RequestTimedOutError | asyncio.TimeoutError):
        return TIMEOUT
    if isinstance(error, errors.NodeNotReadyError):
        return REFUSED
    if isinstance(error, errors.KafkaConnectionError):
        return RESET
    if isinstance(error, errors.BrokerResponseError):
        return REJECTED
    return GENERATOR


def name_of(error: BaseException) -> str:
    """Return the name of an error in Kafka's protocol (`MESSAGE_TOO_LARGE`), or else its class."""
    name = getattr(error, "message", "") if isinstance(error, errors.BrokerResponseError) else ""
    return name if isinstance(name, str) and name.isupper() else type(error).__name__


def status_of(error: BaseException) -> int:
    """Return the code of a broker's error; 0 for any other error."""
    return int(error.errno) if isinstance(error, errors.BrokerResponseError) else 0


def as_replay_error(error: BaseException, brokers: str) -> ReplayError:
    """Return the error that explains to the user why a cluster cannot be used.

    `brokers` is used in the message if the error does not identify the broker.
    """
    if isinstance(error, ReplayError):
        return error
    brokers = getattr(error, PLACE, brokers)
    if isinstance(error, HostRefusedError):
        return error.limit
    if isinstance(error, errors.AuthenticationFailedError | errors.SaslAuthenticationFailed):
        return TargetError(
            f"the broker {brokers} refused the credentials: {_sentence(error)}",
            hint="check kafka.sasl_plain_username, kafka.sasl_plain_password and kafka.sasl_mechanism",
        )
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return TargetError(
            f"the broker {brokers} does not support this SASL mechanism: {_sentence(error)}",
            hint="set kafka.sasl_mechanism to one that it supports",
        )
    if isinstance(error, errors.IllegalSaslStateError):
        return TargetError(f"the broker {brokers} does not use SASL on this port", hint=LISTENER)
    if isinstance(error, ssl.SSLCertVerificationError):
        return TargetError(f"the broker {brokers}: its certificate {_certificate(error)}", hint=CERTIFICATE)
    if isinstance(error, ssl.SSLError):
        what = (error.reason or str(error)).replace("_", " ").lower()
        return TargetError(f"the TLS handshake with the broker {brokers} failed: {what}", hint=LISTENER)
    if isinstance(error, errors.KafkaConnectionError | asyncio.TimeoutError | OSError):
        return TargetError(
            f"the broker {brokers} does not accept connections: {connection_problem(error)}",
            hint="start it, or check host, port and kafka.security_protocol",
        )
    if isinstance(error, errors.TopicAuthorizationFailedError | errors.ClusterAuthorizationFailedError):
        return TargetError(
            f"the broker {brokers} does not allow this: {name_of(error)}", hint="request the permission"
        )
    if isinstance(error, RuntimeError) and "library" in str(error).lower():
        return UsageError(f"this compression needs the package cramjam: {error}", hint="pip install cramjam")
    return TargetError(f"the broker {brokers}: {name_of(error)}: {_sentence(error)}")


LISTENER = "set kafka.security_protocol to that of this listener, or give another port"
CERTIFICATE = (
    "set kafka.ssl_cafile to the authorities to trust; brokers are verified by the names that they advertise"
)

_CERTIFICATES = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
} | dict.fromkeys((2, 19, 20, 21), "was issued by an authority that is not trusted")
"""Messages by OpenSSL's verification code (x509_vfy.h)."""

_PREFIX = re.compile(r"(\[Error -?\d+\] )?(\w+(Error|Failed): )?")


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    known = _CERTIFICATES.get(error.verify_code)
    return known or f"cannot be verified: {error.verify_message.rstrip('.')}"


def connection_problem(error: BaseException) -> str:
    """Return why a connection failed, in words for a message."""
    if isinstance(error, socket.gaierror):
        return "its name has no address"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    words = _sentence(error)
    if words.endswith(" closed"):
        return "it ended the connection at once, so it may not be a Kafka port, or it may require TLS or SASL"
    return words or "no answer"


def _sentence(error: BaseException) -> str:
    """Return the first line of an error, without the class name that aiokafka adds in front."""
    words = str(error).partition("\n")[0].strip()
    return words[_PREFIX.match(words).end() :]  # type: ignore[union-attr]

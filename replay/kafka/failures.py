"""What Kafka's errors are: the outcome of a record, and words for people."""

from __future__ import annotations

import asyncio

from aiokafka import errors

from replay.errors import ReplayError, TargetError, UsageError
from replay_native.bank import GENERATOR, REFUSED, REJECTED, RESET, TIMEOUT


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """A record that its topic does not take, as one without a key where it is compacted. aiokafka does not know the code."""

    errno = 87
    message = "INVALID_RECORD"


NEVER_APPENDED = (
    InvalidRecordError,
    errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.InvalidTimestampError,
    errors.TopicAuthorizationFailedError, errors.InvalidTopicError, errors.PolicyViolationError,
)  # fmt: skip
"""Errors of a batch that took up no sequence numbers at the broker."""


def error_of(code: int) -> type[Exception]:
    """The error that a code of the protocol stands for."""
    found: type[Exception] = errors.for_code(code)
    return InvalidRecordError if code == InvalidRecordError.errno else found


def outcome_of(error: BaseException) -> int:
    """The outcome (an index of `OUTCOMES`) of a record that failed with this error."""
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
    """An error by the name that Kafka's protocol gives it (`MESSAGE_TOO_LARGE`), else by its class."""
    name = getattr(error, "message", "") if isinstance(error, errors.BrokerResponseError) else ""
    return name if isinstance(name, str) and name.isupper() else type(error).__name__


def status_of(error: BaseException) -> int:
    """The code of a broker's error, 0 for one of ours."""
    return int(error.errno) if isinstance(error, errors.BrokerResponseError) else 0


def told(error: BaseException, brokers: str) -> ReplayError:
    """Why a cluster cannot be used, in words."""
    if isinstance(error, ReplayError):
        return error
    if isinstance(error, errors.AuthenticationFailedError | errors.SaslAuthenticationFailed):
        return TargetError(
            f"the broker {brokers} refused the credentials: {_sentence(error)}",
            hint="check kafka.sasl_plain_username, sasl_plain_password and sasl_mechanism",
        )
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return TargetError(
            f"the broker {brokers} does not know this SASL mechanism: {_sentence(error)}",
            hint="set kafka.sasl_mechanism to one of its own",
        )
    if isinstance(error, errors.KafkaConnectionError | asyncio.TimeoutError | OSError):
        return TargetError(
            f"the broker {brokers} does not take connections: {_sentence(error) or 'no answer'}",
            hint="start it, or check host, port and kafka.security_protocol",
        )
    if isinstance(error, errors.TopicAuthorizationFailedError | errors.ClusterAuthorizationFailedError):
        return TargetError(
            f"the broker {brokers} does not allow this: {name_of(error)}", hint="ask for the right"
        )
    if isinstance(error, RuntimeError) and "library" in str(error).lower():
        return UsageError(f"this compression needs the package cramjam: {error}", hint="pip install cramjam")
    return TargetError(f"the broker {brokers}: {name_of(error)}: {_sentence(error)}")


def _sentence(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip()

"""Settings about responses that are kept in the run folder."""

from typing import Annotated, ClassVar, Literal

from replay.errors import UsageError

from ..headers import HEADER_NAME
from ..kinds import Share, Size
from ..naming import NameOf
from ..row import Table, row
from .kafka import KafkaSettings

BODY_BYTES_MAX = 4 << 20
HEADERS_MAX = 64
HEADERS = (
    "location", "cache-control", "vary", "content-language", "content-disposition", "allow", "retry-after",
)  # fmt: skip
"""The headers that are kept by default: those that clients act on, without times, ids and secrets."""


class Answers(Table, kw_only=True, frozen=True):
    """Responses that are kept in the run folder, for `replay diff`."""

    keep: Annotated[
        Literal["none", "digest", "sample", "all"] | None,
        row(
            "What to keep of responses; digest: digests and headers; sample: also some bodies; all: also all bodies",
            "--keep-answers",
            default="none; in replay ab: digest",
            used_by="HTTP",
            example="digest",
        ),
    ] = None
    sample: Annotated[
        Share,
        row(
            "If keep is sample: share of the requests whose response bodies are kept, the same in every run",
            used_by="HTTP",
        ),
    ] = Share(0.01)
    body_limit_bytes: Annotated[
        Size, row("Most bytes of a body that are kept; the digest covers the whole body", used_by="HTTP")
    ] = Size(65_536)
    headers: Annotated[
        tuple[str, ...],
        row("Headers that are kept; secrets in them are redacted unless keep_secrets is set", used_by="HTTP"),
    ] = HEADERS
    keep_secrets: Annotated[
        bool,
        row(
            "Keep secrets in the bodies and headers of responses that are kept",
            "--keep-answer-secrets",
            used_by="HTTP",
        ),
    ] = False


class AnswersSettings(KafkaSettings, kw_only=True, frozen=True):
    """Responses that are kept."""

    group: ClassVar[str] = "answers"

    answers: Annotated[Answers, row("Responses that are kept (docs/kept-responses.md)", used_by="HTTP")] = (
        Answers()
    )


def check(settings: AnswersSettings, name_of: NameOf) -> None:
    """Raise UsageError for invalid or too many header names, and for a body limit that is too high."""
    answers = settings.answers
    for index, name in enumerate(answers.headers):
        if not HEADER_NAME.fullmatch(name):
            raise UsageError(
                f"{name_of(f'answers.headers[{index}]')}: {name!r} is not the name of a header",
                hint='write a name such as "location"',
            )
    if len(answers.headers) > HEADERS_MAX:
        raise UsageError(f"{name_of('answers.headers')}: at most {HEADERS_MAX} headers can be kept")
    if answers.body_limit_bytes > BODY_BYTES_MAX:
        raise UsageError(
            f"{name_of('answers.body_limit')}: {answers.body_limit_bytes:,} bytes are more than can be kept of a body",
            hint=f"write at most {BODY_BYTES_MAX >> 20}MiB; longer bodies are compared by digest",
        )

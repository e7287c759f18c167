"""Settings about the live page, notifications, the start time and the labels of a run."""

from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from replay.errors import UsageError
from replay.shown import shown

from ..kinds import Duration, MomentText
from ..listening import DEFAULT_PLACE, is_loopback_host, parse_place
from ..naming import NameOf
from ..row import row
from .answers import AnswersSettings

OF_THE_PAGE = ("live_allow", "live_cert", "live_key", "live_linger_ns")
"""The settings that are refused without `live`."""


class LiveSettings(AnswersSettings, kw_only=True, frozen=True):
    """The live page, notifications, the start time, and the labels of a run."""

    group: ClassVar[str] = "live"

    live: Annotated[
        str,
        row(
            "Serve a page that shows the run while it lasts",
            "--live",
            metavar="HOST:PORT",
            default="off",
            bare=DEFAULT_PLACE,
            example=DEFAULT_PLACE,
        ),
    ] = ""
    live_allow: Annotated[
        tuple[str, ...],
        row(
            "Address beyond loopback that --live may listen on, or host name under which browsers may open the page",
            "--live-allow",
            metavar="ADDRESS",
            example=["10.1.2.3"],
        ),
    ] = ()
    live_cert: Annotated[
        str,
        row(
            "Certificate of the live page with its chain, a PEM file",
            "--live-cert",
            metavar="FILE",
            default="none",
            example="live.pem",
        ),
    ] = ""
    live_key: Annotated[
        str,
        row(
            "Private key of the live page's certificate",
            "--live-key",
            metavar="FILE",
            default="in the certificate's file",
            example="live.key",
        ),
    ] = ""
    live_linger_ns: Annotated[
        Duration,
        row("How long the live page is still served after the end", "--live-linger", default="0s"),
    ] = Duration(0)
    notify: Annotated[
        tuple[str, ...],
        row(
            "Web hook that receives a JSON message at the start, the first breach, the recovery and the end;"
            " $NAME comes from the environment",
            "--notify",
            metavar="URL",
            example=["$WEB_HOOK"],
        ),
    ] = ()
    start_at: Annotated[
        MomentText | None,
        row(
            "When the first request is due: 18:00 of this machine's clock, ISO 8601 with or without a zone, or +10m",
            "--start-at",
            default="at once",
            example="18:00",
        ),
    ] = None
    build: Annotated[
        str,
        row(
            "Build that the target runs, such as a commit or a version; replay runs --trend compares builds",
            "--build",
            metavar="LABEL",
            default="from CI's environment (docs/runs.md)",
            example="3f2a91c",
        ),
    ] = ""
    name: Annotated[
        str,
        row(
            "Name of the scenario in replay runs",
            metavar="NAME",
            default="the name of the scenario's file, or of the recording",
            example="evening",
        ),
    ] = ""


LABEL_MAX = 200
"""The most characters of a name or a build label."""


def _check_label(text: str, name: str) -> None:
    """Raise UsageError if a label has several lines, invisible characters, spaces at its ends, or is too long."""
    if len(text) > LABEL_MAX or (text and not text.isprintable()) or text != text.strip():
        raise UsageError(
            f"{name}: {shown(text[:40])!r} is not a label",
            hint=f"write one line of at most {LABEL_MAX} visible characters, without spaces at its ends",
        )


def check(settings: LiveSettings, name_of: NameOf) -> None:
    """Raise UsageError for an invalid setting of the live page, an invalid label, or a web hook that is not a URL.

    Settings of the page are refused without `live`. No message quotes a web hook, because it is secret.
    """
    if settings.live:
        _check_place(settings, name_of)
    else:
        for key in OF_THE_PAGE:
            if getattr(settings, key):
                name = key.removesuffix("_ns")
                raise UsageError(f"{name_of(name)}: there is no live page", hint="add --live")
    if settings.live_key and not settings.live_cert:
        raise UsageError(
            f"{name_of('live_key')}: a key without its certificate", hint="give --live-cert FILE"
        )
    for key in ("build", "name"):
        _check_label(getattr(settings, key), name_of(key))
    for url in settings.notify:
        check_web_hook(url, name_of("notify"))


def _check_place(settings: LiveSettings, name_of: NameOf) -> None:
    try:
        host, _ = parse_place(settings.live)
    except UsageError as error:
        raise UsageError(f"{name_of('live')}: {error}", hint=error.hint) from None
    allowed = {text.strip().lower().strip("[]") for text in settings.live_allow}
    if not is_loopback_host(host) and host not in allowed:
        raise UsageError(
            f"{name_of('live')}: {host} is beyond this machine: others could watch the run",
            hint=f"if they may: --live-allow {host}",
        )


def check_web_hook(url: str, name: str) -> None:
    """Raise UsageError if a text is not a URL for a web hook.

    A text with a `$` is checked only when it is used, because it needs the environment.
    """
    hint = "write --notify https://HOST/PATH, or --notify '$NAME' for a variable of the environment"
    if "$" in url:
        return
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_url = False
    if not is_url or any(character <= " " or character > "~" for character in url):
        raise UsageError(
            f"{name}: this is not the URL of a web hook (not shown, because it is secret)", hint=hint
        )

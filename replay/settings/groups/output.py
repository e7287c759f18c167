"""Settings about what a run is judged by, and about the target's own figures that are recorded beside it."""

from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import msgspec

from replay.errors import UsageError
from replay.ledger.validity import ValidityLimits
from replay.naming import is_action_name

from ..ignore_rules import IgnoreRule
from ..kinds import MoneyText, SloText
from ..naming import NameOf
from ..row import Table, row
from .live import LiveSettings

WATCHED_MAX = 32
"""The most [[watch]] tables of a scenario. Each is sampled once per second."""


SOURCES = ("prometheus", "json", "command", "group")
"""The keys of a watched figure that select its source."""


class Watch(Table, kw_only=True, frozen=True):
    """Figures of the target's own side, sampled every second.

    The source is Prometheus, a JSON document, a command, or the lag of a Kafka consumer group.
    """

    name: Annotated[str, row("Name of the figure in reports", metavar="NAME")]
    prometheus: Annotated[
        str, row("Address of a Prometheus server", metavar="URL", example="http://127.0.0.1:9090")
    ] = ""
    query: Annotated[
        str,
        row(
            "PromQL whose result is one number",
            metavar="TEXT",
            example="sum(kube_deployment_status_replicas)",
        ),
    ] = ""
    json: Annotated[
        str, row("Address of a JSON document", metavar="URL", example="http://127.0.0.1:8080/stats")
    ] = ""
    pointer: Annotated[
        str, row("JSON Pointer to the number in the document", metavar="POINTER", example="/queue/length")
    ] = ""
    command: Annotated[
        str, row("Command whose output begins with the number", metavar="COMMAND", example="./replicas.sh")
    ] = ""
    group: Annotated[
        str, row("Kafka consumer group whose lag is the number", metavar="GROUP", example="billing")
    ] = ""
    brokers: Annotated[
        str,
        row(
            "Brokers of the consumer group, and its topic; without a topic, all topics with committed offsets of the group",
            metavar="URL",
            example="kafka://127.0.0.1:9092/orders",
        ),
    ] = ""
    limit: Annotated[
        float | None,
        row("Upper limit of the figure: reports show how near it came (docs/diagnosis.md)", example=64),
    ] = None
    members: Annotated[
        bool,
        row(
            "The json value is an object: each number in it becomes a figure, named NAME.MEMBER, or MEMBER if the name is"
            " empty"
        ),
    ] = False


class OutputSettings(LiveSettings, kw_only=True, frozen=True):
    """What a run is judged by, and which figures of the target are recorded beside it."""

    group: ClassVar[str] = "output"

    slo: Annotated[
        tuple[SloText, ...],
        row(
            "Objectives with units: p99<250ms, 'errors<1% over 10s' (in every window); exit code 99 if one fails",
            "--slo",
            common=True,
            example=["p99<250ms", "errors<1% over 10s"],
        ),
    ] = ()
    validity: Annotated[
        ValidityLimits,
        row("Thresholds that decide whether the generator was the bottleneck (docs/troubleshooting.md)"),
    ] = ValidityLimits()
    watch: Annotated[tuple[Watch, ...], row("Figures of the target's own side (docs/watching.md)")] = ()
    actions: Annotated[
        dict[str, tuple[str, ...]],
        row(
            "Business actions and their routes (* matches anything); they precede those of the recording (docs/actions.md)",
            metavar="ROUTES",
        ),
    ] = msgspec.field(default_factory=dict)
    values: Annotated[
        dict[str, MoneyText],
        row("What a failed request of an action costs: 9.99 EUR (docs/actions.md)", metavar="AMOUNT"),
    ] = msgspec.field(default_factory=dict)
    ignore: Annotated[
        tuple[IgnoreRule, ...],
        row("Fields of responses that may differ between builds (docs/differences.md)"),
    ] = ()


def check(settings: OutputSettings, name_of: NameOf) -> None:
    """Raise UsageError for an invalid watched figure or business action, or too many figures.

    A watched figure needs a name of its own and exactly one source.
    """
    if len(settings.watch) > WATCHED_MAX:
        raise UsageError(f"{name_of('watch')}: at most {WATCHED_MAX} figures can be watched")
    names: set[str] = set()
    for index, watch in enumerate(settings.watch):
        where = name_of(f"watch[{index}]")
        if (not watch.name and not watch.members) or watch.name in names:
            raise UsageError(f"{where}: each figure needs a name of its own", hint='write name = "queue"')
        names.add(watch.name)
        _check_watch(watch, where)
    for table in ("actions", "values"):
        for name in getattr(settings, table):
            if not is_action_name(name):
                raise UsageError(
                    f"{name_of(f'{table}.{name}')}: an action cannot have this name",
                    hint="write one word of letters, digits, _ . - (all and other are taken)",
                )
    for name, patterns in settings.actions.items():
        if not patterns or not all(pattern.strip() for pattern in patterns):
            raise UsageError(
                f"{name_of(f'actions.{name}')}: it has no route, or an empty one",
                hint='list routes, such as ["POST /v1/users"]',
            )


def _check_watch(watch: Watch, where: str) -> None:
    sources = [name for name in SOURCES if getattr(watch, name)]
    if len(sources) != 1:
        raise UsageError(
            f"{where} ({watch.name}) has {' and '.join(sources) or 'no source'}",
            hint="give it one of: prometheus with query, json with pointer, command, group with brokers",
        )
    source = sources[0]
    if (source == "prometheus") != bool(watch.query):
        raise UsageError(f"{where} ({watch.name}): prometheus and query belong together")
    if (source == "group") != bool(watch.brokers):
        raise UsageError(f"{where} ({watch.name}): group and brokers belong together")
    if watch.brokers and (not watch.brokers.startswith("kafka://") or "@" in watch.brokers):
        raise UsageError(
            f"{where} ({watch.name}): brokers is not a Kafka URL, or has credentials in it",
            hint='write brokers = "kafka://HOST:PORT/TOPIC"',
        )
    if watch.members and (source != "json" or watch.limit is not None):
        raise UsageError(
            f"{where} ({watch.name}): members needs json, and takes limits from the document (docs/diagnosis.md)"
        )
    if watch.limit is not None and not watch.limit > 0:
        raise UsageError(f"{where} ({watch.name}): limit {watch.limit:g} is not above 0")
    if watch.pointer and (source != "json" or not watch.pointer.startswith("/")):
        raise UsageError(
            f"{where} ({watch.name}): pointer {watch.pointer!r} is not a JSON Pointer into a json document",
            hint='write pointer = "/queue/length"',
        )
    if source in ("prometheus", "json"):
        try:
            url = urlsplit(getattr(watch, source))
        except ValueError:
            url = urlsplit("")
        if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
            raise UsageError(
                f"{where} ({watch.name}): {source} is not an http or https URL, or has credentials in it",
                hint=f'write {source} = "http://HOST:PORT..."',
            )

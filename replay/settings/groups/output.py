"""What a run is judged by."""

from typing import Annotated, ClassVar

from replay.ledger.validity import ValidityLimits

from ..ignore_rules import IgnoreRule
from ..kinds import SloText
from ..naming import NameOf
from ..row import row
from .answers import AnswersSettings


class OutputSettings(AnswersSettings, kw_only=True, frozen=True):
    """What a run is judged by."""

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
        ValidityLimits, row("Thresholds that decide whether the generator was the bottleneck (docs/trust.md)")
    ] = ValidityLimits()
    ignore: Annotated[
        tuple[IgnoreRule, ...],
        row("Fields of responses that may differ between builds (docs/differences.md)"),
    ] = ()


def check(settings: OutputSettings, name_of: NameOf) -> None:
    """Nothing: each setting of this group stands alone."""

"""`[[ignore]]`: fields of responses that `replay diff` does not judge (docs/differences.md)."""

from typing import Annotated

from .row import Table, row


class IgnoreRule(Table, kw_only=True, frozen=True):
    """Fields of responses that may differ."""

    route: Annotated[str, row("Route of the responses; * matches anything")] = "*"
    field: Annotated[
        str,
        row(
            "Field that may differ, with what is below it: status, type, `header NAME`, body, a JSON Pointer, `line N`;"
            " * matches anything",
            example="/updated_at",
        ),
    ]

"""The digest of a JSON text in plain Python: the judge of `replay_native.keeping.json_digest`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from replay_native.keeping import json_state as kernels
from replay_native.keeping.json_digest import DEPTH_MAX

MASK = (1 << 64) - 1
P1, P2, P3 = (int(prime) for prime in (kernels.P1, kernels.P2, kernels.P3))
ROOT, TEXT, INDEX = (int(seed) for seed in (kernels.ROOT, kernels.TEXT, kernels.INDEX))


class Members(list[tuple[str, Any]]):
    """The members of an object, in their order; a name may come twice."""


def mix(hashed: int, word: int) -> int:
    hashed = (hashed + word * P2) & MASK
    return (((hashed << 31) | (hashed >> 33)) & MASK) * P1 & MASK


def spread(hashed: int) -> int:
    hashed = (hashed ^ (hashed >> 33)) * P2 & MASK
    hashed = (hashed ^ (hashed >> 29)) * P3 & MASK
    return hashed ^ (hashed >> 32)


def of_text(text: str) -> int:
    data = text.encode("utf-8", "surrogatepass")
    hashed = TEXT
    for at in range(0, len(data) - len(data) % 8 + 1, 8):
        hashed = mix(hashed, int.from_bytes(data[at : at + 8], "little"))
    return hashed ^ len(data)


def of_number(number: Decimal) -> int:
    if not number:
        return 0
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    significant = text.rstrip("0")
    hashed = 0
    for digit in significant.encode():
        hashed = (hashed + digit) * P3 & MASK
    exponent += len(text) - len(significant)
    return mix(mix(hashed, len(significant)), (2 * exponent + sign) & MASK)


def leaves(value: Any, pointer: int) -> Iterator[tuple[int, int, int]]:
    """(pointer, tag, value) of each leaf, hashed."""
    if isinstance(value, Members):
        if not value:
            yield pointer, int(kernels.TAG_OBJECT), 0
        for name, member in value:
            yield from leaves(member, mix(pointer, of_text(name)))
    elif isinstance(value, list):
        if not value:
            yield pointer, int(kernels.TAG_ARRAY), 0
        for index, element in enumerate(value):
            yield from leaves(element, mix(pointer ^ INDEX, index))
    elif isinstance(value, str):
        yield pointer, int(kernels.TAG_STRING), of_text(value)
    elif isinstance(value, Decimal):
        yield pointer, int(kernels.TAG_NUMBER), of_number(value)
    else:
        yield (
            pointer,
            int({True: kernels.TAG_TRUE, False: kernels.TAG_FALSE, None: kernels.TAG_NULL}[value]),
            0,
        )


def depth_of(value: Any) -> int:
    if isinstance(value, Members):
        return 1 + max((depth_of(member) for _, member in value), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def _no_constant(name: str) -> None:
    raise ValueError(name)


def digest(data: bytes) -> int | None:
    """The digest, or None where `data` is no JSON text."""
    try:
        value = json.loads(
            data.decode("utf-8", "surrogatepass"), object_pairs_hook=Members, parse_int=Decimal, parse_float=Decimal,
            parse_constant=_no_constant,
        )  # fmt: skip
    except ValueError:
        return None
    if depth_of(value) > DEPTH_MAX:
        return None
    return sum(spread(mix(pointer ^ tag, hashed)) for pointer, tag, hashed in leaves(value, ROOT)) & MASK

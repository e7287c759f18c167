"""The memory in which a lane keeps responses, sized by a scenario's `[answers]`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay_native.keeping.json_digest import STACK_WORDS
from replay_native.keeping.responses import ALL, DIGEST, NONE, NOTES_MAX, SAMPLE, SLOT, Keeping
from replay_native.keeping.ring import make_ring

MODES = {"none": NONE, "digest": DIGEST, "sample": SAMPLE, "all": ALL}
"""The kernels' mode for each value of `answers.keep`."""

ALWAYS_NOTED = ("content-type", "content-encoding")
"""Headers that are kept of every response, before the chosen ones."""

PACKED_BYTES_MAX = 1 << 20
"""The largest body with a content coding that is kept whole, so that it can be decoded."""

RING_BYTES = {NONE: 64, DIGEST: 8 << 20, SAMPLE: 16 << 20, ALL: 32 << 20}


def make_keeping(
    mode: int,
    connections: int,
    *,
    headers: Sequence[str] = (),
    sample_ppm: int = 0,
    body_limit: int = 0,
    head_limit: int = 0,
    ring_bytes: int = 0,
) -> Keeping:
    """Allocate the memory for this many connections. With NONE each table has one unused row."""
    rows = connections if mode != NONE else 1
    names = [name.lower().encode() for name in (*ALWAYS_NOTED, *headers)]
    initials = np.zeros(256, np.bool_)
    initials[[name[0] for name in names]] = True
    return Keeping(
        mode=mode,
        sample_ppm=sample_ppm,
        body_limit=body_limit,
        packed_limit=PACKED_BYTES_MAX,
        names=np.frombuffer(bytearray(b"".join(names)), np.uint8),
        name_ends=np.cumsum([0, *map(len, names)], dtype=np.int64),
        initials=initials,
        slots=np.zeros(rows, SLOT),
        stacks=np.zeros((rows, STACK_WORDS), np.uint64),
        hashes=np.zeros((rows, 6), np.uint64),
        tails=np.zeros((rows, 32), np.uint8),
        head=np.zeros(max(head_limit, 1) if mode != NONE else 1, np.uint8),
        notes=np.zeros(NOTES_MAX if mode != NONE else 1, np.uint8),
        ring=make_ring(ring_bytes or RING_BYTES[mode]),
    )


NOTHING_KEPT = make_keeping(NONE, 1)

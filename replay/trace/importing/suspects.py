"""Packs the names of secret parameters for the kernels."""

from __future__ import annotations

import numpy as np

from replay.trace.dictionary import Bytes, Int64s
from replay_native.importing import suspects as kernels

from .secret_names import SECRET_NAMES, SECRET_SUFFIXES, SET_COOKIE


def packed_names() -> tuple[Bytes, Int64s]:
    """Return `keys` and `key_ends` for `replay_native.importing.suspects.is_secret_name`."""
    keys = [(name, True) for name in SECRET_SUFFIXES] + [(name, False) for name in SECRET_NAMES]
    keys.append((SET_COOKIE.replace("-", ""), False))
    keys.sort(key=lambda key: (key[0][-1], -len(key[0])))
    lasts = np.frombuffer("".join(name[-1] for name, _ in keys).encode(), np.uint8)
    begins = np.cumsum([0, *(len(name) for name, _ in keys)])
    ends = 2 * begins + np.array([*(is_suffix for _, is_suffix in keys), False], np.int64)
    firsts = np.searchsorted(lasts, np.arange(kernels.FIRST_KEYS))
    data = np.frombuffer(bytearray("".join(name for name, _ in keys).encode()), np.uint8)
    return data, np.concatenate([firsts, ends]).astype(np.int64)

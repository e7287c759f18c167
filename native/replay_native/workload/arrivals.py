"""When generated requests arrive: a renewal process of mean 1, mapped to the time of a rate curve by inversion.

A gap of the process is an area under the curve. The next arrival is where this area ends (time-change inversion:
Cinlar 1975, 4.7). A two-state Markov chain may modulate the curve (MMPP2). The state is kept between two calls, so
that portions of any size give the same arrivals.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import exponential_of, random_of, unit_of

EVEN, POISSON, GAMMA = 0, 1, 2
"""Kinds of processes: gaps of exactly 1 (the first is 0); exponential gaps; gaps that are Gamma variates of a shape."""

COUNTER, SEGMENT, BEGIN_NS, END_NS, CHAIN_STATE, SWITCH_NS, SWITCHES, STARTED = 0, 1, 2, 3, 4, 5, 6, 7
STATE_WORDS = 8
AREA, PIECE_AREA, BEGIN_RATE, END_RATE = 0, 1, 2, 3
STATE_REALS = 4
"""State of a process: `words` int64 and `reals` float64, which are zeros at the start.

A piece is a part of a segment in which the chain stays in one state.
"""

NEVER_NS = np.int64(1) << np.int64(62)
_GAPS, _CHAIN = np.uint64(0x67617073), np.uint64(0x636861696E)
_NS = 1e9


@bundle
class Process(NamedTuple):
    """A process and its curve."""

    edges_ns: Annotated[
        Array, "int64[::1]", "where the segments of the curve begin, from 0 on, and where the last one ends"
    ]
    rates: Annotated[
        Array, "float64[:, ::1]", "per segment: requests per second at its begin and end, linear between them"
    ]
    kind: Annotated[int, "int64", "EVEN, POISSON or GAMMA"]
    shape: Annotated[float, "float64", "the shape of GAMMA"]
    modulation: Annotated[
        Array,
        "float64[::1]",
        "factors of the chain's two states, then their mean dwell times in ns (0: no chain)",
    ]
    seed: Annotated[int, "uint64", "seed of the random draws"]


PROCESS_TYPE = numba_type(Process)


@kernel(inlined=True)
def _draw(seed, words):
    bits = random_of(seed, words[COUNTER], _GAPS)
    words[COUNTER] += 1
    return bits


@kernel()
def _normal(seed, words):
    """Return a standard normal variate (Box and Muller 1958)."""
    radius = math.sqrt(-2.0 * math.log(unit_of(_draw(seed, words))))
    return radius * math.cos(2.0 * math.pi * unit_of(_draw(seed, words)))


@kernel()
def _gamma(seed, words, shape):
    """Return a Gamma variate of mean 1 (Marsaglia and Tsang 2000).

    It uses their squeeze, and for shapes below 1 their boost.
    """
    raised = shape if shape >= 1.0 else shape + 1.0
    d = raised - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = _normal(seed, words)
        v = 1.0 + c * x
        if v > 0.0:
            v = v * v * v
            u = unit_of(_draw(seed, words))
            if u < 1.0 - 0.0331 * x * x * x * x or math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
                break
    if shape < 1.0:
        return d * v * unit_of(_draw(seed, words)) ** (1.0 / shape) / shape
    return d * v / shape


@kernel(inlined=True)
def _gap(process, shape, seed, words):
    """Return the next gap. The first gap of an EVEN process is 0, so that its arrivals begin with the curve."""
    if process == POISSON:
        return exponential_of(_draw(seed, words))
    if process == GAMMA:
        return _gamma(seed, words, shape)
    words[COUNTER] += 1
    return 0.0 if words[COUNTER] == 1 else 1.0


@kernel()
def _switch(modulation, seed, words):
    """Move the chain to its other state. At the first call, draw the state that it begins in."""
    if modulation[2] <= 0.0:
        words[SWITCH_NS] = NEVER_NS
        return
    bits = random_of(seed, words[SWITCHES], _CHAIN)
    if words[SWITCHES] == 0:
        share = modulation[2] / (modulation[2] + modulation[3])
        words[CHAIN_STATE] = 0 if unit_of(bits) <= share else 1
        words[SWITCHES] = 1
        bits = random_of(seed, words[SWITCHES], _CHAIN)
    else:
        words[CHAIN_STATE] = 1 - words[CHAIN_STATE]
    words[SWITCHES] += 1
    dwell_ns = exponential_of(bits) * modulation[2 + words[CHAIN_STATE]]
    words[SWITCH_NS] += max(np.int64(1), np.int64(min(dwell_ns, 4e18)))


@kernel()
def _next_piece(process, words, reals):
    """Continue with the next piece of the curve. False if the curve has ended."""
    edges_ns, rates, modulation = process.edges_ns, process.rates, process.modulation
    if words[STARTED] == 0:
        words[STARTED] = 1
        words[END_NS] = edges_ns[0]
        words[SWITCH_NS] = edges_ns[0]
    while words[SEGMENT] < rates.shape[0] and words[END_NS] >= edges_ns[words[SEGMENT] + 1]:
        words[SEGMENT] += 1
    segment = words[SEGMENT]
    if segment >= rates.shape[0]:
        return False
    if words[END_NS] >= words[SWITCH_NS]:
        _switch(modulation, process.seed, words)
    begin_ns = words[END_NS]
    end_ns = min(edges_ns[segment + 1], words[SWITCH_NS])
    length_ns = np.float64(edges_ns[segment + 1] - edges_ns[segment])
    slope = (rates[segment, 1] - rates[segment, 0]) / length_ns
    factor = modulation[words[CHAIN_STATE]]
    reals[BEGIN_RATE] = factor * (rates[segment, 0] + slope * np.float64(begin_ns - edges_ns[segment]))
    reals[END_RATE] = factor * (rates[segment, 0] + slope * np.float64(end_ns - edges_ns[segment]))
    if rates[segment, 0] == rates[segment, 1]:
        reals[END_RATE] = reals[BEGIN_RATE]
    words[BEGIN_NS], words[END_NS] = begin_ns, end_ns
    reals[AREA] = 0.0
    reals[PIECE_AREA] = 0.5 * (reals[BEGIN_RATE] + reals[END_RATE]) * np.float64(end_ns - begin_ns) / _NS
    return True


@kernel(inlined=True)
def _ns_at(area, begin_rate, end_rate, length_ns):
    """Return how far into a piece, in ns, its area reaches `area`: the numerically stable root of the quadratic."""
    if begin_rate == end_rate:
        return area * _NS / begin_rate
    slope = (end_rate - begin_rate) / length_ns * _NS
    root = math.sqrt(max(0.0, begin_rate * begin_rate + 2.0 * slope * area))
    return 2.0 * area / (begin_rate + root) * _NS


@kernel(types.int64(PROCESS_TYPE, types.int64, types.int64[::1], types.float64[::1], types.int64[::1]))
def arrive(process, start_ns, words, reals, out_at_ns):
    """Write the next arrivals in order, in ns from `start_ns` on, and return how many.

    They are fewer than `out_at_ns` can hold only if the curve has ended.
    """
    written = np.int64(0)
    while written < out_at_ns.shape[0]:
        gap = _gap(process.kind, process.shape, process.seed, words)
        while reals[AREA] + gap >= reals[PIECE_AREA]:
            gap -= reals[PIECE_AREA] - reals[AREA]
            reals[AREA] = reals[PIECE_AREA]
            if not _next_piece(process, words, reals):
                return written
        reals[AREA] += gap
        length_ns = words[END_NS] - words[BEGIN_NS]
        into_ns = np.int64(
            np.rint(_ns_at(reals[AREA], reals[BEGIN_RATE], reals[END_RATE], np.float64(length_ns)))
        )
        out_at_ns[written] = start_ns + words[BEGIN_NS] + min(into_ns, length_ns - 1)
        written += 1
    return written

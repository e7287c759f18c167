"""How bursty arrivals are: moments of their counts in windows, of their gaps, and of their sessions.

They are computed in one pass over time stamps in order. Only the sessions need memory that grows with the trace: 8
bytes per client.
"""

from __future__ import annotations

import math

import numpy as np

from replay_native.ground.jit import kernel

BLOCKS = 64
"""Equal parts of the time span. Each is resampled as a whole, because neighboring windows depend on each other."""

BIN, COUNT = 0, 1
SUM, SQUARES = 0, 1

GAPS, GAP_SUM, GAP_SQUARES, GAP_LAGGED, GAP_FIRST, GAP_LAST, LAST_NS = 0, 1, 2, 3, 4, 5, 6
GAP_WORDS = 7

GAP_BINS, GAP_BINS_A_DECADE, GAP_DECADES_BELOW = 1_600, 100, 10
"""Logarithmic bins of a histogram of gaps, which are in units of their mean."""


@kernel(inlined=True)
def _settle(word, sums, bins):
    """Count a window that is complete. Windows after the last whole one are not counted."""
    if word[BIN] < bins:
        block = word[BIN] * BLOCKS // bins
        count = np.float64(word[COUNT])
        sums[block, SUM] += count
        sums[block, SQUARES] += count * count


@kernel("void(int64[::1], int64, int64[::1], int64[::1], int64[:,::1], float64[:,:,::1])")
def count_windows(at_ns, start_ns, windows_ns, bins, words, sums):
    """Add the counts of windows to sums float64[windows, BLOCKS, 2]: the counts, and their squares.

    There are bins[i] whole windows of kind i from start_ns on. words int64[windows, 2], zeros at first, is the window
    that is not complete yet.
    """
    for window in range(windows_ns.shape[0]):
        width_ns, word = windows_ns[window], words[window]
        for index in range(at_ns.shape[0]):
            place = (at_ns[index] - start_ns) // width_ns
            if place != word[BIN]:
                _settle(word, sums[window], bins[window])
                word[BIN], word[COUNT] = place, 0
            word[COUNT] += 1


@kernel("void(int64[::1], int64[:,::1], float64[:,:,::1])")
def end_windows(bins, words, sums):
    """Count the last windows, which `count_windows` has not counted yet."""
    for window in range(bins.shape[0]):
        _settle(words[window], sums[window], bins[window])


@kernel("void(int64[::1], int64, float64, float64[::1], int64[::1])")
def count_gaps(at_ns, start_ns, mean_ns, words, histogram):
    """Add gaps to their moments (words float64[GAP_WORDS], in units of mean_ns) and to histogram int64[GAP_BINS].

    words[LAST_NS], in ns since start_ns, must be -1 at first.
    """
    for index in range(at_ns.shape[0]):
        if words[LAST_NS] >= 0.0 or index > 0:
            before_ns = np.float64(at_ns[index - 1] - start_ns) if index > 0 else words[LAST_NS]
            gap = (np.float64(at_ns[index] - start_ns) - before_ns) / mean_ns
            if words[GAPS] == 0.0:
                words[GAP_FIRST] = gap
            else:
                words[GAP_LAGGED] += words[GAP_LAST] * gap
            words[GAPS] += 1.0
            words[GAP_SUM] += gap
            words[GAP_SQUARES] += gap * gap
            words[GAP_LAST] = gap
            place = np.int64(0)
            if gap > 0.0:
                place = np.int64((math.log10(gap) + GAP_DECADES_BELOW) * GAP_BINS_A_DECADE)
            histogram[min(max(place, np.int64(0)), np.int64(GAP_BINS - 1))] += 1
    if at_ns.shape[0] > 0:
        words[LAST_NS] = np.float64(at_ns[at_ns.shape[0] - 1] - start_ns)


@kernel("void(int64[::1], uint32[::1], int64, int64, int64, int64[::1], int64[::1], int64[::1])")
def count_sessions(at_ns, client, start_ns, pause_ns, bin_ns, last_ns, opened, words):
    """Count sessions (words[0]), and how many of them are open.

    `opened` int64[bins] gets the change of the number of open sessions in each bin of time. last_ns int64[clients]
    must be -1 for clients that were not seen yet. A session ends with its last row. `opened` does not contain the ends
    of the clients' last sessions, which the caller subtracts.
    """
    for index in range(at_ns.shape[0]):
        who, at = np.int64(client[index]), at_ns[index] - start_ns
        if last_ns[who] < 0 or at - last_ns[who] >= pause_ns:
            words[0] += 1
            opened[at // bin_ns] += 1
            if last_ns[who] >= 0:
                opened[last_ns[who] // bin_ns + 1] -= 1
        last_ns[who] = at

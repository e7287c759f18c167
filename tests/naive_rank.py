"""Permutation of run labels as the textbook says it: every labelling listed, every t by means and variances."""

from __future__ import annotations

import itertools
import math

Runs = list[list[float]]
Labels = tuple[int, ...]


def labellings(blocks: list[int], observed: list[int]) -> list[Labels]:
    """Every labelling with as many new runs in each block as observed."""
    choices = []
    for size in blocks:
        part, observed = observed[:size], observed[size:]
        chosen = itertools.combinations(range(size), sum(part))
        choices.append([tuple(int(i in new) for i in range(size)) for new in chosen])
    return [sum(parts, ()) for parts in itertools.product(*choices)]


def centred(values: list[float], blocks: list[int]) -> list[float]:
    """Values less their block's mean."""
    out: list[float] = []
    for size in blocks:
        part, values = values[:size], values[size:]
        out += [value - sum(part) / size for value in part]
    return out


def effect_and_t(values: list[float], labels: Labels, blocks: list[int]) -> tuple[float, float]:
    """The regression of values on labels, with a level a block: its slope and |t|."""
    y, g = centred(values, blocks), centred(list(map(float, labels)), blocks)
    weight = sum(a * a for a in g)
    slope = sum(a * b for a, b in zip(g, y, strict=True)) / weight
    rest = sum((b - slope * a) ** 2 for a, b in zip(g, y, strict=True))
    freedom = len(y) - len(blocks) - 1
    if rest <= 1e-18 * max(sum(b * b for b in y), 1e-300):
        return slope, math.inf if slope else 0.0
    return slope, abs(slope) / math.sqrt(rest / freedom / weight)


def adjusted_p(columns: Runs, observed: Labels, blocks: list[int]) -> list[float]:
    """Share of labellings whose largest |t| over the metrics reaches each metric's own."""
    everything = labellings(blocks, list(observed))
    largest = [max(effect_and_t(column, labels, blocks)[1] for column in columns) for labels in everything]
    out = []
    for column in columns:
        own = effect_and_t(column, observed, blocks)[1]
        out.append(sum(t >= own * (1 - 1e-9) for t in largest) / len(everything))
    return out


def kept(columns: Runs, metric: int, shift: float, observed: Labels, blocks: list[int]) -> float:
    """The p-value of "metric's effect is `shift`", the others being shifted back by their estimates."""

    def less(column: list[float], by: float) -> list[float]:
        return [value - by * new for value, new in zip(column, observed, strict=True)]

    aligned = [less(column, effect_and_t(column, observed, blocks)[0]) for column in columns]
    aligned[metric] = less(columns[metric], shift)
    own = effect_and_t(aligned[metric], observed, blocks)[1]
    everything = labellings(blocks, list(observed))
    reach = [max(effect_and_t(column, labels, blocks)[1] for column in aligned) for labels in everything]
    return sum(t >= own * (1 - 1e-9) for t in reach) / len(everything)

"""Permutation of run labels as the textbook says it: every labelling listed, every t by means and variances."""

from __future__ import annotations

import itertools
import math

import numpy as np

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


def effect_and_square(values: list[float], labels: Labels, blocks: list[int]) -> tuple[float, float, float]:
    """The regression of values on labels, with a level a block: its slope, the slope's squared error, and what is left of
    the values. HC2: a residual counts as many times as its leverage takes from it.
    """
    y, g = centred(values, blocks), centred(list(map(float, labels)), blocks)
    sizes = [size for size in blocks for _ in range(size)]
    weight = sum(a * a for a in g)
    slope = sum(a * b for a, b in zip(g, y, strict=True)) / weight
    rest = [b - slope * a for a, b in zip(g, y, strict=True)]
    square = 0.0
    for a, r, size in zip(g, rest, sizes, strict=True):
        if abs(a) > 1e-12:
            square += a * a * r * r / (1 - 1 / size - a * a / weight)
    left = sum(r * r for r in rest)
    return slope, square / weight**2, left / max(sum(b * b for b in y), 1e-300)


def effect_and_t(values: list[float], labels: Labels, blocks: list[int]) -> tuple[float, float]:
    """The slope and its |t|: none where it is zero, infinite where nothing scatters."""
    slope, square, left = effect_and_square(values, labels, blocks)
    if left <= 1e-18 or square <= 0:
        return slope, math.inf if abs(slope) > 1e-12 else 0.0
    return slope, abs(slope) / math.sqrt(square)


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
    aligned = [less(column, effect_and_t(column, observed, blocks)[0], observed) for column in columns]
    aligned[metric] = less(columns[metric], shift, observed)
    own = effect_and_t(aligned[metric], observed, blocks)[1]
    everything = labellings(blocks, list(observed))
    reach = [max(effect_and_t(column, labels, blocks)[1] for column in aligned) for labels in everything]
    return sum(t >= own * (1 - 1e-9) for t in reach) / len(everything)


def kept_beyond(columns: Runs, metric: int, shift: float, observed: Labels, blocks: list[int]) -> float:
    """Share of labellings that keep `shift`, or an effect further away from the estimate on the same side."""
    aligned = [less(column, effect_and_t(column, observed, blocks)[0], observed) for column in columns]
    away = shift - effect_and_t(columns[metric], observed, blocks)[0]
    others = [column for at, column in enumerate(aligned) if at != metric]
    error = math.sqrt(effect_and_square(aligned[metric], observed, blocks)[1])
    everything = labellings(blocks, list(observed))
    found = 0
    for labels in everything:
        reach = max((effect_and_t(column, labels, blocks)[1] for column in others), default=0.0)
        farthest = max(reach * error, _farthest(aligned[metric], labels, observed, blocks, error, away))
        found += farthest >= abs(away) * (1 - 1e-9)
    return found / len(everything)


def _farthest(
    aligned: list[float], labels: Labels, observed: Labels, blocks: list[int], error: float, away: float
) -> float:
    """How far out a labelling's |t| reaches the observed one, on the side of `away`: the zeros of a polynomial of degree
    four, which is fitted to five of its values.
    """
    if labels == observed or all(a != b for a, b in zip(labels, observed, strict=True)):
        return math.inf
    points = [-2.0, -1.0, 0.0, 1.0, 2.0]
    heights = []
    for u in points:
        slope, square, _ = effect_and_square(less(aligned, u * error, observed), labels, blocks)
        heights.append((slope / error) ** 2 - u * u * square / error**2)
    zeros = np.roots(np.polyfit(points, heights, 4))
    real = zeros.real[abs(zeros.imag) < 1e-6] * math.copysign(1.0, away)
    return error * float(max([0.0, *real.tolist()]))


def less(column: list[float], by: float, observed: Labels) -> list[float]:
    """Values with the new runs shifted back."""
    return [value - by * new for value, new in zip(column, observed, strict=True)]


def satterthwaite(base: list[float], new: list[float]) -> tuple[float, float]:
    """Welch's: the standard error of a difference of means, and its degrees of freedom."""
    parts = []
    for side in (base, new):
        mean = sum(side) / len(side)
        variance = sum((value - mean) ** 2 for value in side) / (len(side) - 1)
        parts.append((variance / len(side), len(side) - 1))
    total = sum(part for part, _ in parts)
    return math.sqrt(total), total**2 / sum(part**2 / freedom for part, freedom in parts)

"""The distance of records to the nearest other class, from predicted classes alone: HopSkipJump in
its L2 form without a target class (Chen, Jordan & Wainwright, S&P 2020, algorithm 2, and their
code).

A point of another class is pulled towards the record until the class changes; there, random
directions tell by their classes which way the boundary faces, and a step that way leads to a point
of another class that can be pulled closer. Records are points of the unit cube.

Departures from the authors' code:

- the first point of another class is the nearest of `starts`, not uniform noise, which all
  networks of some tables put into one class;
- the smallest of all distances counts, not the last;
- rounds go on until the budget is spent, not for a number; a step that after `HALVINGS` halvings
  has not reached another class is given up, and the next round tries other directions;
- many records are asked together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Predict = Callable[[torch.Tensor], torch.Tensor]

# of the authors' code: directions of the first round, and how far they reach there
FIRST_DIRECTIONS, FIRST_REACH = 100, 0.1
HALVINGS = 12  # of a step
AT_ONCE = 2**24  # numbers that the points of one round hold


def boundary_distances(
    predict: Predict,
    x: torch.Tensor,
    labels: torch.Tensor,
    *,
    starts: torch.Tensor,
    generator: torch.Generator,
    budget: int,
) -> torch.Tensor:
    """The L2 distance of each record to the closest point of another class than its own that is
    found, (n,).

    No smaller than the true distance. 0 of a record that is put into another class itself;
    sqrt(d), as long as the cube, where none of `starts` is put into another class.

    Args:
        predict: the classes (m,) of points (m, d); all that is asked of a model.
        x: (n, d), from 0 to 1.
        labels: (n,), their classes.
        starts: (m, d), where to look for points of another class.
        generator: of random directions, on the device of `x`.
        budget: the most queries a record, `starts` not counted.
    """
    import torch

    distances = torch.full((len(x),), math.sqrt(x.shape[1]), dtype=x.dtype, device=x.device)
    wrong = predict(x) != labels
    distances[wrong] = 0
    others, of_starts = starts.to(x), predict(starts)
    rounds = _rounds(x.shape[1], budget)
    size = max(1, AT_ONCE // (x.shape[1] * _directions(max(1, rounds))))
    for rows in (~wrong).nonzero()[:, 0].split(size):
        apart = torch.cdist(x[rows], others)
        apart[of_starts[None] == labels[rows, None]] = torch.inf
        nearest, index = apart.min(dim=1)
        found = nearest.isfinite()
        rows, index = rows[found], index[found]
        if len(rows):
            search = _Search(predict, x[rows], labels[rows], generator)
            distances[rows] = search.run(others[index], rounds)
    return distances


def _directions(number: int) -> int:
    """Random directions of a round, the first of which is 1."""
    return int(FIRST_DIRECTIONS * math.sqrt(number))


def _bisections(d: int) -> int:
    """Halvings of a segment until its length is below d ** -1.5 of what it was, and a thousandth."""
    return max(10, math.ceil(1.5 * math.log2(d)))


def _rounds(d: int, budget: int) -> int:
    """How many rounds a budget allows, whatever they find."""
    left, number = budget - 1 - _bisections(d), 0
    while left >= (cost := _directions(number + 1) + HALVINGS + _bisections(d)):
        left, number = left - cost, number + 1
    return number


class _Search:
    """The search for some records (n, d) that are put into their own classes."""

    def __init__(
        self, predict: Predict, x: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ):
        self.predict, self.x, self.labels, self.generator = predict, x, labels, generator

    def run(self, points: torch.Tensor, rounds: int) -> torch.Tensor:
        """The smallest distances (n,) that are found from points (n, d) of other classes."""
        import torch

        d = self.x.shape[1]
        reach = torch.full((len(points),), FIRST_REACH).to(points)
        edge = self.to_boundary(points)
        best = distance = (edge - self.x).norm(dim=1)
        for number in range(1, rounds + 1):
            direction = self.outward(edge, reach, _directions(number))
            points = self.step(edge, direction, distance / math.sqrt(number))
            reach = ((points - self.x).norm(dim=1) / d).clamp(min=torch.finfo(reach.dtype).eps)
            edge = self.to_boundary(points)
            distance = (edge - self.x).norm(dim=1)
            best = torch.minimum(best, distance)
        return best

    def is_other(self, points: torch.Tensor) -> torch.Tensor:
        """Whether points (n, ..., d) have another class than their record, (n, ...)."""
        classes = self.predict(points.reshape(-1, points.shape[-1])).view(points.shape[:-1])
        return classes != self.labels.view(-1, *[1] * (classes.dim() - 1))

    def to_boundary(self, points: torch.Tensor) -> torch.Tensor:
        """Points (n, d) of other classes, pulled towards the records as far as that lasts."""
        import torch

        low, high = (torch.full((len(points), 1), end).to(points) for end in (0.0, 1.0))
        closest = points
        for _ in range(_bisections(points.shape[1])):
            middle = (low + high) / 2
            tried = torch.lerp(self.x, points, middle)
            other = self.is_other(tried)[:, None]
            closest = torch.where(other, tried, closest)
            low, high = torch.where(other, low, middle), torch.where(other, middle, high)
        return closest

    def outward(self, edge: torch.Tensor, reach: torch.Tensor, count: int) -> torch.Tensor:
        """Estimates (n, d) of unit vectors that point into the other class at points of the
        boundary: the mean of directions by their signs, less the mean sign."""
        import torch

        shape = (len(edge), count, edge.shape[1])
        noise = torch.randn(shape, generator=self.generator, dtype=edge.dtype, device=edge.device)
        noise /= noise.norm(dim=2, keepdim=True)
        around = noise.mul_(reach[:, None, None]).add_(edge[:, None]).clamp_(0, 1)
        sign = 2 * self.is_other(around).to(edge.dtype) - 1
        mean = sign.mean(dim=1, keepdim=True)
        weight = torch.where(mean.abs() == 1, sign, sign - mean)  # without baseline where all agree
        towards = torch.einsum("nk,nkd->nd", weight, around - edge[:, None])
        return torch.nn.functional.normalize(towards, dim=1)

    def step(
        self, edge: torch.Tensor, direction: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        """Points (n, d) of other classes along a direction, as far as half of the lengths (n,)
        that are tried; where none is, the point of the boundary itself."""
        import torch

        length, points = length[:, None], edge
        pending = torch.ones_like(length, dtype=torch.bool)
        for _ in range(HALVINGS):
            if not pending.any():
                break
            tried = (edge + length * direction).clamp(0, 1)
            other = self.is_other(tried)[:, None] & pending
            points = torch.where(other, tried, points)
            pending, length = pending & ~other, length / 2
        return points

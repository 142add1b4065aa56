"""Perturbed copies of records, for attacks that see how often a predicted class stays (Choquette-Choo
et al., ICML 2021, and their code)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from core.devices import generator

if TYPE_CHECKING:
    import torch

    from datasets import Records

COPIES = 50  # of a record at each strength
# bits that are flipped of a binary record on average, around the authors' 1 to 10 of a record
FLIPS = (1, 3, 10, 30)
# standard deviations of normal noise, around the authors' .02 to .1 for pixels from 0 to 1
SIGMAS = (0.02, 0.05, 0.1, 0.25)


@dataclass(frozen=True, eq=False)
class UnitCube:
    """Records as points whose coordinates are from 0 to 1: pixels, bits, or where in the range of
    its column in the data set a number lies."""

    records: Records

    @cached_property
    def is_binary(self) -> bool:
        """Whether this is a table of nothing but 0 and 1."""
        x = self.records.x
        return x.dim() == 2 and bool(((x == 0) | (x == 1)).all())

    @cached_property
    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest value of each column of a table, and by how much the largest exceeds it,
        (D,)."""
        low, high = self.records.x.float().aminmax(dim=0)
        return low, high - low

    @property
    def strengths(self) -> list[float]:
        """How strong perturbations may be: the chance of a bit to be flipped, or sigma."""
        d = int(np.prod(self.records.shape))
        return [min(flips / d, 0.5) for flips in FLIPS] if self.is_binary else list(SIGMAS)

    def points(self, indices: torch.Tensor) -> torch.Tensor:
        """The records at `indices` (n,), as points (n, d)."""
        x = self.records.x[indices].float()
        if x.dim() == 4:
            return x.div_(255).flatten(1)
        low, extent = self.range
        return (x - low) / extent.where(extent > 0, 1)

    def inputs(self, points: torch.Tensor) -> torch.Tensor:
        """Points (n, d) as a network takes them, (n, *shape)."""
        records = self.records
        if len(records.shape) == 3:
            x = points.view(-1, *records.shape)
            if records._mean is None or records._std is None:
                return x
            return (x - records._mean) / records._std
        low, extent = self.range
        return low + points * extent

    def noise(self, record_ids: np.ndarray, *, seed: int) -> torch.Tensor:
        """What the copies of records (n,) are made from, (n, COPIES, d): a uniform number for each
        bit, else a normal one; a record's depend on its number and the seed alone."""
        import torch

        draw = torch.rand if self.is_binary else torch.randn
        shape = COPIES, int(np.prod(self.records.shape))
        each = [
            draw(shape, generator=generator(seed, "mia", "copies", int(record)))
            for record in record_ids
        ]
        return torch.stack(each).to(self.records.x.device)

    def perturbed(self, points: torch.Tensor, noise: torch.Tensor, strength: float) -> torch.Tensor:
        """Copies (n, COPIES, d) of points (n, d): bits whose number is below the strength are
        flipped; else noise of this standard deviation is added, and cut off at 0 and 1."""
        if self.is_binary:
            return (points[:, None] - (noise < strength).to(points.dtype)).abs()
        return (points[:, None] + strength * noise).clamp(0, 1)

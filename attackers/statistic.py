"""One number a record and model, and each shadow model in turn as the victim."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

MIN_SHADOWS = 2  # shadows with a record, or without it, that say something of it


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number a record and model: an attack's statistic of all signals.

    Where several releases or queries were measured, the numbers of a record and model are K, on a
    last axis: victim (N, K), every_shadow (S, N, K), the release under attack, or the record as it
    is, first.

    Attributes:
        victim: (N,), of the model under attack.
        every_shadow: (S, N), of each shadow model.
        every_member: (S, N) bool, whom each was trained on (IN; all others are OUT).
        calibration_mask: (S, N) bool, which records each has as its members or non-members.
        target: (N,) bool, the records in question; all others are the population, known
            non-members.
        as_victim: the shadow that plays the victim; None where the victim is attacked.
    """

    victim: np.ndarray
    every_shadow: np.ndarray
    every_member: np.ndarray
    calibration_mask: np.ndarray
    target: np.ndarray
    as_victim: int | None = None

    @classmethod
    def of(cls, evidence, statistic: Callable[..., np.ndarray]) -> Statistic:
        """A statistic(signals, labels) -> (N,) of every model in evidence of either kind."""
        of_shadows = [statistic(shadow, evidence.labels) for shadow in evidence.shadows]
        return cls(
            statistic(evidence.victim, evidence.labels),
            np.stack(of_shadows),
            evidence.member,
            evidence.calibration_mask,
            evidence.target,
        )

    @cached_property
    def references(self) -> np.ndarray:
        """(S,) bool, the shadows that the victim is compared with.

        Of a shadow that plays the victim, neither itself nor its partner: a shadow trained on just
        those of its targets that it was not trained on itself. Where shadows are dealt in such
        pairs (the in/out split), each record is IN half of the others then, whether or not it is a
        member; with the partner among them, the count would tell.
        """
        if self.as_victim is None:
            return np.ones(len(self.every_shadow), dtype=bool)
        on_targets = self.every_member[:, self.target]
        partner = (on_targets != on_targets[self.as_victim]).all(axis=1) & self.target.any()
        return ~partner & (np.arange(len(partner)) != self.as_victim)

    @property
    def shadows(self) -> np.ndarray:
        """(R, N), of the `references`."""
        return self.every_shadow if self.references.all() else self.every_shadow[self.references]

    @property
    def member(self) -> np.ndarray:
        """(R, N) bool, whom the `references` were trained on."""
        return self.every_member if self.references.all() else self.every_member[self.references]

    def each(self) -> list[Statistic]:
        """Of each of the K numbers alone."""
        return [
            replace(self, victim=self.victim[..., k], every_shadow=self.every_shadow[..., k])
            for k in range(self.victim.shape[-1])
        ]

    def leave_one_out(self) -> Iterator[tuple[Statistic, np.ndarray]]:
        """Each shadow in turn as the victim against its `references`, and who of its targets is a
        member.

        Its targets are its own records, its population all that are not.
        """
        for index, (values, target) in enumerate(zip(self.every_shadow, self.calibration_mask)):
            role = replace(self, victim=values, target=target, as_victim=index)
            yield role, self.every_member[index, target]


def mean_where(
    values: np.ndarray, chosen: np.ndarray, *, least: int, trim: float = 0.0
) -> np.ndarray:
    """Mean of values (S, n) over the chosen of each column, (n,); NaN where they are fewer than
    `least`.

    `trim`: the share of a column's chosen, rounded down to a whole number, that is left out at
    either end, as scipy.stats.trim_mean does; below .5.
    """
    count = chosen.sum(axis=0)
    cut = (trim * count).astype(int)
    if cut.any():
        values = np.sort(np.where(chosen, values, np.inf), axis=0)  # the chosen first, in order
        rank = np.arange(len(values))[:, None]
        chosen = (rank >= cut) & (rank < count - cut)
    total = np.where(chosen, values, 0.0).sum(axis=0)
    return np.where(count >= least, total / np.maximum(count - 2 * cut, 1), np.nan)

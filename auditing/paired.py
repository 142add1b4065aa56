"""The released model beside its original: differences of an attack's measures, paired by record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from auditing.result import AttackResult, Comparison, Estimate

MEASURES = ("accuracy", "auc", "tpr_at_0.01")
LIMIT = 0.01  # of the last
TIMES = 1000  # data sets that are drawn
AT_A_TIME = 500_000  # weights in memory
ENDS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """One attack's scores in order, so that a weighted data set is measured by sums.

    Attributes:
        called: (n,) bool, whom the attack takes for a member; None where it has no threshold.
        member: (n,) bool, the truth.
        members, others: positions of either kind, the largest score first.
        above, above_or_equal: how many of `others` score above each of `members`, and at least as
            high.
        members_above: how many of `members` score above each of `others`.
    """

    called: np.ndarray | None
    member: np.ndarray
    members: np.ndarray
    others: np.ndarray
    above: np.ndarray
    above_or_equal: np.ndarray
    members_above: np.ndarray

    @classmethod
    def of(cls, result: AttackResult, member: np.ndarray) -> _Ranked:
        order = np.argsort(-result.scores, kind="stable")
        members, others = order[member[order]], order[~member[order]]
        ins, outs = -result.scores[members], -result.scores[others]
        return cls(
            result.called,
            member,
            members,
            others,
            np.searchsorted(outs, ins, side="left"),
            np.searchsorted(outs, ins, side="right"),
            np.searchsorted(ins, outs, side="left"),
        )

    def measured(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Each of `MEASURES` (B,) of B data sets, in which a target counts as often as its weight,
        (B, n); members and non-members are as many in each as there are."""
        ins, outs = weights[:, self.members], _sums(weights[:, self.others])
        return {
            "accuracy": self._accuracy(weights),
            "auc": self._auc(ins, outs),
            "tpr_at_0.01": self._tpr(ins, outs),
        }

    def _accuracy(self, weights: np.ndarray) -> np.ndarray:
        if self.called is None:
            return np.full(len(weights), np.nan)
        ins, right = self.member, self.called == self.member
        return weights @ (right * np.where(ins, 0.5 / ins.sum(), 0.5 / (~ins).sum()))

    def _auc(self, ins: np.ndarray, outs: np.ndarray) -> np.ndarray:
        """One minus the share of pairs in which the non-member scores above, of equal ones half."""
        wrong = (outs[:, self.above] + outs[:, self.above_or_equal]) / 2
        return 1 - (ins * wrong).sum(axis=1) / (len(self.members) * len(self.others))

    def _tpr(self, ins: np.ndarray, outs: np.ndarray) -> np.ndarray:
        """As `metrics.tpr_at_fpr`: above the first non-member with whom the FPR exceeds the limit."""
        shares = np.arange(len(self.others) + 1) / len(self.others)
        allowed = np.searchsorted(shares, LIMIT, side="right") - 1
        first = (outs[:, 1:] > allowed).argmax(axis=1)  # there is one, as LIMIT is below 1
        named = _sums(ins)[np.arange(len(ins)), self.members_above[first]]
        return named / len(self.members)


def _sums(weights: np.ndarray) -> np.ndarray:
    """The sums of the first 0, 1, ... of each row, (B, n + 1)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums


def resamplings(member: np.ndarray, *, times: int, seed: int) -> Iterator[np.ndarray]:
    """Weights (B, n) of bootstrap data sets, in pieces: as many members, and non-members, as there
    are, drawn with replacement from their kind."""
    draw = np.random.default_rng(seed)
    piece = max(1, AT_A_TIME // len(member))
    for begin in range(0, times, piece):
        count = min(piece, times - begin)
        weights = np.zeros((count, len(member)))
        for kind in (np.flatnonzero(member), np.flatnonzero(~member)):
            chosen = draw.integers(len(kind), size=(count, len(kind)))
            chosen += len(kind) * np.arange(count)[:, None]
            counts = np.bincount(chosen.ravel(), minlength=count * len(kind))
            weights[:, kind] = counts.reshape(count, len(kind))
        yield weights


def compare(
    results: Sequence[AttackResult], member: np.ndarray, *, seed: int, times: int = TIMES
) -> list[Comparison]:
    """Released minus original in each measure of each attack that was made on both.

    The interval is the percentile one of a bootstrap of the n targets, members and non-members
    apart (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3). In each data
    set both releases are measured on the same targets, so that what makes both easy or hard is no
    difference; a threshold at a FPR is found anew. As the intervals of `attackers.metrics`, it takes
    models and attacks as given.
    """
    pairs = []
    by_release = {(one.name, one.release): one for one in results}
    for one in results:
        other = by_release.get((one.name, "original"))
        if one.release == "released" and other is not None:
            pairs.append((one, other))
    ranked = [tuple(_Ranked.of(one, member) for one in pair) for pair in pairs]
    drawn: list[dict[str, list[np.ndarray]]] = [{name: [] for name in MEASURES} for _ in pairs]
    for weights in resamplings(member, times=times, seed=seed):
        for (released, original), differences in zip(ranked, drawn):
            of_released, of_original = released.measured(weights), original.measured(weights)
            for name, found in differences.items():
                found.append(of_released[name] - of_original[name])
    return [
        _comparison(pair, name, np.concatenate(differences[name]))
        for pair, differences in zip(pairs, drawn)
        for name in MEASURES
        if all(one.measures[name] is not None for one in pair)
    ]


def _comparison(
    pair: tuple[AttackResult, AttackResult], name: str, differences: np.ndarray
) -> Comparison:
    released, original = (one.measures[name] for one in pair)
    ends = map(float, np.quantile(differences, ENDS))
    return Comparison(pair[0].name, name, released, original, Estimate(released - original, *ends))

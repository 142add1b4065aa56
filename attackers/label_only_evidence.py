"""What an attacker has who sees the predicted class alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attackers import arrays
from attackers.statistic import Statistic


@dataclass(frozen=True, eq=False)
class ClassSignals:
    """The classes that one model puts N records into, and nothing else of its output.

    Attributes:
        classes: (N,), -1 of records that it was not asked for.
        copies: (L, K, N), of K copies of each record at each of L strengths; any number where the
            class of the record itself is wrong or not known. None where no copies were asked for.
        distances: (N,), L2 from the record to the nearest point of another class that was found;
            None where none was looked for.
    """

    classes: np.ndarray
    copies: np.ndarray | None = None
    distances: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class LabelOnlyEvidence:
    """All that an attacker has who sees predicted classes alone; no logits or posteriors.

    Attributes:
        victim, shadows: of the model under attack and of S shadow models.
        strengths: (L,), of the perturbations of `copies`.
        labels, member, calibration_mask, target, record_ids: as in `Evidence`.
    """

    labels: np.ndarray
    victim: ClassSignals
    shadows: list[ClassSignals]
    member: np.ndarray
    calibration_mask: np.ndarray
    target: np.ndarray
    strengths: tuple[float, ...] = ()
    record_ids: np.ndarray | None = None

    @classmethod
    def from_classes(  # many parameters: arrays that a user may have
        cls,
        labels,
        *,
        victim,
        shadows,
        member,
        copies=None,
        strengths=None,
        distances=None,
        target=None,
        calibration_mask=None,
    ) -> LabelOnlyEvidence:  # long: every array is explained
        """Evidence from predicted classes in arrays: labels (N,), victim (N,), shadows (S, N),
        member (S, N) bool.

        Args:
            copies: the victim's (L, K, N) and the shadows' (S, L, K, N), the classes of K perturbed
                copies at each of L strengths; for noise_robustness.
            strengths: (L,), by which the attack names the one that it has chosen; default 0 to
                L - 1.
            distances: the victim's (N,) and the shadows' (S, N), to the nearest point of another
                class; for boundary.
            target, calibration_mask: as in `Evidence.from_posteriors`.
        Raises:
            ValueError: shapes that don't fit, numbers that are no classes or distances; it names the
                argument and the first bad value.
        """
        n = len(arrays.shaped("labels", labels, (None,), "class numbers (N,)"))
        labels = _classes("labels", labels, (n,), "(N,)")
        shadows = _classes("shadows", shadows, (None, n), f"(S, N) of the N = {n} records")
        s = len(shadows)
        member, target, calibration_mask = arrays.membership(
            member, target, calibration_mask, shape=(s, n)
        )
        of_copies, strengths = _copies(copies, strengths, (s, n))
        of_distances: list = [None] * (s + 1)
        if distances is not None:
            first, others = arrays.pair("distances", distances, "the victim's and the shadows'")
            of_distances = [
                _distances("distances[0]", first, (n,)),
                *_distances("distances[1]", others, (s, n)),
            ]
        everyone = [_classes("victim", victim, (n,), f"(N,) of the N = {n} records"), *shadows]
        signals = [ClassSignals(*one) for one in zip(everyone, of_copies, of_distances)]
        return cls(
            labels,
            signals[0],
            signals[1:],
            member,
            calibration_mask,
            target,
            strengths,
            np.arange(n),
        )

    def measure(self, statistic: Callable[[ClassSignals, np.ndarray], np.ndarray]) -> Statistic:
        """Take a statistic(signals, labels) -> (N,) of every model."""
        return Statistic.of(self, statistic)


def _classes(name: str, value, shape: tuple[int | None, ...], words: str) -> np.ndarray:
    """Class numbers of this shape; how many classes there are is not known."""
    array = arrays.shaped(name, value, shape, f"class numbers {words}")
    flat = arrays.classes(name, array.ravel(), array.size, np.iinfo(np.int64).max)
    return flat.reshape(array.shape)


def _copies(value, strengths, shape: tuple[int, int]) -> tuple[list, tuple[float, ...]]:
    """The classes of copies for the victim and each shadow model, None for each where there are
    none, and the strengths; `shape` is (S, N)."""
    if value is None:
        return [None] * (shape[0] + 1), ()
    first, others = arrays.pair("copies", value, "the victim's (L, K, N) and the shadows'")
    first = _classes("copies[0]", first, (None, None, shape[1]), "(L, K, N)")
    wanted = (shape[0], *first.shape)
    others = _classes("copies[1]", others, wanted, "(S, L, K, N) as copies[0]")
    if strengths is None:
        strengths = range(len(first))
    known = arrays.shaped("strengths", list(strengths), (len(first),), "numbers (L,)")
    return [first, *others], tuple(known.astype(float).tolist())


def _distances(name: str, value, shape: tuple[int, ...]) -> np.ndarray:
    array = arrays.shaped(name, value, shape, "distances").astype(np.float64)
    bad = ~(array >= 0)
    if bad.any():
        raise ValueError(f"{name} has {array[bad][0]}: distances are 0 or more")
    return array

"""What an attacker has of the models, and what an attack says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from attackers import arrays
from core.console import NotApplicable
from core.imports import import_own

if TYPE_CHECKING:
    from datasets import Records

LOG_FLOOR = 1e-30  # posteriors are clamped here before a logarithm
MIN_SHADOWS = 2  # shadows with a record, or without it, that say something of it
SENSITIVITY_DRAWS, SENSITIVITY_EPSILON = 10, 1e-3  # of the sensitivity
# why an attack on several releases cannot be made, with its name
ONE_RELEASE = (
    "{} needs another release of the same models beside the one under attack: "
    "mia.py --also original, or on arrays Evidence.from_posteriors(..., also=...)"
)


@dataclass(frozen=True, eq=False)
class Signals:
    """The outputs of one model for N records.

    Attributes:
        logits: (N, C); where only posteriors are known, their logarithms.
        sensitivity: (N, C), see `BaseModel.sensitivity`; NaN in rows for which it was not computed;
            None where it was computed for none.
        exact_posteriors: (N, C), where they do not follow from the logits; else None.
    """

    logits: np.ndarray
    sensitivity: np.ndarray | None = None
    exact_posteriors: np.ndarray | None = None

    @classmethod
    def from_posteriors(cls, posteriors: np.ndarray) -> Signals:
        """The signals of a model of which only posteriors (N, C) are known."""
        exact = np.asarray(posteriors, dtype=np.float64)
        return cls(np.log(np.maximum(exact, LOG_FLOOR)), exact_posteriors=exact)

    def posteriors(self) -> tuple[np.ndarray, np.ndarray]:
        """Posteriors p and their complements 1 - p, both (N, C) float64; from logits, with all
        digits next to 0.

        The largest posterior is 1 / (1 + S), S the sum of all others' exp(z - z_max); so 1 - p is S
        / (1 + S) there, where 1.0 - p would be rounded to 0 for a confident model.
        """
        if self.exact_posteriors is not None:
            return self.exact_posteriors, 1.0 - self.exact_posteriors
        z = self.logits.astype(np.float64)
        rows, top = np.arange(len(z)), z.argmax(axis=1)
        e = np.exp(z - z[rows, top][:, None])
        e[rows, top] = 0.0
        others = e.sum(axis=1)
        e[rows, top] = 1.0
        p = e / (1.0 + others)[:, None]
        complement = 1.0 - p
        complement[rows, top] = others / (1.0 + others)
        return p, complement


@dataclass(frozen=True, eq=False)
class Release:
    """The signals of all models in one of the forms in which they were released.

    Attributes:
        victim: of the model under attack.
        shadows: of each of S shadow models, released in the same form.
    """

    victim: Signals
    shadows: list[Signals]

    @classmethod
    def from_posteriors(cls, victim: np.ndarray, shadows: np.ndarray) -> Release:
        """Of models of which only posteriors (N, C) and (S, N, C) are known."""
        of_shadows = [Signals.from_posteriors(shadow) for shadow in shadows]
        return cls(Signals.from_posteriors(victim), of_shadows)

    def with_sensitivity(self, victim: np.ndarray, shadows: np.ndarray) -> Release:
        """The same with sensitivities (N, C) and (S, N, C)."""
        return Release(
            replace(self.victim, sensitivity=victim),
            [replace(one, sensitivity=values) for one, values in zip(self.shadows, shadows)],
        )


def true_and_others(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true class's logits (N,), and all (N, C) with -inf in its place; float64."""
    others, rows = logits.astype(np.float64), np.arange(len(logits))
    true = others[rows, labels]
    others[rows, labels] = -np.inf
    return true, others


def log_odds(signals: Signals, labels: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """phi = log p_y - log sum_{c != y} p_c, (N,), from logits in float64 (Carlini et al., S&P 2022,
    section IV-C).

    `temperature` divides the logits before.
    """
    from scipy.special import logsumexp

    true, others = true_and_others(signals.logits.astype(np.float64) / temperature, labels)
    return true - logsumexp(others, axis=1)


def cross_entropy(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """-log p_y, (N,): log(1 + exp(-phi)), which keeps the digits of a loss next to 0."""
    return np.logaddexp(0.0, -log_odds(signals, labels))


@dataclass(frozen=True, eq=False)
class Statistic:
    """One number a record and model: an attack's statistic of all signals.

    Where several releases were measured, the numbers of a record and model are K, on a last axis:
    victim (N, K), every_shadow (S, N, K), the release under attack first.

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


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that an attacker has, without the truth: who of the targets is a member of the victim.

    N records are the targets, in the order of their numbers in the data set, and the population.

    Attributes:
        labels: (N,) int64.
        victim: signals of the model under attack.
        shadows: of each of S shadow models.
        member: (S, N) bool, whom each shadow was trained on (IN; all others are OUT).
        calibration_mask: (S, N) bool, which records each shadow has as members or non-members to
            learn an attack from.
        target: (N,) bool, the records in question; all others are the population, known
            non-members.
        online: whether shadows were trained on targets too, so that each target has shadows with
            and without it.
        records, record_ids: a data set, and the numbers (N,) of these records in it; None where
            unknown.
        generated: the victim's signals on generated records, and these records' labels; None where
            none were generated.
        also: other releases of the same victim and shadow models, by name: the same N records, the
            same order of shadows, the same `member`.
    """

    labels: np.ndarray
    victim: Signals
    shadows: list[Signals]
    member: np.ndarray
    calibration_mask: np.ndarray
    target: np.ndarray
    online: bool
    records: Records | None = None
    record_ids: np.ndarray | None = None
    generated: tuple[Signals, np.ndarray] | None = None
    also: dict[str, Release] = field(default_factory=dict)

    @classmethod
    def from_posteriors(  # many parameters: arrays that a user may have
        cls,
        labels,
        *,
        victim,
        shadows,
        member,
        target=None,
        calibration_mask=None,
        x=None,
        sensitivity=None,
        generated=None,
        also=None,
    ) -> Evidence:  # long: every array is explained
        """Evidence from posteriors in arrays: labels (N,), victim (N, C), shadows (S, N, C), member
        (S, N) bool.

        Tensors and nested lists will do; see `attackers.arrays` for what is converted and
        tolerated.

        Args:
            target: (N,) bool, default all.
            calibration_mask: (S, N) bool, whom each shadow has as members or non-members to learn
                an attack from; default the targets where a shadow was trained on one, else the
                population.
            x: the records, a table (N, D) float32 or images (N, C, H, W) uint8; for qmia.
            sensitivity: the victim's (N, C) and the shadows' (S, N, C); for samia.
            generated: the victim's posteriors (m, C) on generated records, and their labels (m,);
                for blindmi.
            also: {name of another release: (the victim's posteriors (N, C), the shadows'
                (S, N, C))}, in the same order of records and of shadows.
        Raises:
            ValueError: shapes that don't fit, labels that are no classes, posteriors that are none;
                it names the argument and the first bad value.
        """
        victim = arrays.posteriors("victim", victim, (None, None), "posteriors (N, C)")
        n, num_cls = victim.shape
        labels = arrays.classes("labels", labels, n, num_cls)
        shadows = arrays.posteriors(
            "shadows",
            shadows,
            (None, n, num_cls),
            f"posteriors (S, N, C) of the victim's N = {n} records and C = {num_cls} classes",
        )
        member, target, calibration_mask = arrays.membership(
            member, target, calibration_mask, shape=shadows.shape[:2]
        )
        others = arrays.releases(
            {} if also is None else also, shadows.shape, "the same records, shadows and classes"
        )
        attacked = Release.from_posteriors(victim, shadows)
        if sensitivity is not None:
            attacked = attacked.with_sensitivity(
                *arrays.sensitivity_pair(sensitivity, shadows.shape, target, calibration_mask)
            )
        if generated is not None:
            outputs, of_outputs = arrays.generated_pair(generated, num_cls)
            generated = Signals.from_posteriors(outputs), of_outputs
        return cls(
            labels,
            attacked.victim,
            attacked.shadows,
            member,
            calibration_mask,
            target,
            bool(member[:, target].any()),
            None if x is None else _records(x, labels, num_cls),
            np.arange(n),
            generated,
            {name: Release.from_posteriors(*both) for name, both in others.items()},
        )

    @classmethod
    def of(cls, labels, *, own=None, **arguments) -> Evidence:
        """`from_posteriors` by its first name, with `own` for what is now `calibration_mask`."""
        return cls.from_posteriors(
            labels, **arguments, **({} if own is None else {"calibration_mask": own})
        )

    def need_population(self) -> None:
        """Raise NotApplicable where there is none."""
        if self.target.all():
            raise NotApplicable(
                "this attack needs population records, known non-members: all records here are "
                "targets"
            )

    def releases(self) -> list[Release]:
        """The release under attack, then those of `also` in their order."""
        return [Release(self.victim, self.shadows), *self.also.values()]

    def need_releases(self, name: str) -> None:
        """Raise NotApplicable where the attack of this name has but one release."""
        if not self.also:
            raise NotApplicable(ONE_RELEASE.format(name))

    def measure(self, statistic: Callable[[Signals, np.ndarray], np.ndarray]) -> Statistic:
        """Take a statistic(signals, labels) -> (N,) of every model."""
        of_shadows = [statistic(shadow, self.labels) for shadow in self.shadows]
        return Statistic(
            statistic(self.victim, self.labels),
            np.stack(of_shadows),
            self.member,
            self.calibration_mask,
            self.target,
        )

    def measure_releases(self, statistic: Callable[[Signals, np.ndarray], np.ndarray]) -> Statistic:
        """Take it of every model in every release, on a last axis in the order of `releases`."""
        each = [
            replace(self, victim=one.victim, shadows=one.shadows).measure(statistic)
            for one in self.releases()
        ]
        return replace(
            each[0],
            victim=np.stack([one.victim for one in each], axis=-1),
            every_shadow=np.stack([one.every_shadow for one in each], axis=-1),
        )


def _records(x, labels: np.ndarray, num_cls: int) -> Records:
    """A data set of a table or of images."""
    import torch

    x = arrays.inputs("x", x, len(labels))
    half = (0.5,) * x.shape[1] if x.ndim == 4 else None
    return import_own("datasets").Records(
        torch.from_numpy(x), torch.from_numpy(labels), num_cls, half, half
    )


@dataclass(frozen=True, eq=False)
class Verdict:
    """An attack's decision on n targets: member where score >= threshold.

    Attributes:
        scores: (n,) float64, larger = rather a member; NaN where too few shadows were trained with
            or without the record (in no split of the bench), which counts as a non-member.
        threshold: a number, or (n,) where it depends on the record's class; from shadow models
            alone.
        chosen: the attack's settings that were chosen on the shadow models, by name.
    """

    scores: np.ndarray
    threshold: np.ndarray | float
    chosen: dict[str, float] = field(default_factory=dict)

    @property
    def member(self) -> np.ndarray:
        """(n,) bool."""
        return self.scores >= self.threshold


def always_fit(name: str, cache_key: list, train: Callable[[list], dict]) -> dict:
    """An attack's `fit_or_load` (see `attackers`) that stores nothing and trains every time."""
    return train([])

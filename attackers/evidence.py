"""What an attacker has of the models, and what an attack says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from attackers import arrays
from attackers.signals import Release, Signals, mean_of_views
from attackers.statistic import Statistic
from core.console import NotApplicable
from core.imports import import_own

if TYPE_CHECKING:
    from datasets import Records

# why an attack on several releases cannot be made, with its name
ONE_RELEASE = (
    "{} needs another release of the same models beside the one under attack: "
    "mia.py --also original, or on arrays Evidence.from_posteriors(..., also=...)"
)


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
        distillation=None,
        generated=None,
        also=None,
        views=None,
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
            distillation: posteriors after each of E epochs of distilling a model on records that are
                neither its members nor its non-members, the victim's (E, N, C) and the shadows'
                (S, E, N, C); for loss_trajectory and seqmia.
            generated: the victim's posteriors (m, C) on generated records, and their labels (m,);
                for blindmi.
            also: {name of another release: (the victim's posteriors (N, C), the shadows'
                (S, N, C))}, in the same order of records and of shadows.
            views: the victim's posteriors (V, N, C) and the shadows' (S, V, N, C) for V more
                queries a record, such as the image flipped or shifted.
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
        if distillation is not None:
            pair = arrays.several_pair(
                "distillation",
                distillation,
                shadows.shape,
                axis="E",
                words="after each epoch of a distillation",
            )
            attacked = _with_trajectories(attacked, labels, *pair)
        if views is not None:
            pair = arrays.several_pair(
                "views",
                views,
                shadows.shape,
                axis="V",
                words="of V other queries for the same records",
            )
            attacked = attacked.with_views(*pair)
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
        """Take a statistic(signals, labels) -> (N,) of every model, of several queries a record
        the mean."""
        return Statistic.of(self, lambda *of_model: mean_of_views(statistic, *of_model))

    def measure_views(self, statistic: Callable[[Signals, np.ndarray], np.ndarray]) -> Statistic:
        """Take it of every query, on a last axis in the order of `Signals.all_views`."""

        def of_all(signals: Signals, labels: np.ndarray) -> np.ndarray:
            return np.stack([statistic(view, labels) for view in signals.all_views], axis=-1)

        return Statistic.of(self, of_all)

    def measure_releases(self, statistic: Callable[[Signals, np.ndarray], np.ndarray]) -> Statistic:
        """Take it of every model in every release, on a last axis in the order of `releases`; of
        several queries a record the first."""
        each = [
            Statistic.of(replace(self, victim=one.victim, shadows=one.shadows), statistic)
            for one in self.releases()
        ]
        return replace(
            each[0],
            victim=np.stack([one.victim for one in each], axis=-1),
            every_shadow=np.stack([one.every_shadow for one in each], axis=-1),
        )


def _with_trajectories(
    release: Release, labels: np.ndarray, victim: np.ndarray, shadows: list[np.ndarray]
) -> Release:
    """The release with what models said after each epoch of their distillation."""
    of = import_own(
        "attackers.distillation"
    ).distillation  # not before: it imports torch and this file

    def distilled(signals: Signals, epochs: np.ndarray) -> Signals:
        return replace(signals, distillation=of(map(Signals.from_posteriors, epochs), labels))

    of_shadows = [distilled(one, epochs) for one, epochs in zip(release.shadows, shadows)]
    return Release(distilled(release.victim, victim), of_shadows)


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
        shadow_scores: (S, N), what each record scores where each shadow plays the victim, NaN where
            it is not in that one's `calibration_mask` or likewise; None of attacks in which none
            plays the victim.
    """

    scores: np.ndarray
    threshold: np.ndarray | float
    chosen: dict[str, float] = field(default_factory=dict)
    shadow_scores: np.ndarray | None = None

    @property
    def member(self) -> np.ndarray:
        """(n,) bool."""
        return self.scores >= self.threshold


def always_fit(name: str, cache_key: list, train: Callable[[list], dict]) -> dict:
    """An attack's `fit_or_load` (see `attackers`) that stores nothing and trains every time."""
    return train([])

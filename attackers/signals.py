"""The outputs of models, and what is computed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

LOG_FLOOR = 1e-30  # posteriors are clamped here before a logarithm
SENSITIVITY_DRAWS, SENSITIVITY_EPSILON = 10, 1e-3  # of the sensitivity


@dataclass(frozen=True, eq=False)
class Signals:
    """The outputs of one model for N records.

    Attributes:
        logits: (N, C); where only posteriors are known, their logarithms.
        sensitivity: (N, C), see `BaseModel.sensitivity`; NaN in rows for which it was not computed;
            None where it was computed for none.
        exact_posteriors: (N, C), where they do not follow from the logits; else None.
        distillation: (N, E, 5), the metrics of each record after each epoch of the model's
            distillation (see `attackers.distillation`); NaN in rows for which they were not computed;
            None where the model was not distilled.
        views: of other queries for the same records, such as images flipped or shifted, in one
            order for all models.
    """

    logits: np.ndarray
    sensitivity: np.ndarray | None = None
    exact_posteriors: np.ndarray | None = None
    distillation: np.ndarray | None = None
    views: tuple[Signals, ...] = ()

    @property
    def all_views(self) -> tuple[Signals, ...]:
        """These, of the records as they are, and those of the other queries."""
        return self, *self.views

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

    def with_views(self, victim: np.ndarray, shadows: Sequence[np.ndarray]) -> Release:
        """The same with posteriors (V, N, C) of V other queries, and those of each shadow."""

        def seen(signals: Signals, views: np.ndarray) -> Signals:
            return replace(signals, views=tuple(map(Signals.from_posteriors, views)))

        return Release(seen(self.victim, victim), list(map(seen, self.shadows, shadows)))

    def with_sensitivity(self, victim: np.ndarray, shadows: np.ndarray) -> Release:
        """The same with sensitivities (N, C) and (S, N, C)."""
        return Release(
            replace(self.victim, sensitivity=victim),
            [replace(one, sensitivity=values) for one, values in zip(self.shadows, shadows)],
        )


def mean_of_views(
    statistic: Callable[[Signals, np.ndarray], np.ndarray], signals: Signals, labels: np.ndarray
) -> np.ndarray:
    """The mean of a statistic(signals, labels) -> (N,) over all queries."""
    return np.mean([statistic(view, labels) for view in signals.all_views], axis=0)


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

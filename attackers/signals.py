"""What an attacker has of a model, and what an attack says."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from base_model import BaseModel
    from datasets import Records


@dataclass(frozen=True)
class Signals:
    """The answers of one model to queries for n records.

    Attributes:
        logits: (n, C) float32.
        labels: (n,) int64, the true classes.
        sensitivity: (n, C) float32, see `BaseModel.sensitivity`.
    """

    logits: np.ndarray
    labels: np.ndarray
    sensitivity: np.ndarray

    @property
    def num_cls(self) -> int:
        return self.logits.shape[1]


@dataclass(frozen=True)
class Shadow:
    """A shadow model's signals and, since the attacker trained it, who of the n records is a member (bool)."""

    signals: Signals
    member: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """An attack's word on n target records: member where score >= threshold.

    Attributes:
        scores: (n,) float64, larger = rather a member.
        threshold: a number, or (n,) where it depends on the record's class; from shadow models alone.
    """

    scores: np.ndarray
    threshold: np.ndarray | float

    @property
    def member(self) -> np.ndarray:
        """(n,) bool."""
        return self.scores >= self.threshold


def posterior_and_complement(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Softmax p of logits (n, C) and 1 - p, both float64 and both with all their digits next to 0.

    The largest posterior is 1 / (1 + S), S the sum of all others' exp(z - z_max); so 1 - p is S / (1 + S)
    there, where 1.0 - p would be rounded to 0 for a confident model.
    """
    z = logits.astype(np.float64)
    rows, top = np.arange(len(z)), z.argmax(axis=1)
    e = np.exp(z - z[rows, top][:, None])
    e[rows, top] = 0.0
    others = e.sum(axis=1)
    e[rows, top] = 1.0
    p = e / (1.0 + others)[:, None]
    complement = 1.0 - p
    complement[rows, top] = others / (1.0 + others)
    return p, complement


def query(model: BaseModel, records: Records, numbers: np.ndarray, *, generator: torch.Generator) -> Signals:
    """Ask a model about the records of these numbers (n,); `generator` draws the noise of the sensitivity."""
    import torch

    indices = torch.from_numpy(numbers).to(records.y.device)
    return Signals(logits=model.logits(records, indices).cpu().numpy(), labels=records.y[indices].cpu().numpy(),
                   sensitivity=model.sensitivity(records, indices, generator=generator).cpu().numpy())

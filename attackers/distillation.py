"""Attacks on what a model tells of a record while it is distilled: TrajectoryMIA (Liu et al.,
"Membership Inference Attacks by Exploiting Loss Trajectory", CCS 2022) and SeqMIA (Li et al.,
"SeqMIA: Sequential-Metric Based Membership Inference Attack", CCS 2024).

The attacker distils each model under attack, the victim and every shadow, into a fresh network of
the same architecture (that of the shadow models) on records of the attacker's own (`bench.distilling`). The losses, or several
metrics, of a record after each epoch of that, and under the model itself at the end, are a
sequence that a network classifies. It is learnt on the shadow models.

Settings are those of the authors' code (DennisLiu2022/Membership-Inference-Attacks-by-Exploiting-
Loss-Trajectory, AIPAG/SeqMIA). Where both attacks depart from it:

- a fifth of the shadow models' records is held out: the attack network is that of the epoch that
  makes them likeliest, and the threshold is the best for them. The authors of TrajectoryMIA report the best epoch
  on the victim's own records, those of SeqMIA take the last epoch, both with threshold 0;
- features are standardised by those of the shadow records, as losses of small sets reach far;
- all shadow models are distilled, not one;
- networks start as all of this project do (`models.layers.initialise`).

And each for itself: TrajectoryMIA's perceptron ends in logits, not in a softmax before the
cross-entropy; SeqMIA's learning rate is the mean of theirs, which falls from .01 by a tenth every
ten epochs, and its weight decay is that of biases too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict
from attackers.learning import Learner, a_share, member_log_odds
from attackers.signals import Signals, cross_entropy
from attackers.threshold import negative_entropy, negative_modified_entropy, top1_confidence
from base_model import TrainConfig
from core.console import NotApplicable, UserError
from core.devices import generator

METRICS = ("loss", "max", "sd", "entropy", "mentr")  # SeqMIA's five
LOSS = METRICS.index("loss")
FEWEST = 20  # records to distil on
HELD_OUT = 0.2  # share of the shadow models' records
SEQUENCE_EPOCHS = 50  # of the distillation, that SeqMIA looks at
TRAJECTORY_CONFIG = TrainConfig(
    epochs=100, batch_size=128, optimizer="sgd", lr=1e-2, weight_decay=1e-4
)
SEQUENCE_CONFIG = TrainConfig(epochs=150, batch_size=100, lr=5e-3, weight_decay=1e-4)


def metrics(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """The cross-entropy, largest posterior, standard deviation of the posteriors, entropy and
    modified entropy of each record, (N, 5) float32."""
    both = signals.posteriors()
    columns = [
        cross_entropy(signals, labels),
        top1_confidence(*both, labels),
        both[0].std(axis=1),
        -negative_entropy(*both, labels),
        -negative_modified_entropy(*both, labels),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def distillation(distilled: Iterable[Signals], labels: np.ndarray) -> np.ndarray:
    """The metrics of each record after each epoch of a distillation, (N, E, 5) float32."""
    return np.stack([metrics(one, labels) for one in distilled], axis=1)


def fewest_distillable(masks: Iterable[np.ndarray]) -> int:
    """On how many records each model can be distilled: those that are neither its members nor its
    non-members, which `masks` (N,) bool tell of each model; the fewest of any model."""
    return min(int((~mask).sum()) for mask in masks)


class Standardised(nn.Module):
    """Features minus their mean, by their standard deviation.

    Args:
        like: features (n, ...) whose mean and deviation are taken over `dim`.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, like: torch.Tensor, dim: tuple[int, ...]):
        super().__init__()
        self.register_buffer("mean", like.mean(dim=dim))
        self.register_buffer("deviation", like.std(dim=dim).clamp_min(1e-6))

    def initialise(self, generator: torch.Generator) -> None:
        """Nothing is drawn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation


class Lstm(nn.LSTM):
    """torch's, drawn from a generator."""

    def initialise(self, generator: torch.Generator) -> None:
        """Uniform between -1 and 1 by the root of the hidden size, torch's default."""
        limit = self.hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -limit, limit, generator=generator)


class AttentiveLstm(nn.Module):
    """Logits (B, 2) of sequences (B, T, M): an LSTM's last state h beside the mean of its states
    weighted by the softmax of their products with h (SeqMIA, its code's LSTM_Attention)."""

    def __init__(self, like: torch.Tensor, *, hidden: int = 50):
        super().__init__()
        self.scale = Standardised(like, (0, 1))
        self.lstm = Lstm(like.shape[2], hidden, batch_first=True)
        self.out = nn.Linear(2 * hidden, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.scale(x))  # (B, T, hidden)
        last = states[:, -1]
        weights = torch.softmax(states @ last.unsqueeze(2), dim=1)  # (B, T, 1)
        return self.out(torch.cat([last, (weights * states).sum(dim=1)], dim=1))


def loss_perceptron(losses: torch.Tensor) -> nn.Module:
    """E + 1 standardised losses to 512-128-32-2 with ReLU."""
    return nn.Sequential(
        Standardised(losses, (0,)),
        nn.Linear(losses.shape[1], 512),
        nn.ReLU(),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Linear(128, 32),
        nn.ReLU(),
        nn.Linear(32, 2),
    )


def losses(sequence: torch.Tensor) -> torch.Tensor:
    """The losses of a sequence (n, E + 1, 5), (n, E + 1)."""
    return sequence[:, :, LOSS]


def first_epochs(sequence: torch.Tensor) -> torch.Tensor:
    """Of a sequence (n, E + 1, 5) the first 50 epochs and the model itself."""
    return torch.cat([sequence[:, :-1][:, :SEQUENCE_EPOCHS], sequence[:, -1:]], dim=1)


@dataclass(frozen=True)
class SequenceAttack:
    """A network that sees the metrics of a record along a model's distillation and, last, under the
    model itself.

    Attributes:
        name: of the attack.
        select: the sequences (n, E + 1, 5) to what the network sees.
        build: what it sees -> a network of two logits, (non-member, member).
        config: how it is trained.
    """

    name: str
    select: Callable[[torch.Tensor], torch.Tensor]
    build: Callable[[torch.Tensor], nn.Module]
    config: TrainConfig

    def features(self, signals: Signals, labels: np.ndarray, rows: np.ndarray) -> torch.Tensor:
        """What it sees of the records `rows` (N,) bool."""
        assert signals.distillation is not None  # see `verdict`
        itself = metrics(signals, labels)[rows, None]
        sequence = np.concatenate([signals.distillation[rows], itself], axis=1)
        return self.select(torch.from_numpy(sequence))

    def verdict(self, evidence: Evidence, *, seed: int = 0, **how) -> dict[str, Verdict]:
        """Train it on the shadow records but for a share, which chooses epoch and threshold.

        Raises:
            NotApplicable: the records to distil models on are too few, or those to learn from.
            UserError: nothing is known of distilled models.
        """
        self._check(evidence)
        labels, masks = evidence.labels, evidence.calibration_mask
        x = torch.cat(
            [self.features(one, labels, mask) for one, mask in zip(evidence.shadows, masks)]
        )
        member = evidence.member[masks]
        held = a_share(member, HELD_OUT, generator(seed, "mia", self.name, "held out"))
        learner = Learner.of(self.name, seed=seed, **how)
        model = learner.fit(self.build(x), x, member, self.config, dev=held)
        of_held = member_log_odds(model, x[held])
        threshold = best_threshold(of_held[member[held]], of_held[~member[held]])
        of_targets = self.features(evidence.victim, labels, evidence.target)
        return {self.name: Verdict(member_log_odds(model, of_targets), threshold)}

    def _check(self, evidence: Evidence) -> None:
        if evidence.victim.distillation is not None:
            return
        count = fewest_distillable([evidence.target, *evidence.calibration_mask])
        if count < FEWEST:
            raise NotApplicable(
                f"{self.name} distils each model on records that are neither its members nor its "
                f"non-members, of which it needs at least {FEWEST}, not {count}"
            )
        raise UserError(
            f"{self.name} needs the posteriors of distilled models "
            f"(Evidence.from_posteriors(..., distillation=...))"
        )


def loss_trajectory(evidence: Evidence, **how) -> dict[str, Verdict]:
    """A perceptron on the losses along the distillation and the model's own (Liu et al. 2022);
    raises as `SequenceAttack.verdict` does."""
    kind = SequenceAttack("loss_trajectory", losses, loss_perceptron, TRAJECTORY_CONFIG)
    return kind.verdict(evidence, **how)


def seqmia(evidence: Evidence, **how) -> dict[str, Verdict]:
    """An LSTM with attention on five metrics along the distillation and the model's own (Li et al.
    2024); raises as `SequenceAttack.verdict` does."""
    kind = SequenceAttack("seqmia", first_epochs, AttentiveLstm, SEQUENCE_CONFIG)
    return kind.verdict(evidence, **how)

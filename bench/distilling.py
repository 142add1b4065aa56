"""A model under attack distilled into a fresh network of its architecture, and what that says of
records after each epoch (`attackers.distillation`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

from attackers.distillation import metrics
from attackers.signals import Signals
from base_model import BaseModel, Callback, Objective, TrainConfig, TrainingRun, TrainSet
from datasets import Records

# 100 epochs as in TrajectoryMIA (Liu et al. 2022). The authors distil as they train: by SGD at .1
# with a cosine; this is how the bench's networks are trained. At one learning rate throughout the
# first epochs are those of a shorter distillation, such as SeqMIA's.
CONFIG = TrainConfig(epochs=100, batch_size=128, lr=1e-3, weight_decay=5e-4)


class Distillation(Objective):
    """In place of a defence: the Kullback-Leibler divergence of the student's posterior from the
    teacher's, at temperature 1, averaged over the batch.

    Args:
        teacher: (P, C) posteriors; the y of records are positions in them.
    """

    def __init__(self, teacher: torch.Tensor):
        super().__init__()
        self.teacher = teacher

    def criterion(self, logits, batch):
        log_p, teacher = torch.log_softmax(logits, dim=1), self.teacher[batch.y]
        return F.kl_div(log_p, teacher, reduction="batchmean")


class _Watch(Callback):
    """Keeps the metrics of records of these numbers after each epoch."""

    def __init__(self, records: Records, record_ids: np.ndarray):
        self.records, self.distillation = records, list[np.ndarray]()
        self.indices = torch.from_numpy(record_ids).to(records.y.device)
        self.labels = records.y[self.indices].cpu().numpy()

    def on_epoch(self, run: TrainingRun) -> None:
        logits = run.model.logits(self.records, self.indices).cpu().numpy()
        self.distillation.append(metrics(Signals(logits), self.labels))


def distil(
    student: BaseModel,
    records: Records,
    *,
    known: np.ndarray,
    teacher: np.ndarray,
    record_ids: np.ndarray,
    generator: torch.Generator,
) -> np.ndarray:
    """The metrics of the records `record_ids` (n,) after each epoch of a distillation, (n, E, 5)
    float32.

    Args:
        student: a fresh network, which is trained.
        records: on its device.
        known: (P,), numbers of the records that it is distilled on; their labels are not used.
        teacher: (P, C), logits of the model under attack for them.
        generator: draws the order of batches, on the same device.
    Raises:
        Diverged: a loss is not finite.
    """
    device = records.y.device
    indices = torch.from_numpy(known).to(device)
    positions = torch.zeros_like(records.y)
    positions[indices] = torch.arange(len(indices), device=device)
    posteriors = torch.softmax(torch.from_numpy(teacher).double(), dim=1).float().to(device)
    watch = _Watch(records, record_ids)
    student.train(
        TrainSet(replace(records, y=positions), indices),
        CONFIG,
        objective=Distillation(posteriors),
        generator=generator,
        callbacks=[watch],
    )
    return np.stack(watch.distillation, axis=1)

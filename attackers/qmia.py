"""Quantile regression (Bertran et al., "Scalable Membership Inference Attacks via Quantile
Regression", NeurIPS 2023), with a Gaussian head."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

import models
from core import console
from attackers.calibration import threshold_attack
from attackers.evidence import Evidence, Verdict, always_fit
from attackers.signals import Signals, true_and_others
from attackers.statistic import Statistic
from base_model import BaseModel, Objective, Progress, TrainConfig, TrainSet
from core.console import NotApplicable, UserError
from core.devices import generator
from datasets import Records

FEWEST = 20  # population records
# as the bench's networks are trained; the likelihood of held-out records decides when to stop
CONFIG = TrainConfig(epochs=100, batch_size=128, lr=1e-3, weight_decay=5e-4, early_stop=10)


def margin(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """s = z_y - max_{c != y} z_c, (N,)."""
    true, others = true_and_others(signals.logits, labels)
    return true - others.max(axis=1)


class GaussianHead(Objective):
    """In place of a defence: the loss of a network that predicts mean and variance of a number for
    each class.

    Args:
        values, labels: (N,) float and int64; the y of records are positions in them.
    """

    def __init__(self, values: torch.Tensor, labels: torch.Tensor):
        super().__init__()
        self.values, self.labels = values, labels

    def predict(self, outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Network outputs (B, 2C) to mean and variance of the record's class, both (B,)."""
        rows = torch.arange(len(y), device=y.device)
        mean, raw = outputs.view(len(outputs), -1, 2)[rows, self.labels[y]].T
        return mean, F.softplus(raw) + 1e-3  # the numbers are standardised

    def negative_log_likelihood(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of the Gaussian, without its constant; the mean over a batch."""
        mean, variance = self.predict(outputs, y)
        # not F.gaussian_nll_loss, which makes the host wait for the GPU to see that no variance is
        # negative
        return (0.5 * (variance.log() + (mean - self.values[y]) ** 2 / variance)).mean()

    def criterion(self, logits, batch):
        return self.negative_log_likelihood(logits, batch.y)

    def selection_metric(self, model, records, dev):
        return [-float(self.negative_log_likelihood(model.logits(records, dev), records.y[dev]))]


@dataclass(frozen=True, eq=False)
class Regression:
    """Fits the margin's distribution given the record, for the victim or a shadow in its place.

    Attributes:
        records: on the device; their y are their positions.
        labels: (N,) int64, their classes, of `num_cls`.
        record_ids: (N,), their numbers in the data set.
        progress, fit_or_load: as of every attack, see `attackers`.
    """

    records: Records
    labels: np.ndarray
    num_cls: int
    record_ids: np.ndarray
    seed: int
    progress: Callable
    fit_or_load: Callable

    def score(self, measured: Statistic) -> np.ndarray:
        """(s - mu) / sigma of the targets (n,), by a network trained on the population."""
        device = self.records.y.device
        who = "victim" if measured.as_victim is None else f"shadow_{measured.as_victim}"
        draw = generator(self.seed, "mia", "qmia", who)
        population = np.flatnonzero(~measured.target)
        order = torch.from_numpy(population)[torch.randperm(len(population), generator=draw)]
        held_out, train = order.to(device).tensor_split([max(2, len(order) // 10)])
        margins = measured.victim[population]
        standard = (measured.victim - margins.mean()) / max(margins.std(), 1e-12)
        head = GaussianHead(
            torch.from_numpy(standard).float().to(device), torch.from_numpy(self.labels).to(device)
        )
        network = models.build(
            network_for(self.records.shape),
            shape=self.records.shape,
            num_cls=2 * self.num_cls,
            generator=draw,
        )
        regressor = BaseModel(network, device=device, generator=draw)

        def fit(callbacks) -> dict:
            on_epoch, close = self.progress(CONFIG.epochs, f"qmia {who}")
            regressor.train(
                TrainSet(self.records, train, held_out),
                CONFIG,
                objective=head,
                generator=generator(self.seed, "mia", "qmia", who, "order", device=device),
                callbacks=[Progress(lambda epoch, _: on_epoch(epoch, None)), *callbacks],
            )
            close()
            return network.state_dict()

        # a network for the victim serves no other attack
        fit_or_load = always_fit if measured.as_victim is None else self.fit_or_load
        data = [self.record_ids, self.labels, population, standard]
        network.load_state_dict(
            fit_or_load(f"qmia_{who}", [self.seed, CONFIG, network, *data], fit)
        )
        targets = torch.from_numpy(np.flatnonzero(measured.target)).to(device)
        mean, variance = head.predict(regressor.logits(self.records, targets), targets)
        mu, sigma = (values.double().cpu().numpy() for values in (mean, variance.sqrt()))
        return (standard[measured.target] - mu) / sigma


def network_for(shape: tuple[int, ...]) -> str:
    """The network that learns from records of this shape."""
    return "resnet18" if len(shape) == 3 and min(shape[1:]) >= 32 else "columnfc"


def qmia(  # many parameters: those of every attack, see `attackers`
    evidence: Evidence,
    *,
    device="cpu",
    seed: int = 0,
    progress: Callable = console.epoch_bar,
    fit_or_load: Callable = always_fit,
    **_,
) -> dict[str, Verdict]:
    """The margin against its distribution on non-members like the record: (s - mu(x, y)) / sigma(x,
    y).

    mu and sigma come from a network (resnet18 for images from 32x32, columnfc for all else) that
    learns from the population, of which a tenth decides when to stop. It is fitted anew where a
    shadow plays the victim.

    Raises:
        UserError: the records themselves are not known.
        NotApplicable: the population is too small.
    """
    evidence.need_population()
    if evidence.records is None or evidence.record_ids is None:
        raise UserError(
            "qmia needs the records themselves (Evidence.from_posteriors(..., x=records))"
        )
    if (~evidence.target).sum() < FEWEST:
        raise NotApplicable(
            f"qmia learns from the population, of which it needs at least {FEWEST} records"
        )
    ids = torch.from_numpy(evidence.record_ids)
    records = replace(evidence.records, x=evidence.records.x[ids], y=torch.arange(len(ids)))
    regression = Regression(
        records.to(device),
        evidence.labels,
        evidence.victim.logits.shape[1],
        evidence.record_ids,
        seed,
        progress,
        fit_or_load,
    )
    return {"qmia": threshold_attack(evidence, margin, regression.score)}

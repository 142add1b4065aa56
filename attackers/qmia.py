"""Quantile regression (Bertran et al., "Scalable Membership Inference Attacks via Quantile Regression",
NeurIPS 2023), with a Gaussian head."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional as F

import models
from core import console
from attackers.calibration import threshold_attack
from attackers.signals import Evidence, Signals, Statistic, Verdict, always_fit, true_and_others
from base_model import BaseModel, Objective, Progress, TrainConfig, TrainSet
from core.console import NotApplicable, UserError
from core.devices import generator

FEWEST = 20  # population records
# that of the bench's networks; the likelihood of held-out records decides when to stop
CONFIG = TrainConfig(epochs=100, batch_size=128, lr=1e-3, weight_decay=5e-4, early_stop=10)


def margin(signals: Signals, labels: np.ndarray) -> np.ndarray:
    """s = z_y - max_{c != y} z_c, (N,)."""
    true, others = true_and_others(signals.logits, labels)
    return true - others.max(axis=1)


class GaussianHead(Objective):
    """In place of a defence: the loss of a network that predicts mean and variance of a number for each class.

    Args:
        values, labels: (N,) float and int64; the records' own y are positions in them.
    """

    def __init__(self, values: torch.Tensor, labels: torch.Tensor):
        super().__init__()
        self.values, self.labels = values, labels

    def predict(self, outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Network outputs (B, 2C) to mean and variance of the record's class, both (B,)."""
        mean, raw = outputs.view(len(outputs), -1, 2)[
            torch.arange(len(y), device=y.device), self.labels[y]
        ].T
        return mean, F.softplus(raw) + 1e-3  # the numbers are standardised

    def criterion(self, logits, y):
        """The Gaussian negative log-likelihood without its constant."""
        mean, variance = self.predict(logits, y)
        # not F.gaussian_nll_loss, which makes the host wait for the GPU to see that no variance is negative
        return (0.5 * (variance.log() + (mean - self.values[y]) ** 2 / variance)).mean()

    def selection_metric(self, model, records, dev):
        return [-float(self.criterion(model.logits(records, dev), records.y[dev]))]


def qmia(
    evidence: Evidence,
    *,
    device="cpu",
    seed: int = 0,
    progress=console.epoch_bar,
    fit_or_load=always_fit,
    **_,
) -> dict[str, Verdict]:
    """The margin against its distribution on non-members like the record: (s - mu(x, y)) / sigma(x, y).

    mu and sigma come from a network (resnet18 for images from 32x32, columnfc for all else) that learns from the
    population, of which a tenth decides when to stop. It is fitted anew where a shadow plays the victim.
    """
    evidence.need_population()
    if evidence.records is None:
        raise UserError(
            "qmia needs the records themselves (Evidence.from_posteriors(..., x=records))"
        )
    count = evidence.victim.logits.shape[1]
    shape = evidence.records.shape
    network_name = "resnet18" if len(shape) == 3 and min(shape[1:]) >= 32 else "columnfc"
    if (~evidence.target).sum() < FEWEST:
        raise NotApplicable(
            f"qmia learns from the population, of which it needs at least {FEWEST} records"
        )
    record_ids = torch.from_numpy(evidence.record_ids)
    records = replace(
        evidence.records, x=evidence.records.x[record_ids], y=torch.arange(len(record_ids))
    ).to(device)

    def score(measured: Statistic) -> np.ndarray:
        """Train on the population of whoever is the victim, and score the targets."""
        who = "victim" if measured.as_victim is None else f"shadow_{measured.as_victim}"
        draw = generator(seed, "mia", "qmia", who)
        population = np.flatnonzero(~measured.target)
        order = torch.from_numpy(population)[torch.randperm(len(population), generator=draw)].to(
            records.y.device
        )
        held_out, train = order.tensor_split([max(2, len(order) // 10)])
        known = measured.victim[population]
        standard = (measured.victim - known.mean()) / max(known.std(), 1e-12)
        head = GaussianHead(
            torch.from_numpy(standard).float().to(device),
            torch.from_numpy(evidence.labels).to(device),
        )
        network = models.build(network_name, shape=records.shape, num_cls=2 * count, generator=draw)
        regressor = BaseModel(network, device=device, generator=draw)

        def fit(callbacks) -> dict:
            on_epoch, close = progress(CONFIG.epochs, f"qmia {who}")
            regressor.train(
                TrainSet(records, train, held_out),
                CONFIG,
                objective=head,
                generator=generator(seed, "mia", "qmia", who, "order", device=device),
                callbacks=[Progress(lambda epoch, _: on_epoch(epoch, None)), *callbacks],
            )
            close()
            return network.state_dict()

        keeping = (
            fit_or_load if measured.as_victim is not None else always_fit
        )  # that of the victim serves no other
        network.load_state_dict(
            keeping(
                f"qmia_{who}",
                [seed, CONFIG, network, evidence.record_ids, evidence.labels, population, standard],
                fit,
            )
        )
        targets = torch.from_numpy(np.flatnonzero(measured.target)).to(records.y.device)
        mean, variance = head.predict(regressor.logits(records, targets), targets)
        mean, deviation = (values.double().cpu().numpy() for values in (mean, variance.sqrt()))
        return (standard[measured.target] - mean) / deviation

    return {"qmia": threshold_attack(evidence, margin, score)}

"""Attacks that train a network on the shadow models' signals to tell members from non-members."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import Module
from torch.nn import functional as F

from attackers.evidence import Evidence, Verdict
from attackers.learning import Learner, member_log_odds
from attackers.signals import Signals
from base_model import TrainConfig
from core.console import UserError
from models.perceptron import perceptron, posterior_and_class
from models.queries import posteriors
from transformer import SelfAttentionAttack

CONFIG = TrainConfig(
    epochs=100, batch_size=128, optimizer="sgd", lr=1e-3, weight_decay=5e-4, milestones=(50, 75)
)


def nn_posterior(posterior, sensitivity, labels):
    """(n, C), (n, C), (n,) to what the perceptron sees: the posterior alone."""
    return posterior


def nn_top3_posteriors(posterior, sensitivity, labels):
    """The three largest posteriors in falling order, (n, 3); all of them where there are fewer
    classes."""
    return posterior.topk(min(3, posterior.shape[1]), dim=1).values


def nn_cls_features(posterior, sensitivity, labels):
    """Posterior and one-hot class, (n, 2C)."""
    return posterior_and_class(posterior, labels)


def nn_joint_features(posterior, sensitivity, labels, *others):
    """Posterior, one-hot class, and the posteriors in all other releases, (n, C + C K)."""
    return torch.cat([posterior_and_class(posterior, labels), *others], dim=1)


def samia_features(posterior, sensitivity, labels):
    """A token of three numbers a class: posterior, sensitivity, one-hot label; (n, C, 3)."""
    return torch.stack(
        [posterior, sensitivity, F.one_hot(labels, posterior.shape[1]).float()], dim=2
    )


@dataclass(frozen=True)
class NeuralAttack:
    """An attack network and what it sees.

    Attributes:
        name: of the attack.
        select: posterior (n, C), sensitivity (n, C) or None, labels (n,) -> features (n, ...); with
            `releases`, also the posteriors in each other release.
        build: features -> a network of two logits, (non-member, member), for such features.
        releases: whether it sees all releases of a model, not the one under attack alone.
    """

    name: str
    select: Callable[..., torch.Tensor]
    build: Callable[[torch.Tensor], Module]
    releases: bool = False

    def features(
        self, model: Sequence[Signals], labels: np.ndarray, rows: np.ndarray
    ) -> torch.Tensor:
        """The features of the records `rows` (N,) bool under one model, in one or all releases."""
        posterior, *others = (
            posteriors(torch.from_numpy(one.logits[rows])).float() for one in model
        )
        known = model[0].sensitivity
        sensitivity = None if known is None else torch.from_numpy(known[rows])
        return self.select(posterior, sensitivity, torch.from_numpy(labels[rows]), *others)


def _train_and_score(kind: NeuralAttack, evidence: Evidence, **how) -> dict[str, Verdict]:
    """Train on the pooled shadow records for all epochs; the score is the logit of member minus
    non-member."""
    name = kind.name
    releases = evidence.releases() if kind.releases else evidence.releases()[:1]
    features = torch.cat(
        [
            kind.features([one.shadows[index] for one in releases], evidence.labels, mask)
            for index, mask in enumerate(evidence.calibration_mask)
        ]
    )
    member = evidence.member[evidence.calibration_mask]
    attack = Learner.of(name, **how).fit(kind.build(features), features, member, CONFIG)
    x = kind.features([one.victim for one in releases], evidence.labels, evidence.target)
    return {name: Verdict(member_log_odds(attack, x), 0.0)}


def _perceptron_for(features: torch.Tensor) -> Module:
    return perceptron(inputs=features.shape[1])


def _samia_for(features: torch.Tensor) -> Module:
    return SelfAttentionAttack(num_cls=features.shape[1])


NN = NeuralAttack("nn", nn_posterior, _perceptron_for)
NN_TOP3 = NeuralAttack("nn_top3", nn_top3_posteriors, _perceptron_for)
NN_CLS = NeuralAttack("nn_cls", nn_cls_features, _perceptron_for)
NN_JOINT = NeuralAttack("nn_joint", nn_joint_features, _perceptron_for, releases=True)
SAMIA = NeuralAttack("samia", samia_features, _samia_for)


def nn(evidence: Evidence, **how) -> dict[str, Verdict]:
    """The posterior (Shokri et al., S&P 2017)."""
    return _train_and_score(NN, evidence, **how)


def nn_top3(evidence: Evidence, **how) -> dict[str, Verdict]:
    """The three largest posteriors (Salem et al., NDSS 2019)."""
    return _train_and_score(NN_TOP3, evidence, **how)


def nn_cls(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Posterior and class (Nasr et al., CCS 2018)."""
    return _train_and_score(NN_CLS, evidence, **how)


def nn_joint(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Posteriors in all releases, and the class: `nn_cls` with every release beside it (ours).

    Raises NotApplicable where there is but one release.
    """
    evidence.need_releases("nn_joint")
    return _train_and_score(NN_JOINT, evidence, **how)


def samia(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Self-attention over the classes (Yuan & Zhang 2022, section 5).

    Raises:
        UserError: sensitivities are not known.
    """
    if evidence.victim.sensitivity is None:
        raise UserError("samia needs sensitivities, which posteriors alone don't tell")
    return _train_and_score(SAMIA, evidence, **how)

"""Attacks that train a network on the shadow models' signals to tell members from non-members."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import Module
from torch.nn import functional as F

from core import console
from attackers import version
from attackers.calibration import best_threshold
from attackers.evidence import Evidence, Verdict, always_fit
from attackers.signals import Release, Signals
from base_model import BaseModel, Progress, TrainConfig, TrainSet
from core.console import NotApplicable
from core.devices import generator
from datasets import Records
from models.layers import initialise
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
        config: how it is trained; None = by `CONFIG`.
        held_out: share of the shadow records that choose the epoch and the threshold; 0 = the last
            epoch, and the threshold 0.
    """

    name: str
    select: Callable[..., torch.Tensor]
    build: Callable[[torch.Tensor], Module]
    releases: bool = False
    config: TrainConfig | None = None
    held_out: float = 0.0

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


def train_and_score(  # many parameters: those of every attack, see `attackers`
    kind: NeuralAttack,
    evidence: Evidence,
    *,
    device="cpu",
    seed: int = 0,
    progress: Callable = console.epoch_bar,
    fit_or_load: Callable = always_fit,
    **_,
) -> dict[str, Verdict]:
    """Train on the pooled shadow records; the score is the logit of member minus non-member.

    Raises NotApplicable where records are to be held out, and there are too few.
    """
    name, config = kind.name, kind.config or CONFIG
    releases = evidence.releases() if kind.releases else evidence.releases()[:1]
    features, member = _pooled(kind, evidence, releases)
    records = Records(x=features, y=member, num_cls=2).to(device)
    draw = generator(seed, "mia", name)
    network = kind.build(features)
    initialise(network, draw)
    attack = BaseModel(network, device=device, generator=draw)
    learnt, held = _dealt(member, kind.held_out, generator(seed, "mia", name, "held out"))
    dev = held.to(device) if len(held) else None

    def train(callbacks) -> dict:
        on_epoch, close = progress(config.epochs, name)
        attack.train(
            TrainSet(records, learnt.to(device), dev),
            config,
            generator=generator(seed, "mia", name, "order", device=device),
            callbacks=[Progress(on_epoch), *callbacks],
        )
        close()
        return network.state_dict()

    cache_key = [seed, config, version(name), network, features.numpy(), member.numpy()]
    network.load_state_dict(fit_or_load(name, cache_key, train))
    x = kind.features([one.victim for one in releases], evidence.labels, evidence.target)
    targets = Records(x=x, y=torch.zeros(len(x), dtype=torch.int64), num_cls=2).to(device)

    def scores(records: Records, indices: torch.Tensor) -> np.ndarray:
        logits = attack.logits(records, indices).double().cpu().numpy()
        return logits[:, 1] - logits[:, 0]

    threshold = 0.0
    if dev is not None:
        of_held, inside = scores(records, dev), member[held].numpy() == 1
        threshold = best_threshold(of_held[inside], of_held[~inside])
    return {name: Verdict(scores(targets, torch.arange(len(targets), device=device)), threshold)}


def _pooled(
    kind: NeuralAttack, evidence: Evidence, releases: Sequence[Release]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of each shadow model's own records, one model after the other, and 1 for its
    members among them, 0 for the others."""
    features = [
        kind.features([one.shadows[index] for one in releases], evidence.labels, mask)
        for index, mask in enumerate(evidence.calibration_mask)
    ]
    member = evidence.member[evidence.calibration_mask].astype(np.int64)
    return torch.cat(features), torch.from_numpy(member)


def _dealt(
    member: torch.Tensor, held_out: float, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (m,) in `member` (M,) that are learnt from, and those held out: this share of the
    members and of the others, at least one of each where it is not 0."""
    if not held_out:
        return torch.arange(len(member)), torch.arange(0)
    held = torch.zeros(len(member), dtype=torch.bool)
    for kind in (0, 1):
        of_kind = (member == kind).nonzero().flatten()
        if len(of_kind) < 2:
            raise NotApplicable("the shadow models have fewer than 2 members or non-members")
        count = max(1, round(held_out * len(of_kind)))
        held[of_kind[torch.randperm(len(of_kind), generator=draw)[:count]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


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
    return train_and_score(NN, evidence, **how)


def nn_top3(evidence: Evidence, **how) -> dict[str, Verdict]:
    """The three largest posteriors (Salem et al., NDSS 2019)."""
    return train_and_score(NN_TOP3, evidence, **how)


def nn_cls(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Posterior and class (Nasr et al., CCS 2018)."""
    return train_and_score(NN_CLS, evidence, **how)


def nn_joint(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Posteriors in all releases, and the class: `nn_cls` with every release beside it (ours).

    Raises NotApplicable where there is but one release.
    """
    evidence.need_releases("nn_joint")
    return train_and_score(NN_JOINT, evidence, **how)


def samia(evidence: Evidence, **how) -> dict[str, Verdict]:
    """Self-attention over the classes (Yuan & Zhang 2022, section 5).

    Raises:
        UserError: sensitivities are not known.
    """
    if evidence.victim.sensitivity is None:
        raise console.UserError("samia needs sensitivities, which posteriors alone don't tell")
    return train_and_score(SAMIA, evidence, **how)

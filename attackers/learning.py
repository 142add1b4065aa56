"""How attack networks and classifiers learn from shadow models: trained or read, and held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from attackers import version
from attackers.evidence import Evidence, always_fit
from base_model import BaseModel, Objective, Progress, TrainConfig, TrainSet
from core.console import NotApplicable, epoch_bar
from core.devices import generator
from datasets import Records
from models.layers import initialise

FOLDS = 3  # by which shadow records are held out


@dataclass(frozen=True, eq=False)
class ShadowRecords:
    """What a classifier learns from: the records of all shadow models, pooled.

    Attributes:
        x: (m, ...) features.
        member: (m,) bool.
        shadow: (m,), the number of each one's shadow model.
    """

    x: np.ndarray
    member: np.ndarray
    shadow: np.ndarray

    @classmethod
    def of(cls, evidence: Evidence, each: list[np.ndarray]) -> ShadowRecords:
        """The shadow models' own records, with the features of `each` shadow (n, ...) on them."""
        masks = evidence.calibration_mask
        return cls(np.concatenate(each), evidence.member[masks], np.nonzero(masks)[0])

    def folds(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(learnt from, held out), positions of records: whole shadow models are held out; of a
        single one, a share of its records.

        Raises:
            NotApplicable: there is nothing to learn from without what is held out.
        """
        from sklearn.model_selection import GroupKFold, StratifiedKFold

        count = len(np.unique(self.shadow))
        if min(self.member.sum(), (~self.member).sum()) < FOLDS:
            raise NotApplicable(
                f"a classifier needs at least {FOLDS} members and {FOLDS} non-members of the "
                f"shadow models"
            )
        if count > 1:
            split = GroupKFold(min(FOLDS, count)).split(self.x, groups=self.shadow)
        else:
            dealt = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
            split = dealt.split(self.x, self.member)
        for learnt, held_out in split:
            if self.member[learnt].all() or not self.member[learnt].any():
                raise NotApplicable(
                    "a classifier needs members and non-members of more than one shadow model"
                )
            yield learnt, held_out


def cross_fitted(build: Callable[[int], Any], score: Callable, records: ShadowRecords, seed: int):
    """Scores (m,) of the records held out, and the classifier of all of them."""
    held = np.empty(len(records.member))
    for learnt, held_out in records.folds(seed):
        of_fold = _fitted(build(seed), records.x[learnt], records.member[learnt])
        held[held_out] = score(of_fold, records.x[held_out])
    return held, _fitted(build(seed), records.x, records.member)


def _fitted(classifier, x: np.ndarray, member: np.ndarray):
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the authors stop at 400 too
        return classifier.fit(x, member)


class Likelihood(Objective):
    """Cross-entropy, whose mean on dev chooses the epoch too: accuracy is too coarse where few
    records are on the wrong side."""

    def selection_metric(self, model, records, dev):
        return [-float(F.cross_entropy(model.logits(records, dev), records.y[dev]))]


@dataclass(frozen=True)
class Learner:
    """Trains the networks of one attack on shadow models alone.

    Attributes:
        attack: its name.
        device, seed, progress, fit_or_load: as of every attack, see `attackers`.
    """

    attack: str
    device: torch.device
    seed: int
    progress: Callable
    fit_or_load: Callable

    @classmethod
    def of(  # many parameters: those of every attack, see `attackers`
        cls,
        attack: str,
        *,
        device="cpu",
        seed: int = 0,
        progress: Callable = epoch_bar,
        fit_or_load: Callable = always_fit,
        **_,
    ) -> Learner:
        return cls(attack, torch.device(device), seed, progress, fit_or_load)

    def fit(  # many parameters: what a training consists of
        self,
        network: nn.Module,
        x: torch.Tensor,
        member: np.ndarray,
        config: TrainConfig,
        *,
        part: str = "",
        dev: np.ndarray | None = None,
    ) -> BaseModel:
        """A freshly initialised network of two logits, (non-member, member), trained or read.

        Args:
            x, member: (m, ...) features and (m,) bool.
            part: tells this network from others of the same attack.
            dev: (m,) bool, records that are not trained on but decide by their likelihood which
                epoch is kept; None = the last epoch.
        """
        name = f"{self.attack}_{part}" if part else self.attack
        y = torch.from_numpy(member.astype(np.int64))
        records = Records(x=x, y=y, num_cls=2).to(self.device)
        draw = generator(self.seed, "mia", name)
        initialise(network, draw)
        model = BaseModel(network, device=self.device, generator=draw)

        def train(callbacks) -> dict:
            on_epoch, close = self.progress(config.epochs, name.replace("_without_", " without "))
            model.train(
                _train_set(records, dev, self.device),
                config,
                objective=None if dev is None else Likelihood(),
                generator=generator(self.seed, "mia", name, "order", device=self.device),
                callbacks=[Progress(lambda epoch, _: on_epoch(epoch, None)), *callbacks],
            )
            close()
            return network.state_dict()

        cache_key = [self.seed, config, version(self.attack), network, x.numpy(), y.numpy()]
        cache_key += [] if dev is None else [dev]
        network.load_state_dict(self.fit_or_load(name, cache_key, train))
        return model


def _train_set(records: Records, dev: np.ndarray | None, device) -> TrainSet:
    everyone = torch.arange(len(records), device=device)
    if dev is None:
        return TrainSet(records, everyone)
    held_out = torch.from_numpy(dev).to(device)
    return TrainSet(records, everyone[~held_out], everyone[held_out])


def member_log_odds(model: BaseModel, x: torch.Tensor) -> np.ndarray:
    """Logit of member minus that of non-member for features x, (n,) float64."""
    targets = Records(x=x, y=torch.zeros(len(x), dtype=torch.int64), num_cls=2).to(model.device)
    outputs = model.logits(targets, torch.arange(len(targets), device=model.device))
    logits = outputs.double().cpu().numpy()
    return logits[:, 1] - logits[:, 0]


def a_share(member: np.ndarray, share: float, draw: torch.Generator) -> np.ndarray:
    """(m,) bool, this share of the members and of the others, at least one of each.

    Raises NotApplicable where none would be left.
    """
    held = np.zeros(len(member), dtype=bool)
    for kind in (member, ~member):
        of_kind = np.flatnonzero(kind)
        if len(of_kind) < 2:
            raise NotApplicable("the shadow models have fewer than 2 members or non-members")
        count = max(1, round(share * len(of_kind)))
        held[of_kind[torch.randperm(len(of_kind), generator=draw)[:count].numpy()]] = True
    return held

"""How a stage trains all of its roles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from base_model import BaseModel, Objective, TrainConfig
from bench.canaries import CanarySet, nominal_size
from bench.layout import ModelSet
from bench.options import Options
from bench.role_context import build_objective
from bench.rounds import Round, round_purpose
from bench.run import Run
from core.devices import generator
from datasets import Records, RoleSplit
from defenders import DEFENDERS


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """How a stage trains all of its roles.

    Attributes:
        run: options, device, records and split.
        models: the version that is made.
        start: the model, with its masks and quantiser if it has them, from which a round of a
            role's training starts.
        epochs: the most of a round.
        rounds: how many.
        keep_epochs: epochs whose weights are kept too, 0 = before the first.
        defend: name of the defence.
        parents: digests of the models that these are made of.
        canaries: that the victim is trained on too.
        title: of the closing table.
    """

    run: Run
    models: ModelSet
    start: Callable[[str, Round], BaseModel]
    epochs: int
    title: str
    rounds: int = 1
    keep_epochs: tuple[int, ...] = ()
    defend: str = ""
    parents: Mapping[str, str] = field(default_factory=dict)
    canaries: CanarySet | None = None

    @property
    def options(self) -> Options:
        return self.run.options

    @property
    def device(self) -> torch.device:
        return self.run.device

    @property
    def records(self) -> Records:
        return self.run.records

    @property
    def splits(self) -> Mapping[str, RoleSplit]:
        return self.run.splits

    @property
    def config(self) -> TrainConfig:
        options = self.options
        return TrainConfig(
            epochs=self.epochs,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            lr=options.lr,
            weight_decay=options.weight_decay,
            early_stop=options.early_stop,
        )

    def objective(self, roles: Sequence[str] = (), number: int = 1) -> Objective:
        """The defence, for a round of the training of these roles."""
        options, more = self.options, {}
        if DEFENDERS[self.defend].options.get("keyed"):
            # no two trainings may share the noise that is to hide something, not even of one seed
            record = sorted(options.seed_record.items(), key=str)
            first = (options.train_seed, options.stage, list(roles), record)
            purpose = (*first, *round_purpose(number))
            more["key"] = hashlib.sha256(repr(purpose).encode()).digest()
        return build_objective(self.defend, options, **more)

    def privacy(self, role: str) -> dict | None:
        """What differential privacy guarantees of a role's training (see `Checkpoint`); None
        without it."""
        return self.objective().privacy(
            n=self.nominal_size(role),
            batch_size=self.options.batch_size,
            epochs=self.epochs * self.rounds,
            delta=self.options.delta,
        )

    def canaries_of(self, role: str) -> CanarySet | None:
        return self.canaries if role == "victim" else None

    def nominal_size(self, role: str) -> int:
        """See `bench.canaries.nominal_size`."""
        return nominal_size(self.splits[role], self.canaries_of(role))

    def parent(self, role: str) -> str:
        return self.parents.get(role, "")

    def order_generator(self, role: str, number: int = 1) -> torch.Generator:
        """Of the order of a role's batches in a round, and of what its objective draws."""
        purpose = [self.options.stage, role, "order", *round_purpose(number)]
        return generator(self.options.train_seed, *purpose, device=self.device)

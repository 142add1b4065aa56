"""What a defence may ask for of the role that it defends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from base_model import BaseModel, Context, Objective, TrainConfig, TrainSet
from bench.checkpoints import Checkpoint, load_checkpoint
from bench.layout import ModelSet
from bench.options import Options
from bench.outputs import Outputs
from bench.role_models import new_model, on_device, stored_model
from bench.run import Run
from core.devices import generator
from core.files import array_digest
from datasets import Records
from defenders import DEFENDERS
from quantizer.attach import load_effective


@dataclass(frozen=True)
class RoleContext:
    """A role's records, its original, and networks trained on parts of its records.

    Attributes:
        models: the version that is defended.
    """

    run: Run
    models: ModelSet
    role: str

    def context(self, draw: torch.Generator, *, epochs_before: int = 0) -> Context:
        """Of a training, or of queries, whose randomness `draw` is."""
        options = self.run.options
        return Context(
            data=self.data,
            batch_size=options.batch_size,
            generator=draw,
            epochs_before=epochs_before,
            original=self.original_logits,
            original_network=lambda: self.original_model().network.eval(),
            sub_models=self.sub_model_logits,
            subsets=generator(options.train_seed, "sub_models", self.role),
        )

    @property
    def records(self) -> Records:
        return on_device(self.run.records, self.run.device)

    @cached_property
    def data(self) -> TrainSet:
        split, device = self.run.splits[self.role], self.run.device
        train, dev = (torch.from_numpy(part).to(device) for part in (split.train, split.dev))
        return TrainSet(self.records, train, dev, self.run.options.augment)

    @cached_property
    def original(self) -> Checkpoint:
        return load_checkpoint(self.models.originals, self.role, self.run.splits[self.role])

    def original_model(self) -> BaseModel:
        """The network before compression."""
        return stored_model(
            self.run.options,
            self.run.records,
            self.role,
            "original",
            self.run.device,
            weights=self.original.weights(),
        )

    def original_logits(self, record_ids: torch.Tensor) -> torch.Tensor:
        """Logits (n, C) of the network before compression."""
        return self.original_model().logits(self.records, record_ids)

    def sub_model_logits(self, subsets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits (M, n, C) for the role's n train records of networks that were trained as the
        original was, but from weights of their own and each on a subset.

        Each is kept beside the original, for every defence and strength that asks for it.
        """
        return torch.stack([self._sub_model(subset) for subset in subsets])

    def _sub_model(self, subset: torch.Tensor) -> torch.Tensor:
        numbers, train = subset.cpu().numpy(), self.run.splits[self.role].train
        own = array_digest(np.sort(numbers))[:16]
        facts = {
            "train": array_digest(numbers),
            "records": array_digest(train),
            "dev": array_digest(self.run.splits[self.role].dev),
            "data": self.run.data,
            "options": self.original.options,
            "device": self.run.device.type,
            "threads": self.run.options.threads,
        }
        outputs = Outputs(self.models.originals, self.role, f"sub_model_{own}", facts, train)

        def query() -> np.ndarray:
            model = self._trained(subset, own)
            return model.logits(self.records, self.data.train).cpu().numpy()

        outputs.ask(query, fresh=False)
        return torch.from_numpy(outputs.load()).to(self.run.device)

    def _trained(self, subset: torch.Tensor, own: str) -> BaseModel:
        """A network trained on these records alone, its best epoch by the role's dev records."""
        run, made = self.run, self.original.options
        model = new_model(run.options, run.records, self.role, f"sub_model {own}", run.device)
        names = ("epochs", "batch_size", "optimizer", "lr", "weight_decay", "early_stop")
        config = TrainConfig(**{name: made[name] for name in names})
        data = TrainSet(self.records, subset, self.data.dev, made.get("augment", False))
        seed = run.options.train_seed
        order = generator(seed, "sub_model", self.role, own, "order", device=run.device)
        model.train(data, config, generator=order)
        return model


def build_objective(defend: str, options: Options, **more) -> Objective:
    """The defence of this name with the strength and options that are asked for, and `more`."""
    named = {
        name: getattr(options, name) for name in DEFENDERS[defend].options.get("option_names", ())
    }
    return DEFENDERS.load(defend)(options.defend_arg, **named, **more)


def attacked_model(
    run: Run, role: str, checkpoint: Checkpoint, *, classes_alone: bool = False
) -> BaseModel:
    """A role's model as it answers queries: quantised where it was released so, and as its defence
    lets it; where classes alone are looked at, without a defence that changes none."""
    models = run.matchup.models(role)
    options = models.options
    model = new_model(options, run.records, role, "mia", run.device)
    load_effective(model.network, options.quantizer, checkpoint.weights())
    objective = build_objective("" if models.original else options.defend, options)
    if objective.is_releasing() and not (classes_alone and objective.keeps_class):
        draw = generator(options.train_seed, "release", role, device=run.device)
        objective.setup_release(model.network, RoleContext(run, models, role).context(draw))
        model.release(objective)
    return model

"""A training between two epochs, and what looks at it from outside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from models.layers import dropout_generators, generator_state, set_generator_state
from models.views import augmented
from training.config import Diverged, TrainConfig, TrainingHistory, TrainSet
from training.objective import Batch, Model, Objective


class Callback:
    """What observes a training; each method may be overridden."""

    def on_start(self, run: TrainingRun) -> None:
        """Before the first epoch; may put the run where an earlier one was (see
        `TrainingRun.set_state`)."""

    def on_epoch(self, run: TrainingRun) -> None:
        """After each epoch."""


class Progress(Callback):
    """Calls `report(epoch, mean selection metric)` after each epoch; the metric is None without dev
    records."""

    def __init__(self, report: Callable[[int, float | None], None]):
        self.report = report

    def on_epoch(self, run: TrainingRun) -> None:
        self.report(run.epoch, None if run.dev is None else sum(run.dev) / len(run.dev))


class TrainingRun:
    """A training between two epochs: all that the next one needs, and what the last one came to.

    Attributes:
        epoch: the last one that was finished; 0 before the first.
        histories: of each model of a stack, or of the one that this is.
        losses: mean loss of each over the last epoch's records.
        dev: selection metric of each after it; None without dev records.
        running: whether each took part in the last epoch, and had not stopped before.
    """

    def __init__(
        self,
        model: Model,
        data: TrainSet,
        objective: Objective,
        config: TrainConfig,
        generators: Sequence[torch.Generator],
    ):
        self.model, self.data, self.objective = model, data, objective
        self.config, self.generators = config, generators
        self.optimizer = objective.build_optimizer(model.network, config)
        self.schedule = config.build_schedule(self.optimizer)
        self.histories = [TrainingHistory() for _ in generators]
        every = [True] * len(generators)
        self.best_weights: dict[str, torch.Tensor] | None = None
        if data.dev is not None:
            self.best_weights = model._update_best(every, {})
        self.epoch, self.losses, self.running = 0, [math.nan] * len(generators), every
        self.dev: list[float] | None = None

    @property
    def stopped(self) -> bool:
        return all(history.stopped for history in self.histories)

    def train_epoch(self, loss: Callable) -> None:
        """One pass over the train records; `loss(network, batch)` in the precision of the
        training."""
        network, indices = self.model.network.train(), self.data.train
        # summed on the device, read once an epoch
        losses = torch.zeros(len(self.histories), device=self.model.device)
        seen = 0.0  # records, in epochs: of DP's random batches not always 1
        for numbers in self.objective.batches(
            indices, self.config.batch_size, *self.generators, epoch=self.epoch
        ):
            share = numbers.shape[-1] / indices.shape[-1]
            x, y = self.data.records.batch(numbers)
            if self.data.augment:
                x = augmented(x, self.generators)
            batch = Batch(x, y, numbers, self.epoch)
            value = self.objective.step(network, self.optimizer, loss, batch)
            losses.add_(value, alpha=share)
            seen += share
        self.epoch += 1
        self.running = [not history.stopped for history in self.histories]
        self.losses = [value / seen if seen else math.nan for value in losses.tolist()]
        self._check_finite(seen > 0)
        if self.config.is_scheduled:
            self.schedule.step()

    def _check_finite(self, any_batch: bool) -> None:
        for number, (value, running) in enumerate(zip(self.losses, self.running), start=1):
            if any_batch and running and not math.isfinite(value):
                which = f"of model {number} of {len(self.losses)} " if len(self.losses) > 1 else ""
                raise Diverged(
                    f"the loss {which}is no longer finite in epoch {self.epoch}, at learning rate "
                    f"{self.schedule.get_last_lr()[0]:g}"
                )

    def select(self) -> None:
        """Measure the epoch's weights on dev, and keep the best so far."""
        if self.data.dev is None or self.best_weights is None:
            return
        self.dev = self.objective.selection_metric(self.model, self.data.records, self.data.dev)
        better = [
            history.add(metric, self.config.early_stop)
            for history, metric in zip(self.histories, self.dev)
        ]
        if any(better):
            self.best_weights = self.model._update_best(better, self.best_weights)

    def _generators(self) -> list:
        return [*self.generators, *dropout_generators(self.model.network)]

    def state(self) -> dict:
        """All that the next epoch depends on, as tensors and plain values."""
        schedule = {
            name: value
            for name, value in self.schedule.state_dict().items()
            if name != "milestones"
        }
        return {
            "epoch": self.epoch,
            "network": self.model.network.state_dict(),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": schedule,
            "trainings": [vars(history) for history in self.histories],
            "draws": [generator_state(draw) for draw in self._generators()],
            "defender": self.objective.state(),
        }

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.epoch = state["epoch"]
        if self.data.dev is not None:
            self.best_weights = {
                name: tensor.to(self.model.device) for name, tensor in state["best"].items()
            }
        self.model.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.histories = [TrainingHistory(**history) for history in state["trainings"]]
        for draw, saved in zip(self._generators(), state["draws"], strict=True):
            set_generator_state(draw, saved)
        self.objective.set_state(state["defender"])

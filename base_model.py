"""A network: how it is trained, tested and queried. The epoch loop of the project is here, and only here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from core.console import UserError
from datasets import Records, batches
from models import stack
from models.layers import dropout_generators, generator_state, seed_dropout, set_generator_state
from models.queries import QUERY_BATCH, QueriesInBatches
from pruner.mask import attach_masks


class Diverged(UserError):
    """A loss is not a number any more."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained. `early_stop` = 0 trains for all epochs; `milestones` divide lr by ten."""

    epochs: int
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 5e-4
    early_stop: int = 0
    milestones: tuple[int, ...] = ()

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.optimizer]
        more = {"momentum": 0.9} if self.optimizer == "sgd" else {}
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True, **more)


@dataclass(frozen=True, eq=False)
class TrainSet:
    """What a network is trained on: numbers of `records`, (n,), or (K, n) of a stack of K, on the records' device.

    Attributes:
        dev: of the records that choose the epoch to keep; None = the last epoch is kept.
    """

    records: Records
    train: torch.Tensor
    dev: torch.Tensor | None = None


@dataclass
class TrainingHistory:
    """What a training came to: the epoch that was kept (0 = the start) and the accuracy on dev after each one.

    An objective may put another selection metric in the place of that accuracy (see `Objective.selection_metric`).
    """

    best_epoch: int = 0
    best_accuracy: float = -math.inf
    dev_accuracy: list[float] = field(default_factory=list)
    stopped: bool = False

    def add(self, accuracy: float, early_stop: int) -> bool:
        """Take an epoch's accuracy into account; returns whether it is the best so far."""
        if self.stopped:
            return False
        self.dev_accuracy.append(accuracy)
        epoch = len(self.dev_accuracy)
        better = accuracy > self.best_accuracy
        if better:
            self.best_accuracy, self.best_epoch = accuracy, epoch
        self.stopped = 0 < early_stop < epoch - self.best_epoch
        return better


class Objective:
    """What training minimises: cross-entropy. Every defence and every regression head is a subclass.

    Args:
        strength: the option `--defend_arg`.
    """

    def __init__(self, strength: float | None = None):
        self.strength = strength

    @classmethod
    def is_stackable(cls) -> bool:
        """Whether all that it changes follows from each model's logits, so that it can train a `Stack`.

        Of all hooks, then, it overrides `criterion` alone (and `privacy`, which is no part of training).
        """
        hooks = (
            "setup",
            "build_optimizer",
            "batches",
            "step",
            "loss",
            "selection_metric",
            "state",
            "set_state",
        )
        return all(getattr(cls, hook) is getattr(Objective, hook) for hook in hooks)

    def setup(self, data: TrainSet, *, batch_size: int, generator: torch.Generator) -> None:
        """Called once before training; `generator` draws on the records' device."""

    def build_optimizer(self, network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
        return config.build_optimizer(network.parameters())

    def batches(
        self, indices: torch.Tensor, size: int, *generators: torch.Generator
    ) -> Iterable[torch.Tensor]:
        """Those of an epoch, see `datasets.batches`."""
        return batches(indices, size, *generators)

    def step(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: Callable,
        x: torch.Tensor,
        y: torch.Tensor,
    ) -> torch.Tensor:
        """Take a step on a batch; returns its loss, without gradients: a scalar, or (K,) of a stack.

        `loss` is this objective's, in the precision of the training, for a stack of each model.
        """
        optimizer.zero_grad(set_to_none=True)
        value = loss(network, x, y)
        value.sum().backward()
        optimizer.step()
        return value.detach()

    def loss(self, network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients; `network` is in training mode and is left so."""
        return self.criterion(network(x), y)

    def criterion(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The loss of a batch as it follows from logits (B, C) and labels (B,)."""
        return F.cross_entropy(logits, y)

    def selection_metric(
        self, model: BaseModel, records: Records, dev: torch.Tensor
    ) -> list[float]:
        """What the best epoch is the best of, for a model or each of a stack: the accuracy on dev."""
        return model.accuracies(records, dev)

    def privacy(self, *, n: int, batch_size: int, epochs: int, delta: float | None) -> dict | None:
        """What a training on n records for at most so many epochs guarantees; None = nothing."""
        return None

    def state(self) -> dict:
        """All that `loss` or `step` changes, as tensors and plain values, for a training to be resumed."""
        return {}

    def set_state(self, state: dict) -> None:
        """Go on from what `state` returned; called after `setup`."""


class Callback:
    """What looks at a training from outside; each method may be overridden."""

    def on_start(self, run: TrainingRun) -> None:
        """Before the first epoch; may put the run where an earlier one was (see `TrainingRun.set_state`)."""

    def on_epoch(self, run: TrainingRun) -> None:
        """After each epoch."""


class Progress(Callback):
    """Calls `report(epoch, mean selection metric)` after each epoch; the metric is None without dev records."""

    def __init__(self, report: Callable[[int, float | None], None]):
        self.report = report

    def on_epoch(self, run):
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
        model: BaseModel,
        data: TrainSet,
        objective: Objective,
        config: TrainConfig,
        generators: Sequence[torch.Generator],
    ):
        self.model, self.data, self.objective, self.config, self.generators = (
            model,
            data,
            objective,
            config,
            generators,
        )
        self.optimizer = objective.build_optimizer(model.network, config)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, config.milestones)
        self.histories = [TrainingHistory() for _ in generators]
        self.best_weights = (
            model._update_best([True] * len(generators), {}) if data.dev is not None else None
        )
        self.epoch, self.losses, self.running = (
            0,
            [math.nan] * len(generators),
            [True] * len(generators),
        )
        self.dev: list[float] | None = None

    @property
    def stopped(self) -> bool:
        return all(history.stopped for history in self.histories)

    def train_epoch(self, loss: Callable) -> None:
        """One pass over the train records; `loss(network, x, y)` in the precision of the training."""
        network, indices = self.model.network.train(), self.data.train
        losses = torch.zeros(
            len(self.histories), device=self.model.device
        )  # summed there, read once an epoch
        seen = 0.0  # records, in epochs: of DP's random batches not always 1
        for batch in self.objective.batches(indices, self.config.batch_size, *self.generators):
            share = batch.shape[-1] / indices.shape[-1]
            value = self.objective.step(
                network, self.optimizer, loss, *self.data.records.batch(batch)
            )
            losses.add_(value, alpha=share)
            seen += share
        self.epoch += 1
        self.running = [not history.stopped for history in self.histories]
        self.losses = [value / seen if seen else math.nan for value in losses.tolist()]
        self._check_finite(seen > 0)
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
        if self.data.dev is None:
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


class BaseModel:
    """A network on a device, and what the bench does with it.

    Args:
        network: maps a batch of records (B, ...) to logits (B, C).
        generator: a CPU generator, which seeds the network's dropout.
        precision: fp32, or bf16 to train with operations in bfloat16 where torch.autocast holds that to be safe.
            Queries are float32 in any case.
    """

    masks: dict[str, torch.Tensor] | None = None  # of a pruned network, see `attach_masks`

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        generator: torch.Generator,
        precision: str = "fp32",
    ):
        self.device = torch.device(device)
        self.network = network.to(
            self.device, memory_format=torch.channels_last
        )  # faster, above all on a GPU
        self.precision = precision
        self._in_batches = QueriesInBatches(self.network, self.device)
        seed_dropout(self.network, seed=int(torch.randint(2**62, (), generator=generator)))

    def attach_masks(self, masks: dict[str, torch.Tensor]) -> None:
        """Prune these weights, {parameter name: bool, False = pruned}, and keep them pruned through training."""
        self.masks = masks
        attach_masks(self.network, masks)

    def train(
        self,
        data: TrainSet,
        config: TrainConfig,
        *,
        generator: torch.Generator,
        objective: Objective | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> TrainingHistory:
        """Train; with dev records, keep the weights of the best epoch on them, else the last epoch's.

        Best is the first epoch of the highest selection metric; training stops when more than `config.early_stop`
        epochs have passed without a better one.

        Args:
            generator: draws the order of batches, on the records' device, and what the objective needs.
            objective: supplies the loss of a batch; None = cross-entropy. Its `setup` has been called.
        Raises:
            Diverged: a loss is not finite.
        """
        objective = objective or Objective()
        run = TrainingRun(self, data, objective, config, [generator])
        (history,) = self._fit(run, objective.loss, callbacks)
        return history

    def _fit(
        self, run: TrainingRun, loss: Callable, callbacks: Sequence[Callback]
    ) -> list[TrainingHistory]:
        """The epoch loop, for one model or a stack of them."""

        def in_precision(network, x, y) -> torch.Tensor:
            # without its cache, which would hand weights cast under no_grad (as `adv` asks) to the training
            with torch.autocast(
                self.device.type,
                torch.bfloat16,
                enabled=self.precision == "bf16",
                cache_enabled=False,
            ):
                return loss(network, x, y)

        for callback in callbacks:
            callback.on_start(run)
        while run.epoch < run.config.epochs and not run.stopped:
            run.train_epoch(in_precision)
            run.select()
            for callback in callbacks:
                callback.on_epoch(run)
        if run.best_weights is not None:
            self.network.load_state_dict(run.best_weights)
        return run.histories

    def _update_best(
        self, better: list[bool], before: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The weights to keep, after an epoch that was better than those `before`."""
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def logits(self, records: Records, indices: torch.Tensor) -> torch.Tensor:
        """Logits (n, C), float32, in evaluation mode."""
        return self._in_batches(
            lambda part: self.network(records.batch(part)[0]).float(), records, indices
        )

    def test(self, records: Records, indices: torch.Tensor) -> float:
        """Accuracy, a fraction."""
        (accuracy,) = self.accuracies(records, indices)
        return accuracy

    def accuracies(self, records: Records, indices: torch.Tensor) -> list[float]:
        """Accuracy of each model of a stack, or of the one that this is."""
        correct = self.logits(records, indices).argmax(dim=-1) == records.y[indices]
        return correct.float().mean(dim=-1).reshape(-1).tolist()

    @torch.no_grad()
    def sensitivity(
        self,
        records: Records,
        indices: torch.Tensor,
        *,
        generator: torch.Generator,
        draws: int = 10,
        epsilon: float = 1e-3,
    ) -> torch.Tensor:
        """Sensitivity of each posterior to noise on the input, (n, C), float32, in evaluation mode.

        s(x) = mean over `draws` of |p(x + epsilon u) - p(x)| / epsilon, u ~ N(0, I), where x is the
        normalised record (Yuan & Zhang 2022, section 4). `generator` lives on the records' device.
        """

        def of_part(part):
            x = records.batch(part)[0]
            posterior = posteriors(self.network(x))
            change = torch.zeros_like(posterior)
            for _ in range(draws):
                noise = torch.empty_like(x).normal_(generator=generator)
                change += (posteriors(self.network(noise.mul_(epsilon).add_(x))) - posterior).abs_()
            return (change / (draws * epsilon)).float()

        return self._in_batches(of_part, records, indices, generator)


class Stack(BaseModel):
    """Models of one shape trained together as one network: on a GPU, small ones take little longer than one.

    Each comes out as if it had been trained alone: weights, masks, dropout, order of batches and early stopping are
    its own (a test holds them against each other in float64). One that has stopped early is worked on in vain until
    the last has.

    Args:
        models: of networks for which `models.stack.fits` is true.
    """

    def __init__(self, models: list[BaseModel]):
        self.models = models
        self.device, self.precision = models[0].device, models[0].precision
        self.network = stack.stacked([model.network for model in models])
        self._in_batches = QueriesInBatches(self.network, self.device, size=QUERY_BATCH)
        if models[0].masks is not None:
            self.attach_masks(
                {
                    name: torch.stack([model.masks[name] for model in models])
                    for name in models[0].masks
                }
            )

    def train_each(
        self,
        data: TrainSet,
        config: TrainConfig,
        *,
        generators: Sequence[torch.Generator],
        objective: Objective,
        callbacks: Sequence[Callback] = (),
    ) -> list[TrainingHistory]:
        """As `BaseModel.train` does, for K models at once; returns a history each.

        Args:
            data: with (K, n) record numbers.
            generators: K of them.
        Raises:
            ValueError: the objective is not stackable.
        """
        if not objective.is_stackable():
            raise ValueError(
                f"{type(objective).__name__} cannot train a stack: it changes more than the criterion"
            )

        def loss(
            network, x, y
        ):  # (K,); of their sum, the gradient of each model is that of its own loss
            return torch.func.vmap(objective.criterion)(network(x), y)

        histories = self._fit(
            TrainingRun(self, data, objective, config, generators), loss, callbacks
        )
        stack.unstack(self.network, [model.network for model in self.models])
        return histories

    def _update_best(self, better, before):
        chosen = torch.tensor(better, device=self.device)
        return {
            name: torch.where(
                chosen.view(-1, *[1] * (tensor.dim() - 1)), tensor, before.get(name, tensor)
            )
            for name, tensor in self.network.state_dict().items()
        }


def posteriors(logits: torch.Tensor) -> torch.Tensor:
    """Softmax in float64: a difference of posteriors next to 1 keeps its digits."""
    return torch.softmax(logits.double(), dim=1)

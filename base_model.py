"""A network: how it is trained, tested and queried. The one epoch loop of the project is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from datasets import Records
from models import stack
from models.layers import seed_dropout
from models.queries import QUERY_BATCH, QueriesInBatches, posteriors, sensitivity
from pruner.mask import attach_masks
from training.config import Diverged, TrainConfig, TrainingHistory, TrainSet
from training.objective import Batch, Context, Objective, Released
from training.run import Callback, Progress, TrainingRun

__all__ = [
    "BaseModel",
    "Batch",
    "Callback",
    "Context",
    "Diverged",
    "Objective",
    "Progress",
    "Released",
    "Stack",
    "TrainConfig",
    "TrainSet",
    "TrainingHistory",
    "TrainingRun",
    "posteriors",
]


class BaseModel:
    """A network on a device, to be trained, tested and queried.

    Args:
        network: maps a batch of records (B, ...) to logits (B, C).
        generator: a CPU generator, which seeds the network's dropout.
        precision: fp32, or bf16 to train with operations in bfloat16 where torch.autocast holds
            that to be safe. Queries are float32 in any case.

    Attributes:
        masks: of a pruned network, see `attach_masks`; None of others.
    """

    masks: dict[str, torch.Tensor] | None = None

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device,
        generator: torch.Generator,
        precision: str = "fp32",
    ):
        self.device = torch.device(device)
        # channels last: faster, above all on a GPU
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.precision = precision
        self._in_batches = QueriesInBatches(self.network, self.device)
        seed_dropout(self.network, seed=int(torch.randint(2**62, (), generator=generator)))

    def attach_masks(self, masks: dict[str, torch.Tensor]) -> None:
        """Prune weights and keep them pruned through training.

        Args:
            masks: {parameter name: bool tensor of its shape, False = pruned}.
        """
        self.masks = masks
        attach_masks(self.network, masks)

    def release(self, objective: Objective) -> None:
        """Answer from now on as the defence `objective` does, whose `setup_release` has been
        called."""
        self.network = Released(self.network, objective)
        self._in_batches = QueriesInBatches(self.network, self.device)

    def train(
        self,
        data: TrainSet,
        config: TrainConfig,
        *,
        generator: torch.Generator,
        objective: Objective | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> TrainingHistory:
        """Train; with dev records, keep the weights of the best epoch on them, else the last
        epoch's.

        Best is the first epoch of the highest selection metric; training stops when more than
        `config.early_stop` epochs have passed without a better one.

        Args:
            generator: draws the order of batches, on the records' device, and what the objective
                needs.
            objective: supplies the loss of a batch; None = cross-entropy. Its `setup` has been
                called.
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

        def in_precision(network, batch) -> torch.Tensor:
            # without its cache, which would hand weights cast under no_grad (by the attack of
            # `adv`) to the training
            with torch.autocast(
                self.device.type,
                torch.bfloat16,
                enabled=self.precision == "bf16",
                cache_enabled=False,
            ):
                return loss(network, batch)

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
        """The best weights so far: of each model whose epoch was `better`, its present ones."""
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def logits(self, records: Records, indices: torch.Tensor) -> torch.Tensor:
        """Logits (n, C), float32, in evaluation mode."""
        return self._in_batches(
            lambda batch: self.network(records.batch(batch)[0]).float(), records, indices
        )

    @torch.no_grad()
    def classes(self, x: torch.Tensor, records: Records) -> torch.Tensor:
        """The most likely class (n,) of each input x (n, *shape), normalised, in evaluation mode;
        `records` are of the same shape."""
        rows = torch.arange(len(x), device=x.device)
        return self._in_batches(
            lambda batch: self.network(x[batch]).argmax(dim=-1, keepdim=True), records, rows
        ).squeeze(-1)

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

        See `models.queries.sensitivity`; x is the normalised record, and `generator` lives on the
        records' device.
        """

        def of_batch(batch: torch.Tensor) -> torch.Tensor:
            x, _ = records.batch(batch)
            return sensitivity(self.network, x, draws=draws, epsilon=epsilon, generator=generator)

        return self._in_batches(of_batch, records, indices, generator)


class Stack(BaseModel):
    """Models of one shape trained together as one network: on a GPU, small ones take little longer
    than one.

    Each comes out as if it had been trained alone, with its own weights, masks, dropout, order of
    batches and early stopping (a test holds them against each other in float64). One that has
    stopped early is computed in vain until the last has.

    Args:
        models: of networks for which `models.stack.fits` is true.
    """

    def __init__(self, models: list[BaseModel]):
        self.models = models
        self.device, self.precision = models[0].device, models[0].precision
        self.network = stack.stacked([model.network for model in models])
        self._in_batches = QueriesInBatches(self.network, self.device, size=QUERY_BATCH)
        masks = [model.masks for model in models if model.masks is not None]
        if masks:
            self.attach_masks({name: torch.stack([of[name] for of in masks]) for name in masks[0]})

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

        def loss(network, batch: Batch) -> torch.Tensor:
            def of_one(logits, x, y, record_ids) -> torch.Tensor:
                return objective.criterion(logits, Batch(x, y, record_ids, batch.epoch))

            # (K,); of their sum, the gradient of each model is that of its own loss
            logits = network(batch.x)
            return torch.func.vmap(of_one)(logits, batch.x, batch.y, batch.record_ids)

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

"""One network: how it is trained, tested and queried. The epoch loop of the project is here, and only here."""
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F

from console import UserError, say
from datasets import Records
from models.layers import use_generator

QUERY_BATCH = 1024  # records a forward pass without gradients; changes no result beyond rounding


def choose_device(name: str) -> torch.device:
    """The device for a stage's first argument: `cpu`, a GPU's number, `cuda` or `cuda:N`.

    The first GPU falls back to the CPU where there is none, and says so in a line. Any other GPU that is
    not there raises UserError.
    """
    if name == "cpu":
        return torch.device("cpu")
    number = int(name.removeprefix("cuda").removeprefix(":") or 0)
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number < found:
        # A perturbation of 1e-3 is below the resolution of TF32, in which cuDNN convolves unless told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", number)
    if number == 0:
        say("no GPU here: running on the CPU")
        return torch.device("cpu")
    raise UserError(f"GPU {number} does not exist: this machine has {found} (numbered from 0); 'cpu' works everywhere")


def generator(seed: int, *purpose: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator for one purpose, such as (7, "pretrain", "shadow_2"): streams never depend on one another."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:4], "big"))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. `early_stop` = 0 trains for all epochs; `milestones` divide lr by ten."""

    epochs: int
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 5e-4
    early_stop: int = 0
    milestones: tuple[int, ...] = ()

    def build_optimizer(self, parameters) -> torch.optim.Optimizer:
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.optimizer]
        more = {"momentum": 0.9} if self.optimizer == "sgd" else {}
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay, fused=True, **more)


@dataclass
class Training:
    """What a training came to: the epoch that was kept (0 = the start) and the accuracy on dev after each one."""

    best_epoch: int = 0
    best_accuracy: float = -1.0
    dev_accuracy: list[float] = field(default_factory=list)


class BaseModel:
    """A network on a device, and what the bench does with it.

    Args:
        network: maps a batch of records (B, ...) to logits (B, C).
        generator: a CPU generator, which seeds the network's dropout.
    """

    def __init__(self, network: nn.Module, *, device: torch.device, generator: torch.Generator):
        self.device = torch.device(device)
        self.network = network.to(self.device)
        use_generator(self.network, seed=int(torch.randint(2**62, (), generator=generator)))

    def train(self, records: Records, indices: torch.Tensor, *, recipe: Recipe, generator: torch.Generator,
              dev: torch.Tensor | None = None, defender=None,
              on_epoch: Callable[[int, float | None], None] | None = None) -> Training:
        """Train on `indices` of `records`; with `dev`, keep the weights of the best epoch on it.

        Best is the first epoch of the highest accuracy; training stops when more than `recipe.early_stop`
        epochs have passed without a better one. Without `dev` the last epoch's weights are kept.

        Args:
            indices, dev: (n,) record numbers, on the records' device.
            generator: draws the order of batches; on the records' device.
            defender: supplies the loss of a batch, see `defenders`; None = cross-entropy.
            on_epoch: called after each epoch with its number and accuracy on dev.
        """
        optimizer = recipe.build_optimizer(self.network.parameters())
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.milestones)
        loss_of = defender.loss if defender is not None else cross_entropy
        training = Training()
        best_weights = self._weights() if dev is not None else None
        for epoch in range(1, recipe.epochs + 1):
            self.network.train()
            losses = torch.zeros((), device=self.device)  # summed on the device, read once an epoch
            for batch in batches(indices, recipe.batch_size, generator):
                optimizer.zero_grad(set_to_none=True)
                loss = loss_of(self.network, *records.batch(batch))
                loss.backward()
                optimizer.step()
                losses += loss.detach()
            if not math.isfinite(losses.item()):
                raise UserError(f"the loss is no longer finite in epoch {epoch}, at learning rate "
                                f"{schedule.get_last_lr()[0]:g}: try a smaller lr")
            schedule.step()
            accuracy = None
            if dev is not None:
                accuracy = self.test(records, dev)
                training.dev_accuracy.append(accuracy)
                if accuracy > training.best_accuracy:
                    training.best_accuracy, training.best_epoch = accuracy, epoch
                    best_weights = self._weights()
            if on_epoch is not None:
                on_epoch(epoch, accuracy)
            if dev is not None and 0 < recipe.early_stop < epoch - training.best_epoch:
                break
        if best_weights is not None:
            self.network.load_state_dict(best_weights)
        return training

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def logits(self, records: Records, indices: torch.Tensor) -> torch.Tensor:
        """Logits (n, C), float32, in evaluation mode."""
        self.network.eval()
        return torch.cat([self.network(records.batch(part)[0]).float() for part in indices.split(QUERY_BATCH)])

    def test(self, records: Records, indices: torch.Tensor) -> float:
        """Accuracy, a fraction."""
        correct = self.logits(records, indices).argmax(dim=1) == records.y[indices]
        return correct.float().mean().item()

    @torch.no_grad()
    def sensitivity(self, records: Records, indices: torch.Tensor, *, generator: torch.Generator,
                    draws: int = 10, epsilon: float = 1e-3) -> torch.Tensor:
        """Sensitivity of each posterior to noise on the input, (n, C), float32, in evaluation mode.

        s(x) = mean over `draws` of |p(x + epsilon u) - p(x)| / epsilon, u ~ N(0, I), where x is the
        normalised record (Yuan & Zhang 2022, section 4). `generator` lives on the records' device.
        """
        self.network.eval()
        parts = []
        for part in indices.split(QUERY_BATCH):
            x = records.batch(part)[0]
            posterior = posteriors(self.network(x))
            change = torch.zeros_like(posterior)
            for _ in range(draws):
                noise = torch.empty_like(x).normal_(generator=generator)
                change += (posteriors(self.network(noise.mul_(epsilon).add_(x))) - posterior).abs_()
            parts.append((change / (draws * epsilon)).float())
        return torch.cat(parts)


def posteriors(logits: torch.Tensor) -> torch.Tensor:
    """Softmax in float64: a difference of posteriors next to 1 keeps its digits."""
    return torch.softmax(logits.double(), dim=1)


def cross_entropy(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The undefended loss of a batch."""
    return F.cross_entropy(network(x), y)


def batches(indices: torch.Tensor, size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """One epoch of `indices` in random order, in batches of `size`; the last holds what is left.

    A single record left over joins the batch before it: BatchNorm can't normalise over one record.
    """
    order = indices[torch.randperm(len(indices), generator=generator, device=indices.device)]
    count = max(1, math.ceil(len(order) / size))
    if len(order) % size == 1 and count > 1:
        count -= 1
    for number in range(count):
        yield order[number * size: (number + 1) * size if number < count - 1 else None]

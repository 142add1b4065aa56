"""One network: how it is trained, tested and queried. The epoch loop of the project is here, and only here."""
from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from core.console import UserError, say
from datasets import Records
from defenders.basic import Basic
from models import stack
from models.layers import dropout_generators, generator_state, set_generator_state, use_generator

SMALLEST_PROBE = 64  # records by which a GPU's memory for queries is gauged
QUERY_BATCH = 1024  # records a forward pass without gradients; changes no result beyond rounding


def choose_device(name: str) -> torch.device:
    """The device for a stage's first argument: `cpu`, a GPU's number, `cuda` or `cuda:N`.

    The first GPU falls back to the CPU where there is none, and says so in a line. Any other GPU that is
    not there raises UserError. A GPU is not touched yet, so that processes can still be forked.
    """
    if name == "cpu":
        return torch.device("cpu")
    number = int(name.removeprefix("cuda").removeprefix(":") or 0)
    found = torch.cuda.device_count()  # asks the driver's library; torch.cuda.is_available would start CUDA
    if number < found:
        # A perturbation of 1e-3 is below the resolution of TF32, in which cuDNN convolves unless told otherwise.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", number)
    if number == 0:
        say("no GPU here: running on the CPU")
        return torch.device("cpu")
    raise UserError(f"GPU {number} does not exist: this machine has {found} (numbered from 0); 'cpu' works everywhere")


def choose_precision(asked: str | None, device: torch.device, *, convolves: bool) -> str:
    """`asked`, or else bf16 for convolutions on a GPU that has it and fp32 for all others."""
    if asked is not None or not convolves or device.type == "cpu":
        return asked or "fp32"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


class Diverged(UserError):
    """A loss is not a number any more."""


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
    """What a training came to: the epoch that was kept (0 = the start) and the accuracy on dev after each one.

    A defence may put another quality in the place of that accuracy (see `Basic.quality`).
    """

    best_epoch: int = 0
    best_accuracy: float = -math.inf
    dev_accuracy: list[float] = field(default_factory=list)
    stopped: bool = False

    def after(self, accuracy: float, early_stop: int) -> bool:
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


class BaseModel:
    """A network on a device, and what the bench does with it.

    Args:
        network: maps a batch of records (B, ...) to logits (B, C).
        generator: a CPU generator, which seeds the network's dropout.
        precision: fp32, or bf16 to train with operations in bfloat16 where torch.autocast holds that to be safe.
            Queries are float32 in any case.
    """

    def __init__(self, network: nn.Module, *, device: torch.device, generator: torch.Generator,
                 precision: str = "fp32"):
        self.device = torch.device(device)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # faster, above all on a GPU
        self.precision = precision
        use_generator(self.network, seed=int(torch.randint(2**62, (), generator=generator)))

    def train(self, records: Records, indices: torch.Tensor, *, recipe: Recipe, generator: torch.Generator,
              dev: torch.Tensor | None = None, defender: Basic | None = None, resume=None,
              on_epoch: Callable[[int, float | None], None] | None = None, scalars=None) -> Training:
        """Train on `indices` of `records`; with `dev`, keep the weights of the best epoch on it.

        Best is the first epoch of the highest accuracy; training stops when more than `recipe.early_stop`
        epochs have passed without a better one. Without `dev` the last epoch's weights are kept.

        Args:
            indices, dev: (n,) record numbers, on the records' device.
            generator: draws the order of batches; on the records' device.
            defender: supplies the loss of a batch, see `defenders`; None = cross-entropy.
            resume: keeps the state on disk and hands back what is there (see `store.Resume`); None = nothing is kept.
            on_epoch: called after each epoch with its number and accuracy on dev.
            scalars: writes down loss and accuracy on dev of each epoch (see `store.Scalars`); None = nobody does.
        """
        defender = defender or Basic()
        training, = self._epochs(records, indices, loss=defender.loss, recipe=recipe, generators=[generator], dev=dev,
                                 defender=defender, resume=resume, on_epoch=on_epoch, scalars=scalars)
        return training

    def _epochs(self, records: Records, indices: torch.Tensor, *, loss: Callable, recipe: Recipe,
                generators: list[torch.Generator], dev: torch.Tensor | None, defender: Basic, resume, on_epoch,
                scalars) -> list[Training]:
        """The epoch loop, for one model or a stack of them: one generator and one Training each."""
        optimizer = defender.build_optimizer(self.network, recipe)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.milestones)
        trainings = [Training() for _ in generators]
        best_weights = self._kept([True] * len(trainings), {}) if dev is not None else None
        draws = [*generators, *dropout_generators(self.network)]

        def in_precision(network, x, y) -> torch.Tensor:
            # without its cache, which would hand weights cast under no_grad (as `adv` asks) to the training
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16",
                                cache_enabled=False):
                return loss(network, x, y)

        def state() -> dict:
            return {"epoch": epoch, "network": self.network.state_dict(), "best": best_weights,
                    "optimizer": optimizer.state_dict(), "trainings": [vars(training) for training in trainings],
                    "schedule": {name: value for name, value in schedule.state_dict().items() if name != "milestones"},
                    "draws": [generator_state(draw) for draw in draws], "defender": defender.state()}

        done = 0
        if (kept := resume and resume.load()) is not None:
            done = kept["epoch"]
            if dev is not None:
                best_weights = {name: tensor.to(self.device) for name, tensor in kept["best"].items()}
            self.network.load_state_dict(kept["network"])
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
            trainings = [Training(**training) for training in kept["trainings"]]
            for draw, own in zip(draws, kept["draws"], strict=True):
                set_generator_state(draw, own)
            defender.set_state(kept["defender"])
        for epoch in range(done + 1, recipe.epochs + 1):
            self.network.train()
            losses = torch.zeros(len(trainings), device=self.device)  # summed on the device, read once an epoch
            seen = 0.0  # records, in epochs: of DP's random batches not always 1
            for batch in defender.batches(indices, recipe.batch_size, *generators):
                share = batch.shape[-1] / indices.shape[-1]
                losses.add_(defender.step(self.network, optimizer, in_precision, *records.batch(batch)), alpha=share)
                seen += share
            losses = [loss / seen if seen else math.nan for loss in losses.tolist()]
            for number, (training, own) in enumerate(zip(trainings, losses), start=1):
                if seen and not (math.isfinite(own) or training.stopped):
                    which = f"of model {number} of {len(trainings)} " if len(trainings) > 1 else ""
                    raise Diverged(f"the loss {which}is no longer finite in epoch {epoch}, at learning rate "
                                   f"{schedule.get_last_lr()[0]:g}")
            schedule.step()
            accuracy, told = None, {"loss": losses}
            running = [not training.stopped for training in trainings]
            if dev is not None:
                told["dev accuracy"] = accuracies = defender.quality(self, records, dev)
                accuracy = sum(accuracies) / len(accuracies)
                better = [training.after(own, recipe.early_stop) for training, own in zip(trainings, accuracies)]
                if any(better):
                    best_weights = self._kept(better, best_weights)
            if on_epoch is not None:
                on_epoch(epoch, accuracy)
            if scalars is not None:
                scalars.add(epoch, told, running)
            if all(training.stopped for training in trainings):
                break
            if resume is not None:
                resume.save(state)
        if best_weights is not None:
            self.network.load_state_dict(best_weights)
        return trainings

    def _kept(self, better: list[bool], before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights to keep, after an epoch that was better than those `before`."""
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @torch.no_grad()
    def logits(self, records: Records, indices: torch.Tensor) -> torch.Tensor:
        """Logits (n, C), float32, in evaluation mode."""
        return self._ask(lambda part: self.network(records.batch(part)[0]).float(), records, indices)

    def test(self, records: Records, indices: torch.Tensor) -> float:
        """Accuracy, a fraction."""
        accuracy, = self.accuracies(records, indices)
        return accuracy

    def accuracies(self, records: Records, indices: torch.Tensor) -> list[float]:
        """Accuracy of each model of a stack, or of the one that this is."""
        correct = self.logits(records, indices).argmax(dim=-1) == records.y[indices]
        return correct.float().mean(dim=-1).reshape(-1).tolist()

    @torch.no_grad()
    def sensitivity(self, records: Records, indices: torch.Tensor, *, generator: torch.Generator,
                    draws: int = 10, epsilon: float = 1e-3) -> torch.Tensor:
        """Sensitivity of each posterior to noise on the input, (n, C), float32, in evaluation mode.

        s(x) = mean over `draws` of |p(x + epsilon u) - p(x)| / epsilon, u ~ N(0, I), where x is the
        normalised record (Yuan & Zhang 2022, section 4). `generator` lives on the records' device.
        """
        def answer(part):
            x = records.batch(part)[0]
            posterior = posteriors(self.network(x))
            change = torch.zeros_like(posterior)
            for _ in range(draws):
                noise = torch.empty_like(x).normal_(generator=generator)
                change += (posteriors(self.network(noise.mul_(epsilon).add_(x))) - posterior).abs_()
            return (change / (draws * epsilon)).float()

        return self._ask(answer, records, indices, generator)

    def _ask(self, answer: Callable, records: Records, indices: torch.Tensor, generator=None) -> torch.Tensor:
        """`answer` to all of `indices`, in evaluation mode and in batches; a GPU without memory gets smaller ones."""
        self.network.eval()
        while True:
            size, state = 2 * SMALLEST_PROBE, generator and generator.get_state()
            try:
                size = self.query_batch(records)
                return torch.cat([answer(part) for part in indices.split(size, dim=-1)], dim=-2)
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise UserError("the GPU's memory is too small for a single query: is another process using it?")
            self._query_batch = size // 2
            if generator is not None:
                generator.set_state(state)

    def query_batch(self, records: Records) -> int:
        """Records a forward pass without gradients; changes no result beyond rounding.

        On a GPU, as many as fill a quarter of its memory by what a small batch takes, rounded down to a power of 2.
        """
        if self._query_batch is None:
            on_cpu = self.device.type == "cpu"
            self._query_batch = QUERY_BATCH if on_cpu else _fitting_batch(self.network, records, self.device)
        return self._query_batch

    _query_batch: int | None = None


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
        self._query_batch = QUERY_BATCH

    def train(self, records: Records, indices: torch.Tensor, *, recipe: Recipe, generators: list[torch.Generator],
              dev: torch.Tensor, defender: Basic, resume=None, on_epoch=None, scalars=None) -> list[Training]:
        """As `BaseModel.train` does, for K models at once; returns a Training each.

        Args:
            indices, dev: (K, n) record numbers.
            generators: K of them.
            defender: its loss must follow from each model's logits alone, by its `criterion`.
            on_epoch: is told the mean accuracy on dev.
        """
        def loss(network, x, y):  # (K,); of their sum, the gradient of each model is that of its own loss
            return torch.func.vmap(defender.criterion)(network(x), y)

        trainings = self._epochs(records, indices, loss=loss, recipe=recipe, generators=generators, dev=dev,
                                 defender=defender, resume=resume, on_epoch=on_epoch, scalars=scalars)
        stack.unstack(self.network, [model.network for model in self.models])
        return trainings

    def _kept(self, better, before):
        chosen = torch.tensor(better, device=self.device)
        return {name: torch.where(chosen.view(-1, *[1] * (tensor.dim() - 1)), tensor, before.get(name, tensor))
                for name, tensor in self.network.state_dict().items()}


def _fitting_batch(network: nn.Module, records: Records, device: torch.device) -> int:
    probe = torch.zeros(SMALLEST_PROBE, dtype=torch.int64, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(records.batch(probe)[0])
    each = max(1, (torch.cuda.max_memory_allocated(device) - before) // len(probe))
    fits = torch.cuda.get_device_properties(device).total_memory // 4 // each
    return 2 ** min(14, max(6, fits.bit_length() - 1))  # 64 to 16384: more gains nothing


def posteriors(logits: torch.Tensor) -> torch.Tensor:
    """Softmax in float64: a difference of posteriors next to 1 keeps its digits."""
    return torch.softmax(logits.double(), dim=1)

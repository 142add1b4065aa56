"""Weight initialisation and dropout, both drawn from explicit generators."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
GROUPS = 32


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Xavier-normal weights and zero bias for convolutions and linear layers; 1 and 0 for
    normalisations.

    A module that starts otherwise has a method `initialise(generator)`, which is called instead.
    """
    for module in network.modules():
        start = getattr(module, "initialise", None)
        if callable(start):
            start(generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _NORMS):
            module.reset_parameters()  # 1 and 0, and fresh running statistics where there are any
        elif list(module.parameters(recurse=False)) + list(module.buffers(recurse=False)):
            raise TypeError(f"no rule to initialise a {type(module).__name__}")


def group_norms(network: nn.Module) -> None:
    """Replace each BatchNorm2d by GroupNorm, whose statistics are a record's own.

    Of C channels, gcd(32, C) groups: 32 is Wu & He's default (ECCV 2018, section 4.1), and Opacus
    replaces by the same rule.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                channels = child.num_features
                setattr(module, name, nn.GroupNorm(math.gcd(GROUPS, channels), channels))


Generator = (
    np.random.BitGenerator | torch.Generator
)  # of dropout: numpy's on the CPU, where it is twice as fast


class Dropout(nn.Module):
    """Dropout whose mask comes from a generator of its own (torch's draws from the global one).

    The probability is rounded to 1/65536: one 64-bit draw makes four decisions, which is what makes
    it cheap.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.drop_threshold = round(p * 2**16)  # of 2^16 draws
        if not 0 <= self.drop_threshold < 2**16:
            raise ValueError(f"dropout needs a probability in [0, 1), not {p}")
        self._generator: Generator | None = None

    def forward(self, x: torch.Tensor, generator: Generator | None = None) -> torch.Tensor:
        """Each element times 0 with probability p, else times 1 / (1 - p); `generator` may take the
        place of its own."""
        if not self.training or self.drop_threshold == 0:
            return x
        source = self.generator if generator is None else generator
        bits = random_bits(x.numel(), source, x.device)
        return x * self.mask_from_bits(bits, x.dtype).view(x.shape)

    def mask_from_bits(self, draws: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """From random bits (int16, overwritten) to a mask."""
        last = self.drop_threshold - 1 - 2**15  # the largest draw that drops
        # 0 or 1; on a CPU far faster than by way of bool
        mask = draws.clamp_(last, last + 1).sub_(last)
        return mask.to(dtype).mul_(2**16 / (2**16 - self.drop_threshold))

    @property
    def generator(self) -> Generator:
        """What masks are drawn from. Raises RuntimeError where `seed_dropout` was not called."""
        if self._generator is None:
            raise RuntimeError("this dropout has no generator: call seed_dropout on its network")
        return self._generator

    @generator.setter
    def generator(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def generators(self) -> list[Generator]:
        return [self.generator]

    def extra_repr(self) -> str:
        return f"p={self.p}"


def random_bits(count: int, generator: Generator, device: torch.device) -> torch.Tensor:
    """(count,) int16, uniform over all 65536 values."""
    whole = -(-count // 4)
    if isinstance(generator, np.random.BitGenerator):
        return torch.from_numpy(generator.random_raw(whole).view(np.int16))[:count]
    draws = torch.empty(whole, dtype=torch.int64, device=device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]


def dropout_generator(seed: int, device: torch.device | str) -> Generator:
    """A generator for masks on `device`."""
    device = torch.device(device)
    return (
        np.random.SFC64(seed) if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
    )


def generator_state(generator: Generator):
    """What `set_generator_state` needs to have a generator go on from here: plain numbers or a
    tensor."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.state["state"]["state"].tolist()


def set_generator_state(generator: Generator, state) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    else:
        counters = {"state": np.array(state, dtype=np.uint64)}
        generator.state = {**generator.state, "state": counters}


def dropout_generators(network: nn.Module) -> list[Generator]:
    """The generators that a network's dropout draws from, each once."""
    generators = [
        generator for module in network.modules() for generator in getattr(module, "generators", ())
    ]
    return list({id(generator): generator for generator in generators}.values())


def seed_dropout(network: nn.Module, *, seed: int) -> None:
    """Replace each nn.Dropout by ours, and let all of them draw from one generator seeded by
    `seed`.

    The generator is for the device of the network's weights; call again after moving the network.
    """
    generator = dropout_generator(seed, next(network.parameters()).device)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module has the mode it had."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode

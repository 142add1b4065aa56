"""Weight initialisation and dropout, both drawn from generators of their own."""
import torch
from torch import nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Xavier-normal weights and zero bias for convolutions and linear layers; 1 and 0 for normalisations.

    A module that starts otherwise has a method `initialise(generator)`, which is called instead.
    """
    for module in network.modules():
        if hasattr(module, "initialise"):
            module.initialise(generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, _NORMS):
            module.reset_parameters()  # 1 and 0, and fresh running statistics where there are any
        elif list(module.parameters(recurse=False)) + list(module.buffers(recurse=False)):
            raise TypeError(f"no rule to initialise a {type(module).__name__}")


class Dropout(nn.Module):
    """Dropout whose mask comes from a generator of its own (torch's draws from the global one).

    The probability is rounded to 1/65536: one 64-bit draw makes four decisions, which is what makes it cheap.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """`x` with entries dropped; `generator` takes the place of the module's own."""
        if not self.training or self.p == 0:
            return x
        return x * self.mask(x, generator or self.generator)

    def mask(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A mask of the shape and type of `x`: 0 with probability p, else 1 / (1 - p)."""
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
        draws.random_(-(2**63), None, generator=generator)
        dropped = round(self.p * 2**16)
        kept = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def use_generator(network: nn.Module, *, seed: int) -> None:
    """Replace each nn.Dropout by ours, and let all of them draw from one generator seeded by `seed`.

    The generator lives on the device of the network's weights; call again after moving the network.
    """
    generator = torch.Generator(next(network.parameters()).device).manual_seed(seed)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator

"""Several perceptrons of one shape as one network, worked on by batched matrix products."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from models.layers import Dropout, random_bits

_LAYERS = (nn.Flatten, nn.Linear, nn.ReLU, Dropout)


def fits(network: nn.Module) -> bool:
    """Whether copies of this network can be stacked: layers with a quantiser of weights (a subclass
    then) or of inputs (a hook) can't."""
    return isinstance(network, nn.Sequential) and all(
        type(layer) in _LAYERS and not layer._forward_pre_hooks for layer in network
    )


def stacked(networks: Sequence[nn.Module]) -> nn.Sequential:
    """One network of K for which `fits` is true: (K, B, ...) to (K, B, C).

    Its parameters have their names and a dimension K in front.
    """
    stacked_layer: dict[type, Callable[[tuple], nn.Module]] = {
        nn.Linear: StackedLinear,
        Dropout: StackedDropout,
        nn.Flatten: lambda _: nn.Flatten(2),
        nn.ReLU: lambda _: nn.ReLU(),
    }
    layers = zip(*(network.children() for network in networks), strict=True)
    return nn.Sequential(*(stacked_layer[type(copies[0])](copies) for copies in layers))


def unstack(network: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Write the weights of a stack back into the networks that it was made of."""
    weights = network.state_dict()
    for number, one in enumerate(networks):
        one.load_state_dict({name: tensor[number] for name, tensor in weights.items()})


class StackedLinear(nn.Module):
    """K linear layers: (K, B, in) to (K, B, out)."""

    def __init__(self, copies: tuple[nn.Linear, ...]):
        super().__init__()
        self.weight = nn.Parameter(
            torch.stack([copy.weight.detach() for copy in copies])
        )  # (K, out, in)
        self.bias = nn.Parameter(torch.stack([copy.bias.detach() for copy in copies]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))


class StackedDropout(nn.Module):
    """K dropouts, each with the generator, and so the masks, that it would have alone."""

    def __init__(self, copies: tuple[Dropout, ...]):
        super().__init__()
        # in a tuple they are no submodules: `seed_dropout` and `train` pass them by
        self.copies = copies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rule = self.copies[0]
        if not self.training or rule.drop_threshold == 0:
            return x
        draws = torch.stack(
            [random_bits(x[0].numel(), copy.generator, x.device) for copy in self.copies]
        )
        return x * rule.mask_from_bits(draws, x.dtype).view(x.shape)

    @property
    def generators(self) -> list:
        return [copy.generator for copy in self.copies]

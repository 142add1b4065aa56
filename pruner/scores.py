"""What is unimportant: a score for each thing that can go, smallest first. None where a module has
no such thing."""

import torch
from torch import nn


def weights(module: nn.Module) -> torch.Tensor | None:
    """Magnitude of each weight of a convolution or linear layer (Han et al., NeurIPS 2015), shaped
    as the weight."""
    return module.weight.detach().abs() if isinstance(module, (nn.Conv2d, nn.Linear)) else None


def filters_l1(module: nn.Module) -> torch.Tensor | None:
    """L1 norm of each filter of a convolution (Li et al., ICLR 2017), (filters,)."""
    return _filter_norm(module, 1)


def filters_l2(module: nn.Module) -> torch.Tensor | None:
    """L2 norm of each filter of a convolution, (filters,)."""
    return _filter_norm(module, 2)


def channels(module: nn.Module) -> torch.Tensor | None:
    """|gamma| of each channel of a BatchNorm2d (Liu et al., ICCV 2017), (channels,); none where it
    has but one."""
    if not isinstance(module, nn.BatchNorm2d) or module.num_features == 1:
        return None
    return module.weight.detach().abs()


def _filter_norm(module: nn.Module, order: int) -> torch.Tensor | None:
    if not isinstance(module, nn.Conv2d):
        return None
    return torch.linalg.vector_norm(module.weight.detach().flatten(1), ord=order, dim=1)

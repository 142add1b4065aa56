"""Images flipped and shifted: at random in training, and in a fixed list of views for queries.

As in the code of Carlini et al. (S&P 2022): an image may be mirrored left to right, is padded by
reflection without repeating the border, and cropped to its size. Usual CIFAR recipes, torchvision's
RandomCrop(32, padding=4) among them, pad with zeros instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PAD = 4  # pixels, of images from 28x28; an eighth of the side of smaller ones
MOST_SHIFT = 4  # pixels, of views


@dataclass(frozen=True)
class View:
    """An image as it is asked for: mirrored or not, then shifted by so many pixels up and left."""

    flip: bool
    up: int
    left: int


def view_list(count: int) -> list[View]:
    """The first views of an image: itself, mirrored, then by growing shift, each shift unmirrored
    and mirrored, so that fewer views are the beginning of more."""
    side = range(-MOST_SHIFT, MOST_SHIFT + 1)
    shifts = sorted(((i, j) for i in side for j in side), key=lambda one: max(map(abs, one)))
    return [View(flip, *shift) for shift in shifts for flip in (False, True)][:count]


# whole squares of shifts: 1, the image; 2, mirrored too; 18, 50, 98, 162, shifted by up to 1 .. 4
VIEW_COUNTS = (1, *(2 * (2 * most + 1) ** 2 for most in range(MOST_SHIFT + 1)))


def seen(x: torch.Tensor, view: View) -> torch.Tensor:
    """Images x (N, C, H, W) of any type in one view."""
    import torch

    height, width = x.shape[-2:]
    rows = _reflected(torch.arange(height, device=x.device) + view.up, height)
    columns = _reflected(torch.arange(width, device=x.device) + view.left, width)
    if view.flip:
        columns = width - 1 - columns
    return x.index_select(-2, rows).index_select(-1, columns)


def pad_of(shape: tuple[int, ...]) -> int:
    """By how many pixels images of this shape are shifted at most in training."""
    return min(PAD, (min(shape[-2:]) + 4) // 8)


def augmented(x: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Images x (B, C, H, W), or (K, B, C, H, W) of a stack of K models, each mirrored with
    probability one half and shifted by up to `pad_of` pixels either way, all equally likely.

    Args:
        generators: one for each model, on the device of x; each draws one number an image.
    """
    import torch

    *batch, channels, height, width = x.shape
    pad = pad_of(x.shape)
    side = 2 * pad + 1
    draws = [
        torch.randint(2 * side * side, (batch[-1],), generator=one, device=x.device)
        for one in generators
    ]
    code = torch.cat(draws)[:, None]
    flip, up, left = code % 2, code // 2 // side - pad, code // 2 % side - pad
    rows = _reflected(torch.arange(height, device=x.device) + up, height)
    columns = _reflected(torch.arange(width, device=x.device) + left, width)
    columns = torch.where(flip == 1, width - 1 - columns, columns)
    # of whole pixels, which lie together where images are channels last
    first = torch.arange(len(code), device=x.device)[:, None] * height
    places = ((first + rows) * width)[:, :, None] + columns[:, None, :]
    images = x.reshape(-1, channels, height, width).permute(0, 2, 3, 1)
    chosen = images.reshape(-1, channels).index_select(0, places.flatten())
    return chosen.view(-1, height, width, channels).permute(0, 3, 1, 2).view(x.shape)


def _reflected(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Positions mirrored at the first and the last pixel into 0 .. size - 1."""
    last = size - 1
    return last - (last - positions.abs()).abs()

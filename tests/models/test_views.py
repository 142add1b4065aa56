"""Images flipped and shifted, against torchvision and padded copies cut by loops."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torchvision.transforms import functional as F

from models.views import MOST_SHIFT, VIEW_COUNTS, View, augmented, pad_of, seen, view_list

SHAPES = [(1, 8, 8), (3, 32, 32), (3, 9, 7), (2, 5, 12)]


def images(shape, n=4, seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(256, size=(n, *shape), dtype=np.uint8)
    )


def by_torchvision(x, flip, up, left, pad):
    height, width = x.shape[-2:]
    padded = F.pad(F.hflip(x) if flip else x, pad, padding_mode="reflect")
    return F.crop(padded, pad + up, pad + left, height, width)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_view_is_torchvisions(shape):
    x = images(shape)
    for view in view_list(VIEW_COUNTS[-1]):
        expected = by_torchvision(x, view.flip, view.up, view.left, MOST_SHIFT)
        assert torch.equal(seen(x, view), expected), view


@pytest.mark.parametrize("most", range(MOST_SHIFT + 1))
def test_views_are_both_mirrorings_of_all_shifts_and_begin_with_the_image(most):
    views = view_list(VIEW_COUNTS[most + 1])
    side = range(-most, most + 1)
    every = {View(flip, i, j) for flip in (False, True) for i in side for j in side}
    assert len(views) == len(every) and set(views) == every
    assert views == view_list(10**6)[: len(views)]
    assert views[:2] == [View(False, 0, 0), View(True, 0, 0)]
    x = images((1, 8, 8))
    assert torch.equal(seen(x, views[0]), x) and not torch.equal(seen(x, views[1]), x)


def test_counts_are_those_of_the_papers():
    assert VIEW_COUNTS == (1, 2, 18, 50, 98, 162)


@pytest.mark.parametrize(
    "shape, pad",
    [((3, 32, 32), 4), ((1, 28, 28), 4), ((1, 8, 8), 1), ((3, 64, 64), 4), ((1, 16, 40), 2)]
    + [((1, 3, 3), 0), ((1, 1, 1), 0)],
)
def test_small_images_are_shifted_by_less(shape, pad):
    assert pad_of(shape) == pad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("last", [False, True])
def test_an_augmented_image_is_one_of_the_crops_and_all_are_equally_likely(shape, last):
    pad = pad_of(shape)
    n = 8000 if pad == 1 else 300
    x = images(shape, n=1).float().expand(n, *shape)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    made = augmented(x, [torch.Generator().manual_seed(1)])
    assert made.shape == x.shape
    side = range(-pad, pad + 1)
    crops = [
        by_torchvision(x[:1], flip, i, j, pad) for flip in (False, True) for i in side for j in side
    ]
    hits = torch.stack([(made == crop).flatten(1).all(dim=1) for crop in crops])
    assert (hits.sum(dim=0) == 1).all()
    if pad == 1:
        assert chisquare(hits.sum(dim=1).numpy()).pvalue > 1e-3


def test_images_are_drawn_for_apart_and_by_the_generator_alone():
    x = images((3, 16, 16), n=64).float()
    draw = lambda seed: torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    one = augmented(x, [draw(1)])
    torch.manual_seed(1)
    assert torch.equal(one, augmented(x, [draw(1)]))
    assert not torch.equal(one, augmented(x, [draw(2)]))
    same = augmented(x[:1].expand(64, -1, -1, -1), [draw(1)])
    assert len({image.numpy().tobytes() for image in same}) > 20


def test_a_stack_draws_for_each_of_its_models_as_it_would_alone():
    x = images((3, 16, 16), n=24).float().view(3, 8, 3, 16, 16)
    draws = lambda: [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = augmented(x, draws())
    for k, draw in enumerate(draws()):
        assert torch.equal(together[k], augmented(x[k], [draw]))

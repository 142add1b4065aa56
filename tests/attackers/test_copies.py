"""Perturbed copies of records: how often bits are flipped, how wide noise is, and whom it depends on."""

import numpy as np
import pytest
import torch

from attackers.copies import COPIES, UnitCube
from datasets import Records


def binary(n=40, d=300, kind=torch.uint8):
    x = (torch.rand(n, d, generator=torch.Generator().manual_seed(1)) < 0.3).to(kind)
    return UnitCube(Records(x, torch.zeros(n, dtype=torch.int64), 2))


def table(n=40, d=30):
    x = 50 * torch.randn(n, d, generator=torch.Generator().manual_seed(1)) + 7
    x[:, 2] = 4.0  # a column that says nothing
    return UnitCube(Records(x, torch.zeros(n, dtype=torch.int64), 2))


def images(n=6):
    x = torch.randint(256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    return UnitCube(
        Records(
            x.to(torch.uint8),
            torch.zeros(n, dtype=torch.int64),
            2,
            (0.4, 0.5, 0.6),
            (0.2, 0.3, 0.4),
        )
    )


def of_all(cube):
    return torch.arange(len(cube.records))


def copies_of(cube, strength, ids=None, seed=3):
    ids = of_all(cube) if ids is None else torch.as_tensor(ids)
    noise = cube.noise(ids.numpy(), seed=seed)
    return cube.points(ids), cube.perturbed(cube.points(ids), noise, strength)


def test_tables_of_zeros_and_ones_are_known_by_their_values():
    assert binary().is_binary and binary(kind=torch.float32).is_binary
    assert not table().is_binary and not images().is_binary
    dark = UnitCube(Records(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3).long(), 2))
    assert not dark.is_binary  # pixels, of which all may be 0


@pytest.mark.parametrize("cube", [binary(), table(), images()], ids=["binary", "table", "images"])
def test_the_cube_is_what_the_network_sees_of_the_records(cube):
    points = cube.points(of_all(cube))
    assert points.min() >= 0 and points.max() <= 1 and points.dim() == 2
    expected, _ = cube.records.batch(of_all(cube))
    assert torch.allclose(cube.inputs(points), expected, atol=1e-4)
    if cube.records.x.dim() == 4 or cube.is_binary:
        assert torch.equal(cube.inputs(points), expected)


@pytest.mark.parametrize("level", range(4))
def test_bits_are_flipped_as_often_as_the_strength_says(level):
    cube = binary()
    strength = cube.strengths[level]
    assert strength == pytest.approx((1, 3, 10, 30)[level] / 300)
    points, copies = copies_of(cube, strength)
    assert copies.shape == (40, COPIES, 300) and set(copies.unique().tolist()) == {0, 1}
    flipped, n = (copies != points[:, None]).float().mean().item(), copies.numel()
    assert abs(flipped - strength) < 5 * (strength / n) ** 0.5
    assert binary(d=4).strengths[-1] == 0.5  # more would be another record's flips


def test_noise_is_as_wide_as_the_strength_says_and_stays_in_the_cube():
    cube = images()
    points, copies = copies_of(cube, 0.02)
    inside = (points[:, None].expand_as(copies) > 0.2) & (points[:, None].expand_as(copies) < 0.8)
    moved = (copies - points[:, None])[inside]
    assert moved.mean().abs() < 5e-4 and moved.std() == pytest.approx(0.02, rel=0.03)
    _, strong = copies_of(cube, 3.0)
    assert strong.min() == 0 and strong.max() == 1
    table_points, table_copies = copies_of(table(), 0.25)
    of_column = table().inputs(table_copies.flatten(0, 1))[:, 2]
    assert (of_column == 4).all()  # of one value, there is no range to move in


def test_a_records_copies_are_the_same_whoever_else_is_asked_for():
    cube = images()
    _, all_copies = copies_of(cube, 0.1)
    _, two = copies_of(cube, 0.1, [4, 1])
    assert torch.equal(two, all_copies[[4, 1]])
    assert not torch.equal(copies_of(cube, 0.1, [4], seed=4)[1], two[:1])
    assert len(np.unique(all_copies.flatten(1).numpy(), axis=0)) == len(cube.records)


def test_a_bit_that_a_weak_copy_flips_a_stronger_one_flips_too():
    cube = binary()
    points, weak = copies_of(cube, cube.strengths[0])
    _, strong = copies_of(cube, cube.strengths[2])
    changed = [(copies != points[:, None]) for copies in (weak, strong)]
    assert (changed[0] <= changed[1]).all()

"""Records and their batches, and the split into roles."""

import numpy as np
import pytest
import torch
import torchvision

from core.console import UserError
from datasets import Records, split


def two_images():
    x = torch.tensor(
        [[[[0, 255]], [[51, 102]]], [[[255, 0]], [[153, 204]]]], dtype=torch.uint8
    )  # (2, 2, 1, 2)
    return Records(x, torch.tensor([4, 7]), 10, mean=(0.5, 0.2), std=(0.5, 0.1))


def test_batch_of_images_is_normalised_by_channel():
    records = two_images()
    x, y = records.batch(torch.tensor([1, 0, 1]))
    second, first = [[[1.0, -1.0]], [[4.0, 6.0]]], [[[-1.0, 1.0]], [[0.0, 2.0]]]
    torch.testing.assert_close(x, torch.tensor([second, first, second]))
    assert x.dtype == torch.float32 and y.tolist() == [7, 4, 7]
    assert records.x.tolist() == two_images().x.tolist(), "the records themselves were changed"


def test_batch_gives_the_floats_of_torchvision():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    records = Records(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.zeros(5).long(),
        10,
        mean,
        std,
    )
    transforms = torchvision.transforms
    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    assert torch.equal(
        records.batch(torch.arange(5))[0], torch.stack([expected(image) for image in pixels])
    )


def test_batch_of_a_table_is_cast_only():
    binary = Records(torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8), torch.tensor([0, 1]), 2)
    x, y = binary.batch(torch.tensor([1]))
    assert x.dtype == torch.float32 and x.tolist() == [[1.0, 1.0]] and y.tolist() == [1]
    numbers = Records(torch.tensor([[0.5, -3.0]]), torch.tensor([0]), 2)
    numbers.batch(torch.tensor([0]))[0].zero_()
    assert numbers.x.tolist() == [[0.5, -3.0]], "a batch must be a copy"


def test_batch_builds_no_tensor_from_python_numbers(monkeypatch):
    records, indices = two_images(), torch.tensor([0])
    for maker in ("tensor", "as_tensor"):
        monkeypatch.setattr(
            torch,
            maker,
            lambda *args, **kwargs: pytest.fail("this waits for the GPU in every batch"),
        )
    records.batch(indices)


def test_to_keeps_everything():
    records = two_images()
    moved = records.to("meta")
    assert moved.x.device.type == moved.y.device.type == moved._mean.device.type == "meta"
    assert (moved.shape, moved.num_cls, moved.mean, moved.std) == (
        (2, 1, 2),
        10,
        records.mean,
        records.std,
    )
    assert len(moved) == 2


def test_images_on_a_device_are_channels_last_and_say_the_same():
    records = Records(
        x=torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5),
        y=torch.arange(2),
        num_cls=2,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.6, 0.7),
    )
    moved, indices = records.to("cpu"), torch.tensor([1, 0, 1])
    x, y = moved.batch(indices)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    assert torch.equal(x, records.batch(indices)[0]) and y.tolist() == [1, 0, 1]


def test_a_batch_for_a_stack_has_a_dimension_in_front():
    records, indices = two_images().to("cpu"), torch.tensor([[1, 0, 1], [0, 0, 1]])
    x, y = records.batch(indices)
    for number in range(2):
        alone = records.batch(indices[number])
        assert torch.equal(x[number], alone[0]) and torch.equal(y[number], alone[1])


def test_split_sizes_of_location():
    # 5010 / 2 = 2505; test: ceil(2505 * 0.45 = 1127.25); 1377 are left; dev: ceil(1377 * 0.1818 = 250.3)
    for part in split(5010, seed=7, shadow_num=2).values():
        assert (len(part.train), len(part.dev), len(part.test)) == (1126, 251, 1128)
        assert {part.train.dtype, part.dev.dtype, part.test.dtype} == {np.dtype(np.int64)}


def everything(part):
    return np.concatenate([part.train, part.dev, part.test])


def test_split_parts_are_disjoint_and_cover_the_half():
    roles = split(1001, seed=3, shadow_num=3)
    assert list(roles) == ["victim", "shadow_0", "shadow_1", "shadow_2"]
    victim, *shadows = map(everything, roles.values())
    for shadow in shadows:
        assert sorted([*victim, *shadow]) == list(
            range(1001)
        )  # each record once: no overlap, nothing left over


def test_split_is_the_papers():
    """Against the calls of the paper, one after the other, on plain lists."""
    from sklearn.model_selection import train_test_split

    victim_half, attack_half = train_test_split(list(range(1797)), test_size=0.5, random_state=11)
    roles = split(1797, seed=11, shadow_num=3)
    halves = {"victim": (victim_half, 11)} | {
        f"shadow_{i}": (attack_half, 11 + i) for i in range(3)
    }
    for role, (half, seed) in halves.items():
        train, test = train_test_split(half, test_size=0.45, random_state=seed)
        train, dev = train_test_split(train, test_size=0.1818, random_state=seed)
        assert roles[role].train.tolist() == train
        assert roles[role].dev.tolist() == dev
        assert roles[role].test.tolist() == test


def test_split_depends_on_the_seed_alone():
    one, again, other = (split(200, seed=seed, shadow_num=1) for seed in (5, 5, 6))
    assert all(np.array_equal(everything(one[role]), everything(again[role])) for role in one)
    assert not np.array_equal(everything(one["victim"]), everything(other["victim"]))
    more = split(200, seed=5, shadow_num=4)
    assert np.array_equal(everything(more["shadow_0"]), everything(one["shadow_0"]))
    assert not np.array_equal(more["shadow_0"].train, more["shadow_1"].train)


@pytest.mark.parametrize("n", [0, 1, 3, 10, 21])
def test_split_of_too_few_records(n):
    with pytest.raises(UserError, match=f"{n} records are too few.*22"):
        split(n, seed=7, shadow_num=1)


@pytest.mark.parametrize("n", range(22, 60))
def test_split_of_just_enough_records(n):
    for part in split(n, seed=7, shadow_num=1).values():
        assert min(len(part.train), len(part.dev), len(part.test)) >= 2

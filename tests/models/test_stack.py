"""Models trained as one stack against the same models trained alone, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models
from base_model import BaseModel, Objective, Stack, TrainConfig, TrainSet
from bench import training
from core.devices import generator
from datasets import Records, RoleSplit
from defenders import DEFENDERS
from models import stack
from pruner import mask

CPU = torch.device("cpu")
COPIES = 4
STACKABLE = [name for name in DEFENDERS if DEFENDERS.load(name).is_stackable()]


class DoubleRecords(Records):
    def batch(self, indices):
        x, y = super().batch(indices)
        return x.double(), y


def setting(shape=(3, 2)):
    draw = torch.Generator().manual_seed(0)
    records = DoubleRecords(
        x=torch.randn(200, *shape, generator=draw),
        y=torch.randint(3, (200,), generator=draw),
        num_cls=3,
    )
    order = torch.stack([torch.randperm(200, generator=draw) for _ in range(COPIES)])
    return records, order[:, :61], order[:, 61:90]


def model(number):
    draw = generator(7, "pretrain", f"shadow_{number}")
    network = models.build("columnfc", shape=(3, 2), num_cls=3, generator=draw).double()
    return BaseModel(network, device=CPU, generator=draw)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("defend", STACKABLE)
@pytest.mark.parametrize("pruned", [False, True])
def test_each_model_of_a_stack_is_as_if_trained_alone(optimizer, defend, pruned):
    records, train, dev = setting()
    recipe = TrainConfig(epochs=12, batch_size=16, early_stop=2, optimizer=optimizer, lr=0.02)
    alone, together = [model(k) for k in range(COPIES)], [model(k) for k in range(COPIES)]
    masks = [mask.compute_masks(one.network, pruner="l1unstructure", sparsity=0.6) for one in alone]
    orders = lambda: [generator(7, "order", k) for k in range(COPIES)]
    defender = DEFENDERS.load(defend)(0.5)
    if pruned:
        for models_of in (alone, together):
            for one, own in zip(models_of, masks):
                one.attach_masks(own)
    expected = [
        one.train(TrainSet(records, train[k], dev[k]), recipe, generator=draw, objective=defender)
        for k, (one, draw) in enumerate(zip(alone, orders()))
    ]
    stacked = Stack(together)
    found = stacked.train_each(
        TrainSet(records, train, dev), recipe, generators=orders(), objective=defender
    )
    assert found == expected
    for one, other in zip(together, alone):
        for name, weight in one.network.state_dict().items():
            torch.testing.assert_close(
                weight, other.network.state_dict()[name], rtol=1e-9, atol=1e-12
            )
    assert stacked.accuracies(records, dev) == [
        one.test(records, dev[k]) for k, one in enumerate(together)
    ]
    if (
        optimizer == "adam" and not pruned
    ):  # the setting tells something: models stop at epochs of their own
        assert len({len(training.dev_accuracy) for training in found}) > 1


@pytest.mark.parametrize(
    "hook",
    [
        "setup",
        "build_optimizer",
        "batches",
        "step",
        "loss",
        "selection_metric",
        "state",
        "set_state",
    ],
)
def test_an_objective_that_overrides_any_other_hook_is_not_stacked(hook):
    """Else it would be trained without that hook."""
    kind = type("Other", (Objective,), {hook: lambda self, *_, **__: None})
    assert (
        not kind.is_stackable()
        and Objective.is_stackable()
        and DEFENDERS.load("ppb").is_stackable()
    )
    assert not DEFENDERS.load("adv").is_stackable() and not DEFENDERS.load("dp").is_stackable()
    records, train, dev = setting()
    with pytest.raises(ValueError, match="cannot train a stack"):
        Stack([model(0), model(1)]).train_each(
            TrainSet(records, train[:2], dev[:2]),
            TrainConfig(epochs=1),
            generators=[torch.Generator()] * 2,
            objective=kind(),
        )


def test_only_plain_perceptrons_are_stacked():
    build = lambda name, shape: models.build(
        name, shape=shape, num_cls=3, generator=torch.Generator()
    )
    assert stack.fits(build("columnfc", (5,))) and not stack.fits(build("resnet18", (3, 8, 8)))
    assert not stack.fits(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def part(train, dev, test):
    return RoleSplit(*(np.arange(n) for n in (train, dev, test)))


def test_roles_of_one_size_are_stacked_up_to_the_limit():
    parts = {"victim": part(9, 2, 8)} | {f"shadow_{i}": part(9, 2, 9) for i in range(5)}
    assert list(training.stacks(parts, most=3).values()) == [
        ["victim"],
        ["shadow_0", "shadow_1", "shadow_2"],
        ["shadow_3", "shadow_4"],
    ]
    assert training.stacks(parts, most=1) == {role: [role] for role in parts}


def test_stages_store_the_same_models_from_a_stack(write_config, monkeypatch):
    """As on a GPU: all models of a stage in one stack, against one after the other."""
    import pretrain
    import prune

    stored = {}
    for results, most in (("alone", 1), ("together", 99)):
        real = training.stacks
        monkeypatch.setattr(training, "stacks", lambda parts, most=most: real(parts, most=most))
        # few steps, since float32 sums in another order drift apart
        path = write_config(epochs=2, prune_epochs=1, batch_size=64, results=results)
        assert pretrain.main(["cpu", path]) == 0
        assert prune.main(["cpu", path, "--defend", "ppb"]) == 0
        monkeypatch.setattr(training, "stacks", real)
        for file in sorted(Path(results).rglob("best.pth")):
            stored.setdefault(str(file.relative_to(results)), []).append(
                (
                    torch.load(file, weights_only=True),
                    json.loads((file.parent / "manifest.json").read_text()),
                )
            )
    assert len(stored) == 6
    for (weights, one), (others, other) in stored.values():
        for name in weights:
            torch.testing.assert_close(weights[name], others[name], rtol=1e-3, atol=1e-4)
        assert one["epoch"] == other["epoch"] and one["split"] == other["split"]
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=0.03)

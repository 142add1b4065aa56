"""All that runs on a GPU, run on a second device that machines without one have too (see
`second_device`): the same values as on the CPU, and nothing left behind on the other device."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from device_paths import PATHS, plain
from helpers import ALL
from second_device import OnSecond, OtherDevice, second_device

import bench.signals
import bench.training
import core.devices
import core.parallel
import mia
import pretrain
import prune
import prune_dp
import transformer
from attackers import VERDICTS
from base_model import Callback
from core.files import packed, unpack
from models import layers

pytestmark = pytest.mark.usefixtures("short_attack_training")


@pytest.fixture
def torch_dropout(monkeypatch):
    """Dropout on the CPU from torch's generators and SAMIA on one thread, as on a GPU: so that
    values can be compared."""
    monkeypatch.setattr(
        layers, "dropout_generator", lambda seed, device: torch.Generator(device).manual_seed(seed)
    )
    monkeypatch.setattr(transformer, "in_slices", lambda function, x, parameters, draw: function(x))


@pytest.mark.parametrize("path", PATHS)
def test_values_on_the_second_device_are_those_of_the_cpu(path, torch_dropout):
    expected = PATHS[path]("cpu")
    with second_device():
        found = {name: plain(value) for name, value in PATHS[path]("cuda").items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # torch's attention without gradients adds up in an order of its own on the CPU
        tolerance = {"rtol": 1e-4, "atol": 1e-5} if path == "samia" else {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(
            np.asarray(found[name]), np.asarray(value), **tolerance, err_msg=name
        )


class Interrupted(Exception):
    pass


class InMemory(Callback):
    """Stops the training once when it has a state, and puts it back there the next time."""

    def __init__(self):
        self.state = None

    def on_start(self, run):
        if self.state:
            run.set_state(unpack(self.state))

    def on_epoch(self, run):
        if self.state is None:
            self.state = packed(run.state())
            raise Interrupted


@pytest.mark.parametrize(
    "path",
    [
        *("train images", "train augmented images", "ppb", "adv", "mixup_mmd"),
        *("dp pyvacy", "dp opacus"),
    ],
)
def test_a_training_on_the_second_device_goes_on_where_it_stopped(path):
    resume = InMemory()
    with second_device():
        expected = PATHS[path]("cuda")
        with pytest.raises(Interrupted):
            PATHS[path]("cuda", callbacks=[resume])
        found = PATHS[path]("cuda", callbacks=[resume])
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def run(stage, *words):
    assert stage.main(["0", *words]) == 0


@pytest.mark.slow
def test_all_stages_and_attacks_run_on_the_second_device(write_config, capsys):
    path = write_config(epochs=2, shadow_num=3, batch_size=32, save_every=0)
    with second_device():
        run(pretrain, path)
        run(prune, path)
        run(mia, path, "--attacks", "all")
        for engine, strength in (("pyvacy", "0.5"), ("opacus", "0.6")):
            run(prune_dp, path, "--defend", "dp", "--dp_engine", engine, "--defend_arg", strength)
        run(prune, path, "--defend", "adv")
        run(mia, path, "--defend", "adv", "--adaptive", "--attacks", "qmia,blindmi,samia")
    made = Path("results/tiny_columnfc")
    manifests = list(made.rglob("manifest.json"))
    assert len(manifests) == 4 * 5
    assert {json.loads(path.read_text())["made"]["device"] for path in manifests} == {"cuda:0"}
    lines = [
        json.loads(line)
        for path in made.rglob("attacks.jsonl")
        for line in path.read_text().splitlines()
    ]
    found = {VERDICTS[line["attack"]] for line in lines}
    assert found == {VERDICTS[verdict] for verdict in ALL}
    assert {line["device"] for line in lines} == {"cuda:0"}


class Forked(Exception):
    pass


@pytest.mark.parametrize("workers", [2, 1])
@pytest.mark.parametrize(
    "stage, words",
    [(pretrain, []), (prune, []), (prune_dp, ["--defend", "dp"]), (mia, ["--original"])],
)
def test_the_device_is_not_touched_before_processes_are_forked(
    stage, words, workers, write_config, monkeypatch
):
    """What has touched a GPU cannot be forked; without processes, stacks are planned by the
    device's memory."""
    path = write_config(epochs=1, shadow_num=1)
    if stage is not pretrain:
        assert pretrain.main(["cpu", path]) == 0

    def forks(*_, **__):
        raise Forked

    def touched(*_, **__):
        raise OtherDevice("the device has been touched")

    for module in (bench.training, bench.signals, core.parallel):
        monkeypatch.setattr(module, "parallel_map", forks)
    with second_device(), monkeypatch.context() as patch:
        patch.setattr(OnSecond, "__new__", touched)
        for name in (
            "device",
            "is_available",
            "is_bf16_supported",
            "get_device_properties",
            "synchronize",
        ):
            patch.setattr(torch.cuda, name, touched)
        with pytest.raises(OtherDevice if workers == 1 and stage is not mia else Forked):
            stage.main(["0", path, *words, "--workers", str(workers)])

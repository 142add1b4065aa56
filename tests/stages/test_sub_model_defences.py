"""Defences with sub-models, as stages run them: killed and resumed, over rounds, quantised."""

import numpy as np
import pytest
import torch
from helpers import MADE, content, files, make_once, run

import bench.outputs
import mia
import pretrain
import prune
import quantize
from base_model import TrainingRun
from defenders.ppb import PosteriorBalancing

SMALL = {"selena": "3", "wemem_rsw": "0.4", "wemem_rmr": "0.05", "wemem_swmr": "0.05"}
STRENGTHS = SMALL | {"radd": "1", "distill": "4"}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    changes = {"epochs": 6, "prune_epochs": 3, "batch_size": 16, "shadow_num": 1, "save_every": 0}
    return make_once(tmp_path_factory.mktemp("trained"), (pretrain,), **changes)


def killed_after(monkeypatch, owner, name, count):
    """Let the method work so many times, and then end the process."""
    real, calls = getattr(owner, name), []

    def last(*args, **how):
        calls.append(None)
        if len(calls) > count:
            raise Killed
        return real(*args, **how)

    monkeypatch.setattr(owner, name, last)


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_training_that_was_killed_comes_out_the_same(name, trained_once, monkeypatch):
    path = trained_once.copy_here()
    words = [path, "--defend", name, "--defend_arg", STRENGTHS[name], "--prune_iterations", "2"]
    run(prune, *words)
    whole = files()
    for file in MADE.rglob("*"):
        if file.is_file() and (name in str(file) or file.name.startswith("sub_model")):
            file.unlink()
    # in an epoch, once in each round, and, where there are any, between two sub-models
    stops = [(TrainingRun, "train_epoch", 2), (TrainingRun, "train_epoch", 4)]
    if name != "distill":
        stops.insert(0, (bench.outputs, "packed_arrays", 2))
    for stop in stops:
        with monkeypatch.context() as patch:
            killed_after(patch, *stop)
            with pytest.raises(Killed):
                prune.main(["cpu", *words])
    run(prune, *words)
    assert files() == whole


def test_a_defence_is_told_of_the_rounds_before_and_asks_the_original(trained_once, monkeypatch):
    path, told = trained_once.copy_here(), []

    def setup(self, context):
        network = context.original_network()
        train = context.data.train
        answers = network(context.data.records.batch(train)[0])
        same = torch.allclose(answers, context.original(train), rtol=1e-4, atol=1e-5)
        subset = torch.randperm(9, generator=context.subsets).tolist()
        told.append((context.epochs_before, same and not network.training, subset))

    monkeypatch.setattr(PosteriorBalancing, "setup", setup)
    run(prune, path, "--defend", "ppb", "--prune_iterations", "3", "--prune_epochs", "2")
    before, answers, subsets = zip(*told)
    assert before == (0, 2, 4) * 2 and all(answers)
    # a role's in all rounds, and each role's its own
    assert subsets[:3] == subsets[:1] * 3 and subsets[3:] == subsets[3:4] * 3
    assert subsets[0] != subsets[3]


def test_sub_models_serve_every_defence_round_and_stage(trained_once):
    path = trained_once.copy_here()
    run(prune, path, "--defend", "wemem_rsw")
    made = {file: content(file) for file in MADE.rglob("sub_model_*.npz")}
    assert len(made) == 5 * 2
    run(prune, path, "--defend", "radd", "--prune_iterations", "2", "--prune_sparsity", "0.5")
    run(quantize, path, "--quantizer", "int8", "--defend", "wemem_rmr", "--quantize_epochs", "1")
    assert {file: content(file) for file in MADE.rglob("sub_model_*.npz")} == made
    train = {str(file.parent.name): np.load(file, allow_pickle=False)["records"] for file in made}
    assert len(train) == 2 and not set(train["victim_model"]) & set(train["shadow_model_0"])


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_quantised_network_is_defended_and_attacked(name, trained_once):
    path = trained_once.copy_here()
    defence = ["--defend", name, "--defend_arg", STRENGTHS[name]]
    words = [path, "--quantizer", "int8", *defence]
    run(quantize, *words)
    run(quantize, path, "--quantizer", "int8")
    for more in ([], ["--adaptive"]):
        run(mia, *words, "--attacks", "loss", *more)
    (folder,) = MADE.glob(f"int8_{name}_*_model")
    weights, plain = (
        torch.load(place / "best.pth", weights_only=True) for place in (folder, MADE / "int8_model")
    )
    assert any(not torch.equal(weights[key], plain[key]) for key in weights)


@pytest.mark.parametrize("name", ["selena", "distill"])
def test_a_student_starts_from_new_weights_under_the_masks(name, write_config):
    path = write_config("kept.json", epochs=2, prune_epochs=0, shadow_num=1)
    run(pretrain, path, "--keep_epochs", "0")
    words = [path, "--defend", name, "--defend_arg", STRENGTHS[name]]
    run(prune, *words)
    run(prune, *words, "--rewind", "0")
    run(prune, path)
    load = lambda file: torch.load(file, weights_only=True)
    plain = load(MADE / "l1unstructure_0.7_model" / "best.pth")
    initial = load(MADE / "victim_model" / "epoch_0.pth")
    folders = MADE.glob(f"l1*{name}*_model")
    rewound, student = sorted(folders, key=lambda folder: "rewind" not in folder.name)
    for key, mask in load(student / "best_mask.pth").items():
        assert torch.equal(load(rewound / "best.pth")[key], initial[key] * mask)
        weights = load(student / "best.pth")[key]
        assert not weights[~mask].any() and weights[mask].any()
        for other in (plain[key], initial[key]):
            assert not torch.isclose(weights[mask], other[mask]).any()


def test_distill_refuses_too_few_dev_records(write_config, capsys, tmp_path):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(60, 12)).astype(np.float32), np.arange(60) % 10
    np.savez(tmp_path / "few.npz", x=x, y=y)
    changes = {"data_path": str(tmp_path / "few.npz"), "num_cls": 10, "shadow_num": 1}
    path = write_config("few.json", epochs=1, **changes)
    run(pretrain, path)
    assert prune.main(["cpu", path, "--defend", "distill"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: distill learns from dev records, of which there are ")
    assert said.count("\n") == 1 and not list(MADE.glob("*distill*/best.pth"))

"""What a defence may ask for of its role, and what a defended network answers."""

import numpy as np
import pytest
import torch
from helpers import MADE, a_batch, make_once, run

import mia
import pretrain
import prune
from base_model import BaseModel, Objective
from bench.command_line import parse
from bench.role_context import RoleContext
from bench.run import begin
from defenders import DEFENDERS


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    return make_once(tmp_path_factory.mktemp("role"), (pretrain,), epochs=6, prune_epochs=1)


def role_context(path, role, *words):
    task = begin(parse("prune", ["cpu", path, *words], about=""))
    return task, RoleContext(task, task.models(), role)


@pytest.mark.parametrize("role", ["victim", "shadow_1"])
def test_the_original_answers_as_it_does_when_it_is_attacked(role, trained_once):
    path = trained_once.copy_here()
    run(mia, path, "--original", "--attacks", "loss")
    task, context = role_context(path, role)
    folder = {"victim": "victim_model", "shadow_1": "shadow_model_1"}[role]
    stored = np.load(MADE / folder / "logits.npz", allow_pickle=False)
    numbers = torch.from_numpy(stored["records"])
    logits = context.context(torch.Generator()).original(numbers)
    np.testing.assert_allclose(logits.numpy(), stored["answers"], rtol=1e-5, atol=1e-6)


def test_a_sub_model_knows_its_subset_alone_and_is_trained_once(trained_once, monkeypatch):
    path = trained_once.copy_here()
    task, context = role_context(path, "victim")
    train = context.data.train
    first, second = train[: len(train) // 2], train[len(train) // 2 :]
    seen = []
    real = BaseModel.train

    def watched(self, data, config, **how):
        seen.append((data.train.clone(), data.dev.clone(), config))
        return real(self, data, config, **how)

    monkeypatch.setattr(BaseModel, "train", watched)
    logits = context.sub_model_logits([first, second])
    assert logits.shape == (2, len(train), 3) and torch.isfinite(logits).all()
    assert [one[0].tolist() for one in seen] == [first.tolist(), second.tolist()]
    assert all(one[1].equal(context.data.dev) and one[2].epochs == 6 for one in seen)
    assert not torch.equal(logits[0], logits[1])
    # of another version: the same networks, from the folder of the original
    monkeypatch.setattr(BaseModel, "train", None)
    _, other = role_context(path, "victim", "--prune_sparsity", "0.5", "--lr", "0.1")
    assert torch.equal(other.sub_model_logits([first, second]), logits)
    assert len(list((MADE / "victim_model").glob("sub_model_*.npz"))) == 2
    with pytest.raises(TypeError):  # another role's are its own
        role_context(path, "shadow_0")[1].sub_model_logits([first])


def test_what_one_sub_model_is_does_not_hang_on_those_before_it(trained_once):
    path = trained_once.copy_here()
    _, context = role_context(path, "victim")
    halves = context.data.train.tensor_split(2)
    both = context.sub_model_logits(halves)
    for file in (MADE / "victim_model").glob("sub_model_*.npz"):
        file.unlink()
    assert torch.equal(context.sub_model_logits(halves[1:])[0], both[1])


class Silent(Objective):
    """Answers nothing of the record."""

    def setup_release(self, network, context):
        self.level = context.original(context.data.train).mean()

    def release(self, logits, x):
        return logits * 0 + self.level


@pytest.fixture
def silent(monkeypatch):
    real = DEFENDERS.load
    monkeypatch.setattr(DEFENDERS, "load", lambda name: Silent if name == "ppb" else real(name))


def logits_in(folder):
    return np.load(MADE / folder / "logits.npz", allow_pickle=False)["answers"]


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_defended_answer_as_the_defence_says_and_no_others(adaptive, trained_once, silent):
    path = trained_once.copy_here()
    run(prune, path)
    run(prune, path, "--defend", "ppb")
    run(mia, path, "--defend", "ppb", "--attacks", "samia,loss", *["--adaptive"] * adaptive)
    victim = logits_in("l1unstructure_0.7_ppb_4_model")
    assert np.ptp(victim) == 0 and victim[0, 0] != 0
    sensitivity = np.load(MADE / "l1unstructure_0.7_ppb_4_model" / "sensitivity.npz")["answers"]
    assert not sensitivity.any()
    name = (
        "shadow_l1unstructure_0.7_ppb_4_model_0" if adaptive else "shadow_l1unstructure_0.7_model_0"
    )
    assert (np.ptp(logits_in(name)) == 0) == adaptive


def test_a_loss_is_told_the_records_and_the_epoch():
    told = []

    class Told(Objective):
        def criterion(self, logits, batch):
            told.append((batch.record_ids.tolist(), batch.epoch))
            return super().criterion(logits, batch)

    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    Told().loss(torch.nn.Identity(), a_batch(x, y, epoch=5))
    assert told == [([0, 1, 2, 3], 5)]

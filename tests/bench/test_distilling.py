"""Models distilled for attacks: on whose records, with what loss, and kept when finished."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import MADE, a_batch, lines, make_once, run

import mia
import pretrain
from attackers.distillation import metrics
from attackers.signals import Signals
from base_model import BaseModel, TrainConfig
from bench import distilling
from bench.attacking import load_matchup
from bench.command_line import parse
from bench.distilling import Distillation, distil
from bench.run import begin
from bench.signals import Queries, collect_signals
from core.devices import generator
from datasets import Records
from models import build

ATTACKS = ("loss_trajectory", "seqmia")


@pytest.fixture(scope="module", params=["paper", "inout"])
def trained_once(tmp_path_factory, request):
    stage = pretrain, "--split", request.param
    return make_once(tmp_path_factory.mktemp(request.param), stage, epochs=2, shadow_num=4)


@pytest.fixture
def made(trained_once, short_attack_training):
    path = trained_once.copy_here()
    started = begin(parse("mia", ["cpu", path, "--original"]))
    return SimpleNamespace(run=started, checkpoints=load_matchup(started), path=path)


def evidence_of(made, **options):
    started = replace(made.run, options=replace(made.run.options, **options))
    return collect_signals(started, made.checkpoints, attacks=ATTACKS)


def test_the_loss_is_the_divergence_of_the_student_from_the_teacher():
    teacher = torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.1, 0.9]], dtype=torch.float64)
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2, 0])
    loss = Distillation(teacher).criterion(logits, a_batch(logits, y))
    q = np.array([[1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [1 / (1 + np.e**2), 1 / (1 + np.e**-2)]])
    p = teacher.numpy()[[2, 0]]
    assert loss.item() == pytest.approx((p * np.log(p / q)).sum() / 2)
    reference = torch.nn.KLDivLoss(reduction="batchmean")(logits.log_softmax(1), teacher[y])
    assert loss.item() == reference.item()
    loss.backward()  # of the softmax: (q - p) / batch
    assert logits.grad.numpy() == pytest.approx((q - p) / 2)
    assert Distillation.is_stackable()


def student_of(records):
    draw = generator(3, "student")
    network = build("columnfc", shape=records.shape, num_cls=3, generator=draw)
    return BaseModel(network, device=torch.device("cpu"), generator=draw)


def table(n=90):
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.normal(size=(n, 4)).astype(np.float32))
    return Records(x, torch.from_numpy(draw.integers(3, size=n)), 3)


def test_metrics_are_the_students_after_each_epoch_and_labels_teach_it_nothing(monkeypatch):
    records, known, asked = table(), np.arange(60), np.arange(60, 90)
    teacher = 3 * np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    told, students = [], []
    for epochs, seed in ((2, 0), (5, 0), (5, 9)):
        config = TrainConfig(epochs=epochs, batch_size=16)
        monkeypatch.setattr(distilling, "CONFIG", config)
        y = records.y.clone()
        y[:60] = torch.from_numpy(np.random.default_rng(seed).integers(3, size=60))
        students.append(student_of(records))
        told.append(
            distil(
                students[-1],
                replace(records, y=y),
                known=known,
                teacher=teacher,
                record_ids=asked,
                generator=generator(0, "order"),
            )
        )
    assert [one.shape for one in told] == [(30, 2, 5), (30, 5, 5), (30, 5, 5)]
    assert np.array_equal(told[0], told[1][:, :2]) and np.array_equal(told[1], told[2])
    for one, student in zip(told, students):
        logits = student.logits(records, torch.from_numpy(asked)).numpy()
        labels = records.y[60:].numpy()
        assert np.array_equal(one[:, -1], metrics(Signals(logits), labels))


def test_a_student_comes_to_answer_as_its_teacher_does(monkeypatch):
    monkeypatch.setattr(distilling, "CONFIG", TrainConfig(epochs=300, batch_size=90, lr=1e-2))
    records, everyone = table(), np.arange(90)
    logits = records.x.numpy() @ np.random.default_rng(2).normal(size=(4, 3))
    student = student_of(records)
    distil(
        student,
        records,
        known=everyone,
        teacher=logits.astype(np.float32),
        record_ids=everyone,
        generator=generator(0, "order"),
    )
    said = student.logits(records, torch.from_numpy(everyone)).softmax(1).numpy()
    wanted = torch.from_numpy(logits).softmax(1).numpy()
    assert np.abs(said - wanted).mean() < 0.03


def test_each_model_is_distilled_on_as_many_records_that_it_and_its_attack_do_not_know(made):
    queries = Queries(made.run, made.checkpoints, frozenset({"distillation"}))
    inout = made.run.options.split == "inout"
    assert {len(known) for known in queries.distilled_on.values()} == {24 if inout else 120}
    for role, known in queries.distilled_on.items():
        split = made.run.splits[role]
        assert not np.isin(known, np.concatenate([split.train, split.test])).any()
        assert np.isin(known, queries.record_ids).all() and (np.diff(known) > 0).all()
    assert not Queries(made.run, made.checkpoints, frozenset()).distilled_on


def test_trajectories_are_the_seeds_and_of_own_records_alone(made, monkeypatch):
    before, asked = evidence_of(made), []
    roles = [(before.victim, before.target), *zip(before.shadows, before.calibration_mask)]
    for signals, mask in roles:
        assert signals.distillation.shape == (len(mask), 2, 5)
        assert np.isfinite(signals.distillation[mask]).all()
        assert np.isnan(signals.distillation[~mask]).all()
    monkeypatch.setattr(
        distilling, "distil", lambda *of, **how: (asked.append(1), distil(*of, **how))[1]
    )
    again = evidence_of(made)
    assert not asked and np.array_equal(
        again.victim.distillation, before.victim.distillation, equal_nan=True
    )
    anew = evidence_of(made, fresh=True)
    assert len(asked) == 5 and np.array_equal(
        anew.victim.distillation, before.victim.distillation, equal_nan=True
    )
    other = evidence_of(made, train_seed=8)
    assert len(asked) == 10 and not np.array_equal(
        other.victim.distillation, before.victim.distillation, equal_nan=True
    )


def test_a_model_that_was_distilled_before_an_interruption_is_kept(made, monkeypatch):
    done = []

    def interrupted(*of, **how):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return distil(*of, **how)

    monkeypatch.setattr(distilling, "distil", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evidence_of(made)
    assert len(list(MADE.rglob("distillation.npz"))) == 2
    done.clear()
    monkeypatch.setattr(
        distilling, "distil", lambda *of, **how: done.append(1) or distil(*of, **how)
    )
    evidence_of(made)
    assert len(done) == 3


def test_attacks_are_made_named_and_kept(made, capsys):
    words = ["--original", "--attacks", "loss_trajectory,seqmia,ensemble"]
    run(mia, made.path, *words, "--ensemble_of", "loss,base")
    found = lines("victim_model")
    assert [line["attack"] for line in found] == [*ATTACKS, "ensemble"]
    assert set(found[2]["chosen"]) == {"loss", "base"}
    assert found[2]["ensemble_of"] == ["loss", "base"] and "ensemble_of" not in found[0]
    run(mia, made.path, *words, "--ensemble_of", "loss, base")
    assert lines("victim_model") == found
    assert "loss_trajectory, seqmia, ensemble: kept" in capsys.readouterr().out
    run(mia, made.path, *words, "--ensemble_of", "loss")
    assert len(lines("victim_model")) == 4
    run(mia, made.path, "--original", "--attacks", "all")
    assert "ensemble" in {line["attack"] for line in lines("victim_model")[4:]}


def test_too_few_records_to_distil_on_are_said_in_a_line(write_config, tmp_path, capsys):
    draw = np.random.default_rng(0)
    few = {"x": draw.normal(size=(150, 12)), "y": draw.integers(3, size=150)}
    np.savez(tmp_path / "few.npz", **few)
    path = write_config(data_path=str(tmp_path / "few.npz"), epochs=1)
    run(pretrain, path, "--split", "inout")
    assert mia.main(["cpu", path, "--original", "--attacks", "seqmia"]) == 2
    assert "of which it needs at least 20, not 15" in capsys.readouterr().err
    assert not list(MADE.rglob("attacks.jsonl")) and not list(MADE.rglob("distillation.npz"))


@pytest.mark.parametrize(
    "value, said",
    [("all", "'all' cannot be combined"), ("loss,ensemble", "'ensemble' cannot be combined")],
)
def test_what_cannot_be_combined_is_refused(write_config, value, said, capsys):
    assert mia.main(["cpu", write_config(), "--ensemble_of", value]) == 2
    assert said in capsys.readouterr().err

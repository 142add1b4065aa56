"""What attackers by class are given: classes of the models, asked for once, and a sample that no membership chose."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ALL, MADE, lines, make_once, run

import mia
import pretrain
from attackers import LabelOnlyEvidence, attack
from attackers.copies import COPIES, UnitCube
from base_model import BaseModel
from bench.attacking import fitting_attacks, load_matchup
from bench.command_line import parse
from bench.label_only import collect_classes
from bench.run import begin
from core.files import read_arrays

BY_CLASS = ["noise_robustness", "boundary"]


@pytest.fixture(scope="module", params=["paper", "inout"])
def trained_once(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp(request.param)
    stage = pretrain, "--split", request.param
    return make_once(folder, stage, epochs=8, shadow_num=4, save_every=1000)


@pytest.fixture
def made(trained_once):
    path = trained_once.copy_here()
    started = begin(parse("mia", ["cpu", path, "--original", "--boundary_records", "20"]))
    return SimpleNamespace(run=started, checkpoints=load_matchup(started), path=path)


def evidence_of(made, name, splits=None, **options):
    started = replace(
        made.run, splits=splits or made.run.splits, options=replace(made.run.options, **options)
    )
    return collect_classes(started, made.checkpoints, name)


def model_of(made, role):
    from models import build

    network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator())
    network.load_state_dict(made.checkpoints[role].weights())
    return network.eval()


@torch.no_grad()
def test_the_classes_are_the_models(made):
    evidence, cube = evidence_of(made, "noise_robustness"), UnitCube(made.run.records)
    ids = torch.from_numpy(evidence.record_ids)
    assert evidence.strengths == tuple(cube.strengths)
    points, noise = cube.points(ids), cube.noise(evidence.record_ids, seed=7)
    masks = [evidence.target, *evidence.calibration_mask]
    for signals, role, mask in zip([evidence.victim, *evidence.shadows], made.run.splits, masks):
        network, split = model_of(made, role), made.run.splits[role]
        known = np.concatenate([split.train, split.test])
        assert np.array_equal(evidence.record_ids[mask], np.sort(known))
        classes = network(made.run.records.x[ids]).argmax(dim=1).numpy()
        assert np.array_equal(signals.classes, np.where(mask, classes, -1))
        right = mask & (classes == evidence.labels)
        assert signals.copies.shape == (4, COPIES, len(mask)) and 0 < right.sum() < mask.sum()
        assert (signals.copies[..., ~right] == -1).all()
        for level, strength in enumerate(cube.strengths):
            copies = cube.inputs(cube.perturbed(points, noise, strength).flatten(0, 1))
            expected = network(copies).argmax(dim=1).view(len(ids), COPIES).T.numpy()
            same = expected[:, right] == signals.copies[level][:, right]
            assert same.mean() > 0.999  # sums of other batches are rounded in another way
    assert isinstance(evidence, LabelOnlyEvidence) and not hasattr(evidence, "records")


@torch.no_grad()
def test_distances_are_of_a_sample_and_of_points_of_another_class(made):
    evidence = evidence_of(made, "boundary")
    assert evidence.target.sum() == 20 and (evidence.calibration_mask.sum(axis=1) == 20).all()
    victim = made.run.splits["victim"]
    assert np.isin(evidence.record_ids[evidence.target], [*victim.train, *victim.test]).all()
    masks = [evidence.target, *evidence.calibration_mask]
    for signals, mask in zip([evidence.victim, *evidence.shadows], masks):
        assert np.array_equal(signals.classes >= 0, mask)
        wrong = signals.classes[mask] != evidence.labels[mask]
        assert np.array_equal(signals.distances[mask] == 0, wrong) and not wrong.all()
        assert (signals.distances[mask] <= np.sqrt(12)).all()
        assert np.isnan(signals.distances[~mask]).all()
    more = evidence_of(made, "boundary", boundary_records=30)
    assert more.target.sum() == 30 and (more.target | ~evidence.target).all()
    other = evidence_of(made, "boundary", train_seed=9)
    assert not np.array_equal(other.target, evidence.target)
    whole = evidence_of(made, "boundary", boundary_records=10**6)
    assert whole.target.sum() == len(victim.train) + len(victim.test)


@pytest.mark.parametrize("name", BY_CLASS)
def test_whoever_is_a_member_the_scores_are_the_same(made, name):
    """The sample too: members and non-members of the victim are dealt anew, and not a digit changes."""
    victim = made.run.splits["victim"]
    asked = np.random.default_rng(0).permutation(np.concatenate([victim.train, victim.test]))
    dealt = made.run.splits | {"victim": replace(victim, train=asked[:40], test=asked[40:])}
    one, other = evidence_of(made, name), evidence_of(made, name, dealt, fresh=True)
    assert np.array_equal(one.target, other.target)
    said, again = attack(name, one)[name], attack(name, other)[name]
    assert np.array_equal(said.scores, again.scores) and said.threshold == again.threshold


@pytest.mark.parametrize("name", BY_CLASS)
def test_what_was_asked_once_is_not_asked_again(made, name, monkeypatch):
    before, asked, real = evidence_of(made, name), [], BaseModel.classes
    monkeypatch.setattr(
        BaseModel, "classes", lambda self, *how: (asked.append(1), real(self, *how))[1]
    )
    again = evidence_of(made, name)
    assert not asked and np.array_equal(before.victim.classes, again.victim.classes)
    assert attack(name, before)[name].scores.tolist() == attack(name, again)[name].scores.tolist()
    evidence_of(made, name, train_seed=8)
    assert asked


def test_nothing_but_classes_and_distances_is_kept(made):
    run(mia, made.path, "--original", "--attacks", ",".join(BY_CLASS), "--boundary_records", "20")
    kept = {path.name for path in (MADE / "victim_model").glob("*.npz")}
    assert kept == {"copies.npz", "distances.npz", "scores.npz"}  # no logits were asked for
    _, arrays = read_arrays(MADE / "victim_model/copies.npz")
    assert set(arrays) == {"answers", "records"} and arrays["answers"].dtype == np.int8
    _, arrays = read_arrays(MADE / "victim_model/distances.npz")
    classes, distances = arrays["answers"]
    assert set(classes) <= {0, 1, 2} and (distances >= 0).all()


def test_a_sample_is_measured_on_itself_and_all_says_that_it_is_left_out(made, capsys):
    words = [made.path, "--original", "--boundary_records", "40"]
    run(mia, *words, "--attacks", "gap,noise_robustness,boundary")
    said = capsys.readouterr().out
    found = {line["attack"]: line for line in lines("victim_model")}
    assert found["gap"]["members"] + found["gap"]["non_members"] > 40
    members, others = (found["boundary"][name] for name in ("members", "non_members"))
    assert members + others == 40 and min(members, others) > 5
    assert f"boundary: measured on a sample of the targets, {members} members and {others}" in said
    assert found["boundary"]["boundary_records"] == 40
    assert (
        "boundary_records" not in found["gap"] and "strength" in found["noise_robustness"]["chosen"]
    )
    _, arrays = read_arrays(MADE / "victim_model/scores.npz")
    assert len(arrays[found["boundary"]["scores"]]) == 40
    assert len(arrays[f"member_{found['boundary']['targets']}"]) == 40
    run(mia, *words, "--attacks", "boundary,gap")
    assert "boundary, gap: kept" in capsys.readouterr().out
    run(mia, *words[:-1], "30", "--attacks", "boundary,gap")
    said = capsys.readouterr().out
    assert "gap: kept" in said and "boundary: saved" in said and "boundary" not in ALL
    assert [line["attack"] for line in lines("victim_model")].count("boundary") == 2
    assert "boundary" not in fitting_attacks(replace(made.run.options, attacks=("all",)))
    said = capsys.readouterr().out
    assert "left out: boundary: " in said and "name it with --attacks boundary" in said


def test_an_attack_by_class_that_cannot_be_made_stops_no_other(made, capsys):
    (MADE / "victim_model/copies.npz").write_bytes(b"damaged")
    assert mia.main(["cpu", made.path, "--original", "--attacks", "gap,noise_robustness"]) == 2
    said, error = capsys.readouterr()
    assert error.count("\n") == 1 and "gap: saved" in said
    assert error.startswith("error: noise_robustness: cannot read")

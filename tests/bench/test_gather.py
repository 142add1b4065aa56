"""What an attacker is given: asked for once, in an order that says nothing, and no membership."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import MADE, lines, make_once, run

import bench.attacking
import mia
import pretrain
import prune
import report
from attackers import ATTACKS, attack, blindmi, unfit
from attackers.evidence import Verdict
from attackers.metrics import INTERVALS, measures
from base_model import BaseModel
from bench.attacking import load_matchup
from bench.checkpoints import Checkpoint
from bench.command_line import parse
from bench.results import find_results
from bench.run import begin
from bench.signals import collect_signals
from core.files import read_arrays, sealed

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("short_attack_training")


@pytest.fixture(scope="module", params=["paper", "inout"])
def trained_once(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp(request.param)
    stage = pretrain, "--split", request.param
    return make_once(folder, stage, epochs=2, shadow_num=6, save_every=1000)


@pytest.fixture
def made(trained_once):
    """Everything that gather needs of original models in a split, and the options."""
    path = trained_once.copy_here()
    started = begin(parse("mia", ["cpu", path, "--original"]))
    return SimpleNamespace(
        run=started, parts=started.splits, checkpoints=load_matchup(started), path=path
    )


def evidence_of(made, parts=None, attacks=tuple(ATTACKS), **options):
    started = replace(
        made.run, splits=parts or made.parts, options=replace(made.run.options, **options)
    )
    return collect_signals(started, made.checkpoints, attacks=attacks)


def test_targets_and_population_of_either_split(made):
    evidence, victim = evidence_of(made), made.parts["victim"]
    targets, population = (
        evidence.record_ids[evidence.target],
        evidence.record_ids[~evidence.target],
    )
    assert np.array_equal(targets, np.sort(np.concatenate([victim.train, victim.test])))
    inout = made.run.options.split == "inout"
    assert evidence.online == inout
    if inout:
        assert np.array_equal(population, victim.dev)
        assert (evidence.member[:, evidence.target].sum(axis=0) == 3).all()
    else:
        half = np.concatenate(list(vars(made.parts["shadow_0"]).values()))
        assert (
            np.array_equal(population, np.sort(half))
            and not evidence.member[:, evidence.target].any()
        )
    for index, calibration_mask in enumerate(evidence.calibration_mask):
        part = made.parts[f"shadow_{index}"]
        assert np.array_equal(
            evidence.record_ids[calibration_mask], np.sort(np.concatenate([part.train, part.test]))
        )
        assert np.array_equal(evidence.record_ids[evidence.member[index]], np.sort(part.train))


def test_the_answers_are_the_models(made):
    evidence = evidence_of(made)
    x = made.run.records.x[torch.from_numpy(evidence.record_ids)]
    for signals, role in zip([evidence.victim, *evidence.shadows], made.parts):
        from models import build

        network = build("columnfc", shape=(12,), num_cls=3, generator=torch.Generator())
        network.load_state_dict(made.checkpoints[role].weights())
        with torch.no_grad():
            assert np.allclose(signals.logits, network.eval()(x).numpy(), atol=1e-6)
        calibration_mask = (
            evidence.target if role == "victim" else evidence.calibration_mask[int(role[7:])]
        )
        assert (
            np.isfinite(signals.sensitivity[calibration_mask]).all()
            and np.isnan(signals.sensitivity[~calibration_mask]).all()
        )


@pytest.mark.parametrize("name", list(ATTACKS))
def test_whoever_is_a_member_the_scores_are_the_same(made, name):
    """Members and non-members of the victim are dealt anew; not a digit of the scores changes."""
    if unfit(name, online=made.run.options.split == "inout", shadow_num=6):
        pytest.skip("not in this split")
    if "label_only" in ATTACKS[name].options:
        pytest.skip("tests/bench/test_label_only.py has these")
    victim = made.parts["victim"]
    asked = np.random.default_rng(0).permutation(np.concatenate([victim.train, victim.test]))
    dealt = made.parts | {"victim": replace(victim, train=asked[:40], test=asked[40:])}
    said = attack(name, evidence_of(made, attacks=[name]))
    again = attack(name, evidence_of(made, dealt, attacks=[name]))
    assert len(said) and said.keys() == again.keys()
    for verdict in said:
        assert np.array_equal(said[verdict].scores, again[verdict].scores)
        assert np.array_equal(said[verdict].threshold, again[verdict].threshold)


def test_answers_to_other_generated_records_are_not_reused(made, monkeypatch):
    """With the same seed too, as where an earlier version made other records of it."""
    before, generate, asked = evidence_of(made, attacks=["blindmi"]), blindmi.generate, []
    real = BaseModel.logits
    monkeypatch.setattr(
        BaseModel,
        "logits",
        lambda self, *args, **how: (asked.append(1), real(self, *args, **how))[1],
    )
    evidence_of(made, attacks=["blindmi"])
    assert not asked
    monkeypatch.setattr(
        blindmi,
        "generate",
        lambda records, record_ids, *, seed: generate(records, record_ids[:9], seed=seed),
    )
    other = evidence_of(made, attacks=["blindmi"])
    assert len(asked) == 1 and not np.array_equal(
        before.generated[0].logits, other.generated[0].logits
    )
    monkeypatch.setattr(blindmi, "generate", generate)
    again = evidence_of(made, attacks=["blindmi"])
    assert np.array_equal(before.generated[0].logits, again.generated[0].logits)


def test_what_was_asked_once_is_not_asked_again(made, monkeypatch):
    attacks = ("loss", "samia", "blindmi")
    before, asked = evidence_of(made, attacks=attacks), []
    weights = {one.folder: one.weights() for one in made.checkpoints.values()}
    for what in ("logits", "sensitivity"):
        real = getattr(BaseModel, what)
        monkeypatch.setattr(
            BaseModel,
            what,
            lambda self, *args, real=real, **how: (asked.append(1), real(self, *args, **how))[1],
        )
    again = evidence_of(made, attacks=attacks)
    assert not asked and np.array_equal(
        before.victim.sensitivity, again.victim.sensitivity, equal_nan=True
    )
    # other noise, other generated records: the same logits
    other = evidence_of(made, attacks=attacks, train_seed=8)
    assert len(asked) == 7 + 1 and np.array_equal(before.victim.logits, other.victim.logits)
    assert not np.array_equal(before.victim.sensitivity, other.victim.sensitivity, equal_nan=True)
    shadow = made.checkpoints["shadow_1"]
    files = shadow.files | {"best.pth": "another"}
    made.checkpoints["shadow_1"] = replace(shadow, files=files)
    asked.clear()
    monkeypatch.setattr(Checkpoint, "weights", lambda checkpoint: weights[checkpoint.folder])
    evidence_of(made, attacks=attacks, train_seed=8)
    assert len(asked) == 2
    asked.clear()
    evidence_of(made, attacks=["loss"], fresh=True)
    assert len(asked) == 7


def test_sensitivities_are_not_asked_for_in_vain(write_config):
    path = write_config(epochs=1)
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "threshold,loss,gap,attack-p")
    assert not list(MADE.rglob("sensitivity.npz")) and len(list(MADE.rglob("logits.npz"))) == 3
    assert not list(MADE.rglob("generated.npz"))


def test_scores_and_measures_are_kept_and_belong_together(write_config, capsys):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    run(prune, path)
    for words in ([], ["--rmia_gamma", "3"], ["--rmia_gamma", "choose"]):
        run(mia, path, "--attacks", "rmia,threshold", *words)
    said = capsys.readouterr().out
    assert (
        "threshold: kept" in said and said.count("rmia: saved") == 2
    )  # its option is none of threshold's
    table = said.split("[95 % interval]")[-1]
    assert table.split("attack accuracy")[0].count("\nrmia ") == 1
    found = lines("l1unstructure_0.7_model")
    assert [line["attack"] for line in found] == [
        "conf",
        "xent",
        "mentr",
        "top1_conf",
        "rmia",
        "rmia",
    ]
    chosen = {line["rmia_gamma"]: line["chosen"] for line in found if line["attack"] == "rmia"}
    assert set(chosen["choose"]) == {"a", "gamma", "temperature", "trim"}
    assert set(chosen[3]) == {"a", "temperature", "trim"} and len(chosen) == 2
    assert (
        "rmia, chosen on the shadow models: temperature " in said
        and said.rstrip().count("chosen on") == 3
    )
    assert all(
        not {"rmia_gamma", "chosen"} & set(line) for line in found if line["attack"] != "rmia"
    )
    _, arrays = read_arrays(MADE / "l1unstructure_0.7_model" / "scores.npz")
    assert len(arrays) == 3 + 2 * len(found)
    y = np.load(path.replace("tiny.json", "tiny.npz"))["y"]
    for line in found:
        assert_scores_give(line, arrays, y)


def assert_scores_give(line, arrays, y):
    records, labels, member = (
        arrays[f"{name}_{line['targets']}"] for name in ("records", "labels", "member")
    )
    assert np.array_equal(np.sort(records), records) and np.array_equal(y[records], labels)
    again = measures(
        Verdict(arrays[line["scores"]], arrays[f"{line['scores']}_threshold"]),
        member,
        labels,
        num_cls=3,
    )
    assert {name: line[name] for name in again} == again


def test_each_line_s_scores_are_of_its_own_records_also_after_another_split(write_config):
    """And a line whose scores have been removed goes with the next that is written."""
    path = write_config(shadow_num=2)
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss,gap")
    run(pretrain, path, "--seed", "8", "--fresh")
    run(mia, path, "--original", "--attacks", "loss", "--seed", "8")
    run(pretrain, path, "--split", "inout", "--seed", "9", "--fresh")
    run(mia, path, "--original", "--attacks", "loss", "--seed", "9")
    found = lines("victim_model")
    assert sorted((line["attack"], line["seed"]) for line in found) == [
        ("gap", 7),
        ("loss", 7),
        ("loss", 8),
        ("loss", 9),
    ]
    _, arrays = read_arrays(MADE / "victim_model" / "scores.npz")
    for line in found:
        assert_scores_give(line, arrays, np.load(path.replace("tiny.json", "tiny.npz"))["y"])
    (MADE / "victim_model" / "scores.npz").unlink()
    run(mia, path, "--original", "--attacks", "gap", "--seed", "9")
    assert [(line["attack"], line["seed"]) for line in lines("victim_model")] == [("gap", 9)]


def test_what_an_older_definition_of_an_attack_found_is_neither_kept_nor_shown(
    write_config, capsys
):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss,calibrated")
    before, file = lines("victim_model"), MADE / "victim_model/attacks.jsonl"
    assert [(line["attack"], line["version"]) for line in before] == [
        ("loss", 1),
        ("calibrated", 2),
    ]
    old = [
        {name: value for name, value in line.items() if name not in ("version", "sha256")}
        for line in before
    ]
    file.write_text("".join(json.dumps(sealed(line)) + "\n" for line in old))
    capsys.readouterr()
    assert report.load_results("results")["attack"].unique().tolist() == ["loss"]
    assert "older definition" in capsys.readouterr().out
    run(mia, path, "--original", "--attacks", "loss,calibrated")
    said = capsys.readouterr().out
    assert "loss: kept" in said and "calibrated: saved" in said
    assert [(line["attack"], line.get("version", 1)) for line in lines("victim_model")] == [
        ("loss", 1),
        ("calibrated", 2),
    ]


def with_older_intervals(folder):
    """Write the lines of a victim as they were before their intervals covered."""
    old = []
    for line in lines(folder):
        line = {
            name: [0.4, 0.5] if name.endswith("_interval") and value else value
            for name, value in line.items()
        }
        old.append(
            {name: value for name, value in line.items() if name not in ("intervals", "sha256")}
        )
    text = "".join(json.dumps(sealed(line)) + "\n" for line in old)
    (MADE / folder / "attacks.jsonl").write_text(text)


def test_intervals_by_an_older_method_are_measured_again_from_the_scores(
    write_config, capsys, monkeypatch
):
    path = write_config()
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss,threshold")
    before, said = lines("victim_model"), capsys.readouterr().out
    assert all(line["intervals"] == INTERVALS for line in before)
    assert "not the randomness of training" in said
    with_older_intervals("victim_model")
    monkeypatch.setattr(bench.attacking, "attack", None)  # none is made again
    run(mia, path, "--original", "--attacks", "loss,threshold")
    again = capsys.readouterr().out
    assert "5 results had intervals by an older method" in again and "kept what" in again
    assert lines("victim_model") == before
    assert again.split("attacks on")[1] == said.split("attacks on")[1]
    run(mia, path, "--original", "--attacks", "loss")
    assert "older method" not in capsys.readouterr().out


def test_intervals_by_an_older_method_without_scores_are_not_shown(write_config, capsys):
    path = write_config()
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss,gap")
    with_older_intervals("victim_model")
    (MADE / "victim_model" / "scores.npz").unlink()
    old = lines("victim_model")
    found = find_results(MADE)[0]
    assert found.lines == [] and found.unmeasured == 2
    capsys.readouterr()
    run(mia, path, "--original", "--attacks", "gap")
    said = capsys.readouterr().out
    assert "gap: saved" in said and "loss" not in said
    assert [line["attack"] for line in lines("victim_model")] == ["gap"] and len(old) == 2


def test_lines_of_other_times_and_attacks_do_no_harm(write_config):
    """Those of before there were scores are not there; those of an attack that is no more stay."""
    path = write_config()
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss,gap")
    loss, gap = (
        dict(line)
        for line in sorted(lines("victim_model"), key=lambda line: line["attack"] == "gap")
    )
    for line in (loss, gap):
        line.pop("sha256")
    loss = {name: value for name, value in loss.items() if name not in ("scores", "targets", "auc")}
    text = "".join(json.dumps(sealed(line)) + "\n" for line in (loss, gap | {"attack": "of_old"}))
    (MADE / "victim_model" / "attacks.jsonl").write_text(text)
    run(mia, path, "--original", "--attacks", "gap", "--per_class")
    assert [line["attack"] for line in lines("victim_model")] == ["gap", "of_old"]
    run(mia, path, "--original", "--attacks", "loss")
    assert [line["attack"] for line in lines("victim_model")] == ["gap", "loss", "of_old"]


def test_options_of_attacks_change_what_they_say(write_config):
    path = write_config(shadow_num=5, epochs=6)
    run(pretrain, path)
    said = {}
    for words in (
        [],
        ["--fix_variance", "false"],
        ["--rmia_a", "0.9"],
        ["--rmia_a", "0.2"],
        ["--rmia_trim", "0.2"],
    ):
        run(mia, path, "--original", "--attacks", "lira,rmia", *words, "--results", "results")
    for line in lines("victim_model"):
        key = (line["attack"], line.get("fix_variance"), line.get("rmia_a"), line.get("rmia_trim"))
        said[key] = line["auc"]
    assert len(said) == 2 + 4 and said["lira", True, None, None] != said["lira", False, None, None]
    assert said["rmia", None, 0.2, "choose"] != said["rmia", None, 0.9, "choose"]
    before = lines("victim_model")
    run(
        mia,
        path,
        "--original",
        "--attacks",
        "lira,rmia",
        "--fix_variance",
        "true",
        "--rmia_a",
        "paper",
    )
    assert lines("victim_model") == before  # another word for a value is no other attack


def test_a_line_from_before_there_was_an_option_is_of_what_the_attack_did_then(
    write_config, capsys
):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    fixed = ["--original", "--attacks", "rmia", "--rmia_a", "paper", "--rmia_gamma", "2"]
    run(mia, path, *fixed, "--rmia_temperature", "2", "--rmia_trim", "0")
    (line,) = lines("victim_model")
    line = {
        name: value
        for name, value in line.items()
        if name not in ("sha256", "rmia_temperature", "rmia_trim")
    }
    (MADE / "victim_model" / "attacks.jsonl").write_text(json.dumps(sealed(line)) + "\n")
    run(mia, path, *fixed, "--rmia_temperature", "2", "--rmia_trim", "0")
    assert "rmia: kept" in capsys.readouterr().out and len(lines("victim_model")) == 1
    run(mia, path, *fixed)
    assert "rmia: kept" not in capsys.readouterr().out and len(lines("victim_model")) == 2


def test_figures_of_each_class_are_printed_when_asked_for(write_config, capsys):
    path = write_config()
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "loss", "--per_class")
    table = capsys.readouterr().out.split("by class")[1].split("\n\n")[0].splitlines()[3:]
    (line,) = lines("victim_model")
    rows = [row.split() for row in table]
    assert [row[0] for row in rows] == ["0", "1", "2"] and sum(int(row[1]) for row in rows) == 54
    for row, accuracy, area in zip(rows, line["class_accuracy"], line["class_auc"]):
        assert row[3:] == [f"{100 * accuracy:.1f}", "/", f"{100 * area:.1f}"]

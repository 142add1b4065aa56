"""mia.py --shadow_...: attackers who guess wrong how the victim was compressed."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import MADE, files, lines, make_once, run, write_images
from scipy.special import softmax

import mia
import pretrain
import prune
import report
import study
from attackers import Evidence, attack

STAGES = {"pretrain.py": pretrain, "prune.py": prune}
PRUNED = "l1unstructure_0.7_model"
WRONG = ("--shadow_sparsity", "0.5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Sparsities 0.7 and 0.5."""
    return make_once(
        tmp_path_factory.mktemp("guessed"),
        (pretrain,),
        (prune,),
        (prune, "--prune_sparsity", "0.5"),
        shadow_num=3,
        epochs=3,
        attacks="gap,lira",
    )


@pytest.fixture
def path(made):
    return made.copy_here()


def follow(error):
    """Give the commands that an error names."""
    commands = re.findall(r"`python ([^`]+)`", error)
    for command in commands:
        stage, *words = shlex.split(command)
        assert STAGES[stage].main(words) == 0
    return [shlex.split(command)[0] for command in commands]


def test_each_guess_has_lines_of_its_own_and_all_are_kept(path, capsys):
    run(mia, path)
    known = lines(PRUNED)
    run(mia, path, *WRONG)
    found = {(line["attack"], line["shadow_sparsity"]): line for line in lines(PRUNED)}
    assert set(found) == {(name, guess) for name in ("gap", "lira") for guess in (None, 0.5)}
    for line in known:
        of_file = {"sha256", "lines"}
        same = found[line["attack"], None]
        assert {k: v for k, v in same.items() if k not in of_file} == {
            k: v for k, v in line.items() if k not in of_file
        }
    assert found["lira", None]["auc"] != found["lira", 0.5]["auc"]
    assert found["gap", None]["auc"] == found["gap", 0.5]["auc"]  # which looks at no shadow model
    before = files()
    capsys.readouterr()
    for words in ((), WRONG, ("--shadow_sparsity", "0.7")):
        run(mia, path, *words)
        assert "gap, lira: kept" in capsys.readouterr().out
    assert files() == before


def test_the_attack_is_that_on_the_victims_answers_with_those_of_the_guess(path):
    """Against the attack on arrays put together here from the models' answers."""
    run(mia, path, *WRONG)
    (line,) = (line for line in lines(PRUNED) if line["attack"] == "lira")
    stored, parts = np.load(MADE / PRUNED / "scores.npz"), np.load(MADE / "split.npz")
    folders = [PRUNED, *(f"shadow_l1unstructure_0.5_model_{i}" for i in range(3))]
    answers = [np.load(MADE / folder / "logits.npz") for folder in folders]
    record_ids = answers[0]["records"]
    with np.load(Path(path).parent / "tiny.npz") as data:
        labels = data["y"][record_ids]
    posteriors = [softmax(one["answers"].astype(np.float64), axis=1) for one in answers]
    target = np.isin(record_ids, np.concatenate([parts["victim_train"], parts["victim_test"]]))
    roles = [f"shadow_{i}" for i in range(3)]
    verdict = attack(
        "lira",
        Evidence.from_posteriors(
            labels,
            victim=posteriors[0],
            shadows=posteriors[1:],
            member=[np.isin(record_ids, parts[f"{role}_train"]) for role in roles],
            target=target,
            calibration_mask=[
                np.isin(record_ids, np.concatenate([parts[f"{role}_train"], parts[f"{role}_test"]]))
                for role in roles
            ],
        ),
    )["lira"]
    assert stored[line["scores"]] == pytest.approx(verdict.scores, rel=1e-4, abs=1e-4)
    assert stored[f"{line['scores']}_threshold"] == pytest.approx(verdict.threshold, rel=1e-4)


@pytest.mark.parametrize(
    "words, stages",
    [
        (["--shadow_sparsity", "0.9"], ["prune.py"]),
        (["--shadow_pruner_name", "random"], ["prune.py"]),
        (["--shadow_sparsity", "0.9", "--defend", "ppb"], ["prune.py", "prune.py"]),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_makes_it(path, capsys, words, stages):
    before, ran = files(), []
    while mia.main(["cpu", path, *words]) == 2:
        error = capsys.readouterr().err
        assert "is not there: first run" in error and error.count("\n") == 1
        assert ran or files() == before
        ran += follow(error)
        assert len(ran) <= len(stages)
    assert ran == stages
    assert {line["shadow_sparsity"] for line in lines(_victim(words))} <= {0.9, None}


def _victim(words):
    return "l1unstructure_0.7_ppb_4_model" if "ppb" in words else PRUNED


def test_guessed_models_are_fine_tuned_as_the_victim_was(write_config, capsys):
    path = write_config(shadow_num=2, attacks="gap")
    run(pretrain, path, "--lr", "0.01")
    run(prune, path, "--lr", "0.02", "--prune_epochs", "3")
    assert mia.main(["cpu", path, "--shadow_pruner_name", "random"]) == 2
    error = capsys.readouterr().err
    assert "--lr 0.02" in error and "--prune_epochs 3" in error
    assert follow(error) == ["prune.py"]
    run(mia, path, "--shadow_pruner_name", "random")


def test_shadows_of_another_network(tmp_path, write_config, capsys, monkeypatch):
    """Of images, which the other network takes channel by channel."""
    path = write_config(
        data_path=write_images(tmp_path), input_dim=64, epochs=1, shadow_num=2, attacks="gap,loss"
    )
    run(pretrain, path)
    run(prune, path)
    run(mia, path)
    capsys.readouterr()
    words = ["--shadow_model_name", "resnet18"]
    assert mia.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err
    assert error.count(" --model_name resnet18 --input_dim 1") == 2
    assert follow(error) == ["pretrain.py", "prune.py"]
    run(mia, path, *words)
    said = capsys.readouterr().out
    assert "tiny_resnet18/shadow_l1unstructure_0.7_model_*" in said
    assert "pruned, shadows: resnet18" in said
    assert {line["shadow_model_name"] for line in lines(PRUNED)} == {None, "resnet18"}
    students = []

    def distil(student, records, *, record_ids, **_):
        students.append(type(student.network).__name__)
        return np.random.default_rng(0).random((len(record_ids), 3, 5), dtype=np.float32)

    monkeypatch.setattr("bench.distilling.distil", distil)
    run(mia, path, *words, "--attacks", "loss_trajectory")
    assert students == ["ResNet"] * 3  # the victim's student too: what it is, nobody told
    assert report.main(["results", "--out", "out"]) == 0
    assert "l1unstructure 70 %, shadows: resnet18 |" in Path("out/report.md").read_text()
    assert "made anew since" not in capsys.readouterr().out
    run(pretrain, path, "--model_name", "resnet18", "--input_dim", "1", "--seed", "8", "--fresh")
    run(prune, path, "--model_name", "resnet18", "--input_dim", "1", "--seed", "8", "--fresh")
    capsys.readouterr()
    assert mia.main(["cpu", path, *words, "--attacks", "loss"]) == 2
    error = capsys.readouterr().err
    assert "was made with seed 8 (now 7)" in error and error.count("\n") == 1
    assert "another split" in error


def test_a_guess_that_is_made_again_makes_its_lines_stale(path, capsys):
    run(mia, path)
    run(mia, path, *WRONG)
    run(prune, path, "--prune_sparsity", "0.5", "--lr", "0.01", "--fresh")
    capsys.readouterr()
    assert report.main(["results", "--out", "out"]) == 0
    assert f"left out: 2 results in tiny_columnfc/{PRUNED}, of models" in capsys.readouterr().out
    run(mia, path)
    assert "gap, lira: kept" in capsys.readouterr().out


def test_tables_tell_attackers_apart(path, capsys):
    run(mia, path)
    run(mia, path, "--original")
    capsys.readouterr()
    run(mia, path, *WRONG)
    said = capsys.readouterr().out
    assert f"attacks on {MADE / PRUNED}, shadows: 50 %\n" in said
    (header,) = re.findall(r"^ +original +pruned.*$", said, re.MULTILINE)
    assert re.split(r" {2,}", header.strip()) == ["original", "pruned", "pruned, shadows: 50 %"]
    run(prune, path, "--defend", "ppb")
    for words in ((), WRONG):
        run(mia, path, "--defend", "ppb", *words)
    assert "  ppb 4, shadows: 50 %" in capsys.readouterr().out


def test_a_study_makes_what_is_guessed(tmp_path, write_config, capsys):
    grid = tmp_path / "grid.json"
    config = write_config(attacks="gap", epochs=2, shadow_num=2)
    guesses = '"shadow_sparsity": [0.5, 0.7], "shadow_pruner_name": ["random", "l1unstructure"]'
    grid.write_text(
        f'{{"config": "{config}", {guesses}, "attacks": "gap", "original": [true, false]}}'
    )
    assert study.main([str(grid), "--device", "cpu", "--jobs", "1"]) == 0
    found = [line for file in Path("results").rglob("attacks.jsonl") for line in [file.read_text()]]
    assert sum(text.count("\n") for text in found) == 1 + 4
    assert "50 %" in capsys.readouterr().out

"""mia.py --also: an attacker who holds several releases of the same models."""

import shlex
from pathlib import Path

import pytest
from helpers import MADE, files, lines, make_once, manifest, run

import mia
import pretrain
import prune
import quantize
import report
from bench.attack_lines import read_whole_lines, write_lines

ALSO = ("--also", "original")
SAME = ("--attacks", "lira_joint,nn_joint")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Originals, pruned ones and int8."""
    return make_once(
        tmp_path_factory.mktemp("released"),
        (pretrain,),
        (prune,),
        (quantize, "--quantizer", "int8"),
        shadow_num=3,
        epochs=3,
    )


@pytest.fixture
def path(released):
    return released.copy_here()


def told(folder="l1unstructure_0.7_model"):
    return {(line["attack"], *line.get("also", ["alone"])) for line in lines(folder)}


def test_lines_say_what_was_held_and_each_is_kept(path, capsys):
    run(mia, path, *SAME, *ALSO)
    run(mia, path, *SAME, "--also", "int8,original")
    run(mia, path, "--attacks", "gap,lira", *ALSO)
    assert told() == {
        ("lira_joint", "original"),
        ("nn_joint", "original"),
        ("lira_joint", "original", "int8"),
        ("nn_joint", "original", "int8"),
        ("gap", "alone"),
        ("lira", "alone"),
    }
    before = files()
    capsys.readouterr()
    run(mia, path, "--attacks", "gap,lira,lira_joint,nn_joint", *ALSO)
    said = capsys.readouterr().out
    assert "gap, lira, lira_joint, nn_joint: kept" in said and files() == before
    table = said.split("3 shadow models\n")[1]
    assert all(name in table for name in ("lira_joint + original ", "nn_joint + original ", "gap"))
    run(mia, path, "--attacks", "gap")
    assert "gap: kept" in capsys.readouterr().out


def test_the_order_in_which_releases_are_named_does_not_matter(path, capsys):
    run(mia, path, *SAME, "--also", "original,int8")
    before = files()
    capsys.readouterr()
    run(mia, path, *SAME, "--also", "int8,original")
    assert "lira_joint, nn_joint: kept" in capsys.readouterr().out and files() == before


def test_lines_in_another_order_are_read_and_kept(path, capsys):
    """Those made before the order was one."""
    run(mia, path, "--attacks", "lira_joint", "--also", "original,int8")
    file = MADE / "l1unstructure_0.7_model/attacks.jsonl"
    write_lines(file, [line | {"also": ["int8", "original"]} for line in read_whole_lines(file)])
    run(mia, path, "--attacks", "lira_joint", "--also", "original,int8")
    assert told() == {("lira_joint", "int8", "original"), ("lira_joint", "original", "int8")}
    capsys.readouterr()
    assert report.main(["results", "--out", "out"]) == 0
    page = Path("out/report.md").read_text()
    assert "lira_joint + int8 + original |" in page and "lira_joint + original + int8 |" in page
    assert "of models that are gone" not in capsys.readouterr().out


def test_attacks_that_learn_keep_what_they_learnt(path, capsys):
    """Another victim of the same shadow models finds the networks and forests there."""
    learnt = ("--attacks", "compleak_sr,compleak_mr,trajectory")
    run(mia, path, *learnt, *ALSO)
    kept = set((MADE / "attack_networks").glob("*.pth"))
    assert len(kept) == 1 + 4 + 3
    names = ("compleak_sr", "compleak_sr_forest", "compleak_mr", "trajectory")
    assert told() == {(name, "original") for name in names}
    before = (MADE / "l1unstructure_0.7_model/scores.npz").read_bytes()
    (MADE / "l1unstructure_0.7_model/attacks.jsonl").unlink()
    (MADE / "l1unstructure_0.7_model/scores.npz").unlink()
    run(mia, path, *learnt, *ALSO)
    assert (MADE / "l1unstructure_0.7_model/scores.npz").read_bytes() == before


def test_a_release_that_is_made_again_makes_its_lines_stale(path, capsys):
    run(mia, path, "--attacks", "gap,lira_joint", "--also", "int8")
    run(quantize, path, "--quantizer", "int8", "--fresh", "--lr", "0.01")
    capsys.readouterr()
    assert report.main(["results", "--out", "out"]) == 0
    assert "left out: 1 result in tiny_columnfc/l1unstructure_0.7_model, of models" in (
        capsys.readouterr().out
    )
    run(mia, path, "--attacks", "gap,lira_joint", "--also", "int8")
    said = capsys.readouterr().out
    assert "gap: kept" in said and "lira_joint: saved" in said
    assert told() == {("gap", "alone"), ("lira_joint", "int8")}


def test_shadows_are_asked_each_of_its_own_release(path):
    """Outputs of a release lie with its own models, of just their digests."""
    run(mia, path, "--attacks", "lira_joint", *ALSO)
    for folder in ("victim_model", *(f"shadow_model_{i}" for i in range(3))):
        assert (MADE / folder / "logits.npz").exists(), folder
    assert not (MADE / "int8_model/logits.npz").exists()
    assert manifest("victim_model")["files"]["best.pth"]


def test_the_report_names_what_was_held(path):
    for words in (["--attacks", "lira,lira_joint", *ALSO], ["--attacks", "lira", "--original"]):
        run(mia, path, *words)
    run(mia, path, "--attacks", "lira_joint", "--also", "original,int8")
    assert report.main(["results", "--out", "out"]) == 0
    page = Path("out/report.md").read_text()
    assert "lira_joint + original |" in page and "lira_joint + original + int8 |" in page


@pytest.mark.parametrize(
    "words, said",
    [
        ([*SAME, "--also", "int4"], "first run `python quantize.py cpu CONFIG --quantizer int4`"),
        (
            ["--also", "l1unstructure_0.7_ppb_4"],
            "l1unstructure_0.7_ppb_4 and l1unstructure_0.7 would have the same shadow models",
        ),
        (["--also", "int8", "--adaptive"], "the attacker knows the defence: name it with --defend"),
        (["--also", "l1unstructure_0.7"], "is the version under attack: name another"),
        (["--attacks", "lira_joint"], "needs another release of the same models"),
        (["--also", "original", "--original"], "is the version under attack: name another"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_written(path, capsys, words, said):
    before = files()
    assert mia.main(["cpu", path, *words]) == 2
    error = capsys.readouterr().err.replace(path, "CONFIG")
    assert said in error and error.count("\n") == 1 and files() == before


def test_all_leaves_out_what_needs_a_release(path, capsys):
    run(mia, path, "--attacks", "all")
    said = capsys.readouterr().out
    assert "left out: lira_joint needs another release" in said
    assert ("lira_joint", "original") not in told()


def test_of_a_compressed_network_the_attacker_of_the_original_may_hold_it(path):
    run(mia, path, "--original", "--also", "l1unstructure_0.7,int8", "--attacks", "lira_joint")
    assert told("victim_model") == {("lira_joint", "int8", "l1unstructure_0.7")}


def test_a_missing_release_is_made_like_the_one_under_attack(write_config, capsys):
    """Also where what it is made from is missing too: two commands, which make just that."""
    path = write_config(shadow_num=3, attacks="lira_joint")
    run(pretrain, path, "--lr", "0.01")
    run(prune, path, "--lr", "0.02", "--prune_epochs", "3")
    release = "random_0.5_int8"
    assert mia.main(["cpu", path, "--also", release]) == 2
    commands = capsys.readouterr().err.split("`")[1::2]
    assert ["prune.py" in commands[0], "quantize.py" in commands[1]] == [True, True]
    assert "--lr 0.02" in commands[0] and "--prune_epochs 3" in commands[0]
    for command, stage in zip(commands, (prune, quantize), strict=True):
        run(stage, *shlex.split(command)[3:])
    assert manifest("random_0.5_model")["options"]["lr"] == 0.02
    run(mia, path, "--also", release)
    assert told() == {("lira_joint", release)}

"""Files of other programs where ours belong: named, and not replaced without --fresh."""

import contextlib
import io
import json
import pickle

import pytest
from faults import FOREIGN, WORDS, outcome, result_bytes
from helpers import MADE, files, run

import mia
import pretrain
import prune


@pytest.mark.parametrize(
    "file",
    [
        "victim_model/best.pth",
        "shadow_model_1/best.pth",
        "victim_model/best_mask.pth",
        "victim_model/manifest.json",
        "split.npz",
        "data_index.pkl",
    ],
)
@pytest.mark.parametrize("content", [FOREIGN, pickle.dumps([1, 2])], ids=["bytes", "pickle"])
def test_pretrain_replaces_no_file_of_another_program(write_config, file, content):
    path, foreign = write_config(epochs=1), MADE / file
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(content)
    for _ in range(2):  # the first attempt does not make it ours
        status, _, error = outcome("pretrain", path)
        assert status == 2 and error.count("\n") == 1 and str(foreign) in error, error
        assert "--fresh" in error and "another --results folder" in error
        assert {name: text for name, text in result_bytes().items() if "lock" not in name} == {
            str(foreign): content
        }
    run(pretrain, path, "--fresh")
    assert (
        foreign.name == "best_mask.pth"
        or file == "data_index.pkl"
        or foreign.read_bytes() != content
    )
    run(prune, path)


@pytest.mark.parametrize("file", ["best.pth", "best_mask.pth"])
def test_prune_replaces_no_file_of_another_program_and_mia_names_what_is_missing(
    write_config, file
):
    path = write_config(epochs=1)
    run(pretrain, path)
    foreign = MADE / "shadow_l1unstructure_0.7_adv_1_model_1" / file
    foreign.parent.mkdir()
    foreign.write_bytes(FOREIGN)
    before = result_bytes()
    for stage in ("prune", "mia"):
        status, _, error = outcome(stage, path)
        assert (
            status == 2 and f"manifest.json is missing beside {foreign}" in error or stage == "mia"
        ), error
        assert {
            name: text for name, text in result_bytes().items() if not name.endswith(".lock")
        } == {name: text for name, text in before.items() if not name.endswith(".lock")}
    run(prune, path, *WORDS["prune"], "--fresh")
    run(mia, path, *WORDS["mia"], "--attacks", "gap")


@pytest.mark.parametrize("stage", ["prune", "mia"])
def test_models_of_another_program_are_not_said_to_be_absent(write_config, stage):
    for folder in (
        "victim_model",
        "shadow_model_0",
        "shadow_model_1",
        "l1unstructure_0.7_adv_1_model",
    ):
        (MADE / folder).mkdir(parents=True)
        (MADE / folder / "best.pth").write_bytes(FOREIGN)
    before = result_bytes()
    status, _, error = outcome(stage, write_config())
    assert status == 2 and f"manifest.json is missing beside {MADE}/victim_model/best.pth" in error
    assert "is not there" not in error and result_bytes() == before


@pytest.mark.parametrize("file", ["attacks.jsonl", "scores.npz"])
@pytest.mark.parametrize(
    "content", [b"", b'{"attack": "conf", "accuracy": 0.5}\n', pickle.dumps([1])]
)
def test_mia_replaces_no_findings_of_another_program(write_config, file, content):
    path, foreign = write_config(epochs=1, attacks="gap"), MADE / "victim_model" / file
    run(pretrain, path)
    foreign.write_bytes(content)
    before = files()
    for words in (["gap"], ["loss"]):
        with contextlib.redirect_stderr(io.StringIO()) as error:
            assert mia.main(["cpu", path, "--original", "--attacks", *words]) == 2
        assert (
            str(foreign) in error.getvalue() and "--fresh" in error.getvalue() and files() == before
        )
    run(mia, path, "--original", "--fresh")
    run(mia, path, "--original", "--attacks", "loss")
    assert len((MADE / "victim_model/attacks.jsonl").read_text().splitlines()) == 2


def test_fresh_keeps_the_findings_that_can_be_read(write_config):
    path, file = write_config(epochs=1), MADE / "victim_model/attacks.jsonl"
    run(pretrain, path)
    run(mia, path, "--original", "--attacks", "gap,loss,attack_p")
    first, second, *_ = lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first, second.replace("0", "1"), *lines[2:]]))
    run(mia, path, "--original", "--attacks", "attack_p", "--fresh")
    assert {json.loads(line)["attack"] for line in file.read_text().splitlines()} == {
        "gap",
        "attack_p",
    }

"""Attackers who guess the victim's pruner, sparsity or network: whose shadow models they have."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.command_line import parse
from bench.guesses import GUESSES, knowledge_in_words
from bench.matchup import Matchup
from core.console import UserError


def matchup_of(path, *words):
    return Matchup.of(parse("mia", ["cpu", path, *words]))


@pytest.mark.parametrize(
    "words, folder",
    [
        ([], "tiny_columnfc/shadow_l1unstructure_0.7_model_1"),
        (["--shadow_sparsity", "0.5"], "tiny_columnfc/shadow_l1unstructure_0.5_model_1"),
        (["--shadow_pruner_name", "random"], "tiny_columnfc/shadow_random_0.7_model_1"),
        (
            ["--shadow_pruner_name", "lamp", "--shadow_sparsity", "0.9"],
            "tiny_columnfc/shadow_lamp_0.9_model_1",
        ),
        (["--shadow_model_name", "resnet18"], "tiny_resnet18/shadow_l1unstructure_0.7_model_1"),
        (
            ["--shadow_model_name", "vgg16", "--shadow_pruner_name", "l1structure"],
            "tiny_vgg16bn/shadow_l1structure_0.7_model_1",
        ),
        (
            ["--shadow_sparsity", "0.5", "--prune_iterations", "3", "--quantizer=int8", "--pruned"],
            "tiny_columnfc/shadow_l1unstructure_0.5_x3_int8_model_1",
        ),
        (
            ["--shadow_sparsity", "0.5", "--defend", "ppb"],
            "tiny_columnfc/shadow_l1unstructure_0.5_model_1",
        ),
        (
            ["--shadow_sparsity", "0.5", "--defend", "ppb", "--adaptive"],
            "tiny_columnfc/shadow_l1unstructure_0.5_ppb_4_model_1",
        ),
    ],
)
def test_the_shadows_are_those_of_the_guess_and_the_victim_is_the_same(write_config, words, folder):
    path = write_config()
    matchup = matchup_of(path, *words)
    plain = [word for word in words if not word.startswith("--shadow")]
    guessed = {words[at + 1] for at, word in enumerate(words) if word.startswith("--shadow")}
    known = matchup_of(path, *(word for word in plain if word not in guessed))
    assert matchup.folder("shadow_1") == Path("results", folder)
    assert matchup.victim_folder == known.victim_folder
    assert known.victim.options == matchup.victim.options.without_guess


def test_shadows_of_another_network_have_its_input_dim_and_move_beside_the_victim(write_config):
    path = write_config(input_dim=64)
    options = parse("mia", ["cpu", path, "--shadow_model_name", "resnet18"])
    matchup = Matchup.of(options, shape=(1, 8, 8))
    assert (matchup.shadows.options.input_dim, matchup.victim.options.input_dim) == (1, 64)
    moved = matchup.moved_to(Path("x/tiny_columnfc"))
    assert moved.folder("shadow_0") == Path("x/tiny_resnet18/shadow_l1unstructure_0.7_model_0")
    assert moved.victim_folder == Path("x/tiny_columnfc/l1unstructure_0.7_model")


RIGHT = {
    "shadow_pruner_name": "l1unstructure",
    "shadow_sparsity": 0.7,
    "shadow_model_name": "columnfc",
}


@pytest.mark.parametrize("name", GUESSES)
def test_a_guess_that_is_right_is_none(write_config, name):
    said = parse("mia", ["cpu", write_config(), f"--{name}", str(RIGHT[name])])
    assert said == parse("mia", ["cpu", write_config()])


def test_a_guess_in_a_config_means_nothing_of_what_is_not_pruned(write_config):
    plain = write_config("plain.json")
    wrong = write_config("wrong.json", shadow_sparsity=0.5, shadow_pruner_name="random")
    of_others = [
        ("mia", ["--original"]),
        ("mia", ["--quantizer", "int8"]),
        ("prune", []),
        ("pretrain", []),
    ]
    for stage, words in of_others:
        made, expected = (parse(stage, ["cpu", path, *words]) for path in (wrong, plain))
        assert replace(made, config_path="") == replace(expected, config_path=""), stage
    assert parse("mia", ["cpu", wrong]).guess == {"prune_sparsity": 0.5, "pruner_name": "random"}


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["--original", "--shadow_sparsity", "0.5"],
            "--shadow_sparsity is what the attacker takes",
        ),
        (["--quantizer=int8", "--shadow_pruner_name", "random"], "this one is not pruned"),
        (["--shadow_sparsity", "0.5", "--also", "int8"], "leave out --shadow_sparsity"),
        (
            ["--shadow_pruner_name", "l1structure"],
            "--shadow_pruner_name: l1structure prunes Conv2d layers, of which columnfc has none",
        ),
        (
            ["--shadow_pruner_name", "nm24"],
            "nm24 has sparsity 0.5 by definition, not 0.7: use --shadow_sparsity 0.5",
        ),
        (["--shadow_sparsity", "1"], "--shadow_sparsity must be a number between 0 and 1"),
        (["--shadow_model_name", "resnet"], "unknown network 'resnet', did you mean 'resnet18'"),
    ],
)
def test_guesses_that_cannot_be_are_refused(write_config, words, said):
    with pytest.raises(UserError) as caught:
        parse("mia", ["cpu", write_config(), *words])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, ""),
        ({"shadow_sparsity": float("nan"), "attacker_records": 1.0}, ""),
        ({"shadow_sparsity": 0.5}, "shadows: 50 %"),
        ({"shadow_pruner_name": "random", "shadow_sparsity": 0.95}, "shadows: random 95 %"),
        (
            {"shadow_model_name": "resnet18", "attacker_records": 0.25},
            "shadows: resnet18, 25 % of the records",
        ),
    ],
)
def test_knowledge_in_words(options, words):
    assert knowledge_in_words(options) == words

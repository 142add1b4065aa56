"""Names of versions, read back to the options that make them."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from bench.command_line import parse
from bench.layout import NAMED_AFTER, ModelSet
from bench.matchup import Matchup
from bench.releases import in_order, release_options
from core.console import UserError
from defenders import DEFENDERS
from pruner import PRUNERS
from quantizer import QUANTIZERS

PRUNED = [
    {"pruner_name": name, "prune_sparsity": sparsity, "prune_iterations": rounds, "rewind": rewind}
    for name, sparsity, rounds, rewind in itertools.product(
        PRUNERS, (0.5, 0.05, 1e-5), (1, 12), (None, 0)
    )
]
QUANTIZED = ["", *QUANTIZERS]
DEFENDED = [{"defend": ""}] + [
    {"defend": name, "defend_arg": strength}
    for name in DEFENDERS
    if name
    for strength in (4.0, 0.1)
]


@pytest.fixture
def options(write_config):
    return parse("mia", ["cpu", write_config()])


def versions(options):
    """Options of all kinds of versions."""
    plain = replace(options, pruner_name="random", prune_sparsity=0.123)
    for pruned, quantizer, defended in itertools.product([{}, *PRUNED], QUANTIZED, DEFENDED):
        if pruned or quantizer:
            said = pruned | defended | {"quantizer": quantizer}
            yield replace(plain, **said, pruned=bool(pruned and quantizer))
    yield replace(plain, defend="dp", defend_arg=1.0, from_scratch=True)


def test_every_version_is_read_back_from_its_name(options):
    own = replace(options, pruner_name="random", prune_sparsity=0.999)
    seen = set()
    for one in versions(options):
        name = ModelSet(one).version
        made = release_options(own, name)
        assert ModelSet(made).version == name
        if one.pruned or not one.quantizer:
            assert {of: getattr(made, of) for of in NAMED_AFTER} == {
                of: getattr(one, of) for of in NAMED_AFTER
            }
        seen.add(name)
    assert len(seen) > 3000


def test_releases_have_one_order(write_config):
    names = ["l1unstructure_0.9", "int8", "original", "l1unstructure_0.5"]
    expected = ("original", "int8", "l1unstructure_0.5", "l1unstructure_0.9")
    for order in itertools.permutations(names):
        assert in_order(order) == expected
    said = "l1unstructure_0.9,int8,int8,original,l1unstructure_0.5"
    assert parse("mia", ["cpu", write_config(), "--also", said]).also == expected


def test_the_original_is_a_release_of_a_compressed_one_and_the_other_way_round(options):
    assert release_options(options, "original").original
    made = release_options(replace(options, original=True), "int8")
    assert not made.original and made.quantizer == "int8"


@pytest.mark.parametrize(
    "name, said",
    [
        ("l1unstructure_0.7", "is the version under attack"),
        ("l1unstructure_0.60", "did you mean 'l1unstructure_0.6'?"),
        ("l1unstructure_0.9_x1", "did you mean 'l1unstructure_0.9'?"),
        ("l1unstrcture_0.9", "did you mean 'l1unstructure'?"),
        ("orginal", "did you mean 'original'?"),
        ("l1_0.9", "versions are called as their folders are"),
        ("victim", "versions are called as their folders are"),
        ("l1unstructure_0.9_", "versions are called as their folders are"),
        ("ppb_4", "versions are called as their folders are"),
        ("l1unstructure_1.5", "prune_sparsity must be a number between 0 and 1"),
        ("a/b", "--also must be names of versions, separated by commas"),
    ],
)
def test_what_is_no_other_version_is_refused(write_config, name, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        parse("mia", ["cpu", write_config(), "--also", name])


@pytest.mark.parametrize("adaptive", [False, True])
def test_shadows_of_a_release_have_its_defence_where_the_attacker_knows_it(options, adaptive):
    own = replace(options, defend="ppb", defend_arg=4.0, adaptive=adaptive)
    own = replace(own, also=("original", "l1unstructure_0.9_ppb_4", "int8"))
    releases = Matchup.of(own).releases
    folders = {
        name: (of.victim_folder.name, of.folder("shadow_0").name) for name, of in releases.items()
    }
    known = "l1unstructure_0.9_ppb_4" if adaptive else "l1unstructure_0.9"
    assert folders == {
        "original": ("victim_model", "shadow_model_0"),
        "l1unstructure_0.9_ppb_4": ("l1unstructure_0.9_ppb_4_model", f"shadow_{known}_model_0"),
        "int8": ("int8_model", "shadow_int8_model_0"),
    }
    assert Matchup.of(own).moved_to(Path("x")).releases["int8"].victim_folder == Path(
        "x/int8_model"
    )

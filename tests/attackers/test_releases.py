"""Several releases of the same models: which arrays are taken, what is measured, who can be attacked."""

import re
import runpy

import numpy as np
import pytest
from attack_cases import FITTING, N, S, paired_member
from helpers import PROJECT, fixed_evidence

from attackers import ATTACKS, Evidence, attack, unfit
from attackers.signals import Release, Signals, cross_entropy, log_odds
from core.console import NotApplicable

C = FITTING["victim"].shape[1]
DRAW = np.random.default_rng(0)
OTHER = DRAW.dirichlet([1] * C, size=N), DRAW.dirichlet([1] * C, size=(S, N))
JOINT = [name for name in ATTACKS if ATTACKS[name].options.get("releases")]


def test_another_release_is_taken_digit_by_digit():
    evidence = Evidence.from_posteriors(**FITTING, also={"original": OTHER, "int8": OTHER[:2]})
    assert list(evidence.also) == ["original", "int8"]
    this, original, _ = evidence.releases()
    assert this.victim is evidence.victim and this.shadows == evidence.shadows
    assert np.array_equal(original.victim.posteriors()[0], OTHER[0])
    for shadow, given in zip(original.shadows, OTHER[1], strict=True):
        assert np.array_equal(shadow.posteriors()[0], given)


@pytest.mark.parametrize("nothing", [None, {}])
def test_one_release_is_the_default(nothing):
    assert Evidence.from_posteriors(**FITTING, also=nothing).also == {}
    assert len(Evidence.from_posteriors(**FITTING).releases()) == 1


@pytest.mark.parametrize(
    "also, begin",
    [
        (OTHER, "also must be a dictionary of releases by name, not a tuple"),
        ("original", "also must be a dictionary"),
        ({1: OTHER}, "also: 1 is no name"),
        ({"": OTHER}, "also: '' is no name"),
        ({"int8": OTHER[0]}, "also['int8'] must be a pair, the victim's (N, C)"),
        ({"int8": None}, "also['int8'] must be a pair"),
        ({"int8": (OTHER[0][:-1], OTHER[1])}, "also['int8'][0] must be posteriors (N, C) of the"),
        ({"int8": (OTHER[0][:, :-1], OTHER[1])}, "also['int8'][0] must be"),
        ({"int8": (OTHER[0], OTHER[1][:-1])}, "also['int8'][1] must be posteriors (S, N, C) of"),
        ({"int8": (OTHER[0], OTHER[1][:, :-1])}, "also['int8'][1] must be"),
        ({"int8": (OTHER[0], OTHER[0])}, "also['int8'][1] must be"),
        ({"int8": (2 * OTHER[0], OTHER[1])}, "also['int8'][0]"),
        ({"int8": (OTHER[0], np.log(OTHER[1]))}, "also['int8'][1][0]"),
        ({"a": OTHER, "b": (OTHER[0], "x")}, "also['b'][1] must be numbers"),
    ],
)
def test_what_is_no_release_is_refused_by_its_name(also, begin):
    with pytest.raises(ValueError) as raised:
        Evidence.from_posteriors(**FITTING, also=also)
    said = str(raised.value)
    assert said.startswith(begin) and "\n" not in said and len(said) < 250


def small_evidence():
    """Four shadows in two pairs on six records, all targets, in two releases."""
    member = paired_member(np.random.default_rng(1), 4, 6)
    draw = np.random.default_rng(2)
    this, other = (
        (draw.dirichlet([1] * 3, size=6), draw.dirichlet([1] * 3, size=(4, 6))) for _ in range(2)
    )
    labels = np.arange(6) % 3
    evidence = Evidence.from_posteriors(
        labels, victim=this[0], shadows=this[1], member=member, also={"other": other}
    )
    return evidence, Evidence.from_posteriors(
        labels, victim=other[0], shadows=other[1], member=member
    )


def test_each_release_is_measured_as_it_would_be_alone_on_a_last_axis():
    evidence, other = small_evidence()
    both = evidence.measure_releases(log_odds)
    assert both.victim.shape == (6, 2) and both.every_shadow.shape == (4, 6, 2)
    for k, alone in enumerate([evidence.measure(log_odds), other.measure(log_odds)]):
        assert np.array_equal(both.victim[:, k], alone.victim)
        assert np.array_equal(both.every_shadow[..., k], alone.every_shadow)


def test_a_shadow_that_plays_the_victim_does_so_in_every_release():
    evidence, other = small_evidence()
    turns = zip(
        evidence.measure_releases(cross_entropy).leave_one_out(),
        evidence.measure(cross_entropy).leave_one_out(),
        other.measure(cross_entropy).leave_one_out(),
        strict=True,
    )
    for index, ((both, truth), *alone) in enumerate(turns):
        assert both.as_victim == index and both.references.sum() == 2  # its partner is left out
        for k, (one, same_truth) in enumerate(alone):
            assert np.array_equal(both.references, one.references)
            assert np.array_equal(truth, same_truth)
            assert np.array_equal(both.victim[..., k], one.victim)
            assert np.array_equal(both.shadows[..., k], one.shadows)
            assert np.array_equal(both.member, one.member)


@pytest.mark.parametrize("name", JOINT)
def test_with_one_release_a_line_says_what_would_be_right(name):
    reason = unfit(name, online=True, shadow_num=100)
    assert reason.startswith(f"{name} needs another release") and "\n" not in reason
    assert "mia.py --also original" in reason
    assert unfit(name, online=True, shadow_num=100, also=("original",)) is None
    with pytest.raises(NotApplicable) as raised:
        attack(name, fixed_evidence(True))
    assert str(raised.value) == reason


def test_other_attacks_do_not_care_for_other_releases(short_training):
    plain = fixed_evidence(True)
    draw = np.random.default_rng(3)
    release = Release(
        Signals(draw.normal(size=(240, 4))), [Signals(draw.normal(size=(240, 4))) for _ in range(8)]
    )
    richer = Evidence(**vars(plain) | {"also": {"original": release}})
    for name in ("threshold", "lira", "rmia", "loss", "nn_cls"):
        assert unfit(name, online=True, shadow_num=8) is None
        for verdict, said in attack(name, plain).items():
            again = attack(name, richer)[verdict]
            assert np.array_equal(said.scores, again.scores, equal_nan=True)
            assert np.array_equal(said.threshold, again.threshold)


def test_the_perceptron_sees_posterior_class_and_other_posteriors_in_this_order(short_training):
    from attackers.neural import NN_CLS, NN_JOINT

    evidence, other = small_evidence()
    rows = np.array([True, False, True, True, False, False])
    seen = NN_JOINT.features([evidence.victim, other.victim], evidence.labels, rows)
    assert seen.shape == (3, 9)
    assert np.array_equal(seen[:, :6], NN_CLS.features([evidence.victim], evidence.labels, rows))
    expected = other.victim.posteriors()[0][rows].astype(np.float32)
    assert np.allclose(seen[:, 6:], expected, atol=1e-6)
    verdict = attack("nn_joint", evidence)["nn_joint"]
    assert verdict.threshold == 0 and np.isfinite(verdict.scores).all()


def test_the_example_of_the_documentation_runs(short_training, tmp_path, capsys):
    section = (PROJECT / "docs/attacks.md").read_text().split("## Several releases")[1]
    (block,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    draw = np.random.default_rng(4)
    arrays = {"labels": draw.integers(3, size=60), "shadow_member": paired_member(draw, 8, 60)}
    for name in ("pruned", "original"):
        arrays[f"{name}_victim"] = draw.dirichlet([1] * 3, size=60)
        arrays[f"{name}_shadows"] = draw.dirichlet([1] * 3, size=(8, 60))
    path = tmp_path / "example.py"
    path.write_text(block)
    runpy.run_path(str(path), init_globals=arrays)
    said = capsys.readouterr().out
    assert all(
        name in said for name in ("lira ", "lira_joint", "compleak_sr", "compleak_sr_forest")
    )

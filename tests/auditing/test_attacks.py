"""Which attacks are made of which arrays, and those that need no shadow model."""

import numpy as np
import pytest
from answers_cases import answers

from attackers import ATTACKS, metrics
from attackers.signals import cross_entropy
from auditing.attacks import SLOW, loss_among_non_members, make_attacks, strongest
from auditing.given import checked
from core.console import UserError

BARE = ("labels", "victim", "member", "target")


def bare(*names, **changes):
    found = answers(**changes)
    return {name: found[name] for name in (*BARE, *names)}


def made(found, asked=("quick",)):
    return make_attacks(checked(found), asked, seed=7)


@pytest.mark.parametrize(
    "found",
    [
        answers(),
        answers(original=3.0),
        answers(shadows=2),
        bare(),
        answers(population=0),
        {name: array for name, array in answers().items() if name != "target"}
        | {"member": answers()["member"]},
    ],
    ids=["all", "two releases", "two shadows", "no shadows", "no population", "no target"],
)
def test_every_registered_attack_is_made_or_has_a_reason(found):
    results, untested = made(found)
    reasons = {one.name: one.reason for one in untested}
    verdicts = {
        name: ATTACKS[name].options.get("reports", [name])
        for name in ATTACKS
        if name not in reasons
    }
    assert {one.name for one in results} == {one for names in verdicts.values() for one in names}
    assert set(SLOW) <= reasons.keys() and all(reasons.values())
    assert len({(one.name, one.release) for one in results}) == len(results)


def test_with_shadow_models_quick_has_the_strong_attacks_and_no_reason_speaks_of_the_bench():
    results, untested = made(answers(original=3.0))
    names = {(one.name, one.release) for one in results}
    for name in (
        "lira",
        "rmia",
        "bavaria",
        "base",
        "calibrated",
        "attack_p",
        "loss",
        "gap",
        "conf",
    ):
        assert {(name, "released"), (name, "original")} <= names
    assert ("lira_joint", "both") in names and ("ensemble", "released") in names
    texts = " ".join(one.reason for one in made(answers(shadows=2))[1] + untested)
    assert "pretrain.py" not in texts and "mia.py" not in texts and "Evidence" not in texts


def test_a_second_release_is_attacked_by_the_same_attacks_on_its_own_answers():
    found = answers(original=3.0)
    both, _ = made(found)
    swapped = found | {"victim": found["original"], "shadows": found["original_shadows"]}
    del swapped["original"], swapped["original_shadows"]
    alone, _ = made(swapped)
    of_original = {one.name: one.scores for one in both if one.release == "original"}
    assert of_original.keys() == {one.name for one in alone}
    for one in alone:
        assert np.array_equal(one.scores, of_original[one.name])


@pytest.mark.parametrize(
    "asked, found, says",
    [
        (("lira_joint",), answers(), "lira_joint: it needs a second release"),
        (("samia",), answers(), "samia: it needs the model's sensitivity"),
        (("qmia",), answers(), "qmia: it needs the records themselves"),
        (("lira",), answers(shadows=4), "lira: lira needs at least 6 shadow models here, not 4"),
        (("lira",), bare(), "lira: it needs shadow models"),
        (("rmia",), answers(population=0), "rmia: this attack needs population records"),
        (("lira_online",), bare(), "lira_online: it needs shadow models"),
    ],
)
def test_an_attack_that_is_named_and_cannot_be_made_is_an_error(asked, found, says):
    with pytest.raises(UserError, match=says):
        made(found, asked)


def test_named_attacks_are_made_and_no_others(short_attack_training):
    results, untested = made(answers(), ("lira_offline", "nn"))
    assert [one.name for one in results] == ["nn", "lira_offline"]
    assert {one.reason for one in untested if one.name in ("lira", "gap")} == {
        "it was not asked for (--attacks)"
    }


def test_without_shadow_models_the_loss_has_its_threshold_from_known_non_members():
    found = bare(population=200)
    results, untested = made(found)
    assert {one.name for one in results} == {"gap", "loss"}
    reasons = {one.name: one.reason for one in untested}
    assert reasons["lira"] == "it needs shadow models"
    assert "generated" in reasons["blindmi"]
    loss = -np.log(found["victim"][np.arange(260 + 180), found["labels"]])
    others = np.sort(loss[~found["target"]])
    (result,) = (one for one in results if one.name == "loss")
    assert np.allclose(result.scores, -loss[found["target"]])
    assert (result.called == (loss[found["target"]] < others[20])).all()  # of 200 exactly 20 below
    assert "10 % of the known non-members" in result.about
    member = found["member"][found["target"]]
    assert result.measures["auc"] == metrics.auc(-loss[found["target"]], member)
    given = checked(found)
    verdict = loss_among_non_members(given.evidence(given.released))
    of_population = -cross_entropy(given.released.victim, given.labels)[~given.target]
    assert (of_population >= verdict.threshold).sum() == 20


def test_without_known_non_members_the_loss_has_no_accuracy():
    found = bare(population=0, n=1200)
    results, _ = made(found)
    (result,) = (one for one in results if one.name == "loss")
    assert result.called is None and result.estimate("accuracy") is None
    assert result.estimate("auc") is not None and "no threshold" in result.about
    assert set(result.measures["class_accuracy"]) == {None}


def test_the_strongest_takes_the_released_model():
    results, _ = made(answers(original=6.0, leak=0.5))
    best = max(results, key=lambda one: one.measures["auc"])
    assert best.release == "original"
    found = results[strongest(results)]
    assert found.of_released
    assert found.measures["auc"] == max(one.measures["auc"] for one in results if one.of_released)
    assert strongest([one for one in results if not one.of_released]) is None


def test_too_few_shadow_models_for_some_targets_is_a_reason():
    found = answers()
    found["shadow_member"][:, :100] = np.array([True] + 7 * [False])[:, None]
    reasons = {one.name: one.reason for one in made(found)[1]}
    assert "100 of 240 targets have too few shadow models" in reasons["lira"]


def test_noise_tells_nothing():
    """A negative control: answers that do not depend on membership."""
    results, _ = made(answers(leak=0.0, n=1200, population=300))
    aucs = {one.name: one.measures["auc"] for one in results}
    assert all(0.43 < auc < 0.57 for auc in aucs.values()), aucs
    leaks, _ = made(answers(leak=3.0, n=1200, population=300))
    assert leaks[strongest(leaks)].measures["auc"] > 0.8

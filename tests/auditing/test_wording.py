"""Sentences of an audit, by numbers worked by hand."""

from dataclasses import replace

import audit_cases
import pytest

from auditing import figures, statements, wording
from auditing.result import Estimate, GateResult


@pytest.fixture(scope="module")
def full():
    return audit_cases.full()


@pytest.fixture(scope="module")
def minimal():
    return audit_cases.minimal()


@pytest.mark.parametrize(
    "measure, value, says",
    [
        ("auc", 0.614, "the higher score in 61 of 100 cases; 50 is guessing"),
        ("accuracy", 0.58, "Of 100 records, half of them members, 58 are called correctly"),
        ("tpr_at_0.1", 0.22, "Of 100 members 22 are named, while of 100 non-members 10 are"),
        ("tpr_at_0.01", 0.034, "Of 1,000 members 34 are named, while of 1,000 non-members 10 are"),
        ("tpr_at_0.001", 0.0123, "Of 10,000 members 123 are named, while of 10,000 non-members 10"),
    ],
)
def test_what_a_figure_means(measure, value, says):
    assert says in wording.meaning(measure, Estimate(value, 0.0, 1.0))


@pytest.mark.parametrize(
    "measure, low, high, says",
    [
        ("auc", 0.51, 0.6, "above guessing"),
        ("auc", 0.4, 0.6, "not told apart from guessing"),
        ("auc", 0.3, 0.49, "below guessing"),
        ("tpr_at_0.01", 0.02, 0.04, "above guessing"),
        ("tpr_at_0.01", 0.005, 0.04, "not told apart from guessing"),
    ],
)
def test_chance(measure, low, high, says):
    assert wording.against_chance(measure, Estimate((low + high) / 2, low, high)) == says


def test_figures_in_print():
    assert wording.percent(0.0342) == "3.4\xa0%" and wording.percent(0.0034) == "0.34\xa0%"
    assert wording.percent(0.0) == "0.0\xa0%"
    assert wording.interval_text("tpr_at_0.01", Estimate(0.02, 0.004, 0.041)) == "0.4 to 4.1\xa0%"
    assert wording.interval_text("tpr_at_0.001", Estimate(0.002, 0.0004, 0.0041)) == (
        "0.04 to 0.41\xa0%"
    )
    assert wording.difference_text("auc", -0.0204) == "−0.020"
    assert wording.difference_text("accuracy", 0.0123) == "+1.2"
    assert [wording.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_a_gates_figure_has_digits_enough_to_tell_its_ends_from_the_limit(full):
    gate = replace(full.gates[2], limit=0.6, estimate=Estimate(0.59, 0.58, 0.60004))
    assert wording.gate_figure(gate) == "0.59000 (0.58000 to 0.60004)"
    gate = replace(gate, estimate=Estimate(0.59, 0.58, 0.6))  # no digit tells these apart
    assert wording.gate_figure(gate) == "0.590 (0.580 to 0.600)"
    gate = replace(gate, measure="tpr_at_0.01", limit=0.03, estimate=Estimate(0.1, 0.02999, 0.2))
    assert wording.gate_figure(gate) == "10.000\xa0% (2.999 to 20.000\xa0%)"
    assert wording.gate_figure(replace(gate, estimate=None)) == wording.NO_FIGURE


def test_a_limit_that_may_be_met_and_one_that_may_not():
    gate = GateResult("auc<=0.6", "auc", 0.6, "pass", "lira", None, "")
    assert wording.condition_text(gate) == "AUC at most 0.6"
    assert wording.condition_text(replace(gate, condition="auc<0.6")) == "AUC below 0.6"


def test_the_gap_of_the_model_is_what_the_gap_attack_gets(full):
    subject = replace(full.subject, accuracy_members=0.95, accuracy_non_members=0.75)
    text = wording.gap(subject).replace("\xa0", " ")
    # right on 95 of 100 members and wrong on 25 of 100 others: 120 of 200 calls are right
    assert "a gap of 20.0 points" in text and "60.0 %" in text
    text = wording.gap(replace(subject, accuracy_non_members=0.96))
    assert "a gap of −1.0 points: it hardly overfits" in text


def test_the_smallest_fpr(full, minimal):
    said = wording.resolution(full).replace("\xa0", " ")
    assert "(2,500 non-members) resolve is 1 %; for 0.1 % it takes 10,000 non-members" in said
    said = wording.resolution(replace(full, smallest_fpr=0.001)).replace("\xa0", " ")
    assert said.endswith("resolve is 0.1 %.")
    assert "(30 non-members) tell a TPR at no low FPR: that takes 100" in wording.resolution(
        minimal
    )
    many = replace(minimal, subject=replace(minimal.subject, non_members=500))
    assert "no attack gives enough different scores" in wording.resolution(many)


def test_the_headline_claims_no_more_than_the_interval(full, minimal):
    assert "better than guessing and names" in wording.headline(full)
    assert wording.headline(minimal).startswith("No attack that was made tells members")
    assert "No attack could be made" in wording.headline(audit_cases.silent())
    assert "the same score" in wording.headline(replace(minimal, strongest=None))
    strongest = full.attacks[full.strongest]
    found = strongest.measures | {"tpr_at_0.1_interval": [0.05, 0.4]}
    found |= {"tpr_at_0.01_interval": [0.005, 0.2]}
    attacks = list(full.attacks)
    attacks[full.strongest] = replace(strongest, measures=found)
    said = wording.headline(replace(full, attacks=attacks))
    assert said.endswith("tells members from others better than guessing.")


def test_an_attack_that_names_more_than_the_strongest_is_named(full):
    rates = {
        (one.name, one.release): one.measures["tpr_at_0.01"]
        for one in full.attacks
        if one.release != "original" and one.measures["tpr_at_0.01"] is not None
    }
    name, release = max(rates, key=rates.get)
    strongest = full.attacks[full.strongest]
    assert (name, release) != (strongest.name, strongest.release)  # else this tests nothing
    said = wording.names_more(full)
    assert f"{name} ({release}) names more members: {100 * rates[name, release]:.1f}" in said
    assert said in statements.model_card(full).replace(" %", "\xa0%") or said.replace(
        "\xa0", " "
    ) in statements.model_card(full)
    best = next(
        at for at, one in enumerate(full.attacks) if (one.name, one.release) == (name, release)
    )
    assert wording.names_more(replace(full, strongest=best)) == ""
    assert wording.names_more(audit_cases.silent()) == ""


def test_what_the_released_model_gives_away_alone(full):
    joint = next(at for at, one in enumerate(full.attacks) if one.release == "both")
    alone = {one.name: one for one in full.attacks if one.release == "released"}
    best = max(alone.values(), key=lambda one: one.measures["auc"])
    said = wording.without_original(replace(full, strongest=joint))
    assert f"strongest is {best.name}, with an AUC of {best.measures['auc']:.3f} (95" in said
    both = [full.attacks[joint]]
    assert wording.without_original(replace(full, attacks=both, strongest=0)) == ""
    assert wording.without_original(full) == ""


def test_the_card_holds_what_weakens_it_and_what_compression_changed(full):
    other = replace(full.comparisons[0], attack="rmia", released=0.9)
    audit = replace(full, comparisons=[other, full.comparisons[0]], weaknesses=["a", "b"])
    card = statements.model_card(audit)
    assert "What this evidence lacks: a; b." in card
    own = full.comparisons[0]
    assert f"the AUC of lira is {own.released:.3f}, on its original {own.original:.3f}" in card
    assert "the AUC of rmia is 0.900" in statements.model_card(replace(audit, comparisons=[other]))


def test_the_outcome_in_a_sentence(full):
    gates = full.gates
    assert wording.outcome_text("fail", gates).startswith("1 of 3 gates fails: even the lower end")
    twice = [gates[1], gates[1], gates[0]]
    assert wording.outcome_text("fail", twice).startswith("2 of 3 gates fail: ")
    assert wording.outcome_text("fail", gates[1:2]).startswith("The gate fails")
    assert "is no proof" in wording.outcome_text("pass", gates[:1])
    said = wording.outcome_text("inconclusive", [gates[0], gates[2]])
    assert said.startswith("1 of 2 gates cannot be decided")


def test_the_attacker_in_words(full, minimal):
    has = dict(wording.attacker_knows(full.subject))
    assert "16 shadow models" in has["Shadow models"] and "online" in has["Shadow models"]
    assert "original" in has["Sees"] and has["Known non-members"].startswith("1,000 records")
    has = dict(wording.attacker_knows(replace(full.subject, online=False, original=False)))
    assert "offline" in has["Shadow models"] and "original" not in has["Sees"]
    has = dict(wording.attacker_knows(minimal.subject))
    assert has["Shadow models"].startswith("none") and has["Known non-members"] == "none"


@pytest.mark.parametrize("case", ["full", "minimal", "silent"])
def test_a_pass_is_no_proof_and_no_conformity_is_claimed(case):
    audit = getattr(audit_cases, case)()
    card, limits = statements.model_card(audit), " ".join(statements.limits(audit))
    assert "no proof" in card and "claims no conformity" in card and "\xa0" not in card
    assert "no proof" in limits or "nothing can be said to be safe" in limits
    rules = " ".join(statements.regulators(audit))
    assert "does not say that the model is anonymous" in rules
    assert "EDPB Opinion 28/2024" in rules and "OWASP AISVS" in rules
    for word in ("compliant", "certif", "safe to release"):
        assert word not in f"{card} {limits} {rules}"


def test_curves_of_the_figure(full, minimal):
    chosen = figures.curves(full)
    strongest = full.attacks[full.strongest]
    assert chosen[0].attack is strongest and len(chosen) == figures.CURVES
    assert (chosen[1].attack.name, chosen[1].attack.release) == (strongest.name, "original")
    assert all(one.attack.name != "gap" for one in chosen)  # a point, not a curve
    assert len({one.label for one in chosen}) == len(chosen)
    assert [one.label for one in figures.curves(minimal)] == ["loss"]
    assert figures.curves(audit_cases.silent()) == []

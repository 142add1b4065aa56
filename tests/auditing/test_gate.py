"""Gates: each outcome by hand, and how often a pass or a fail is wrong in simulations with known truth."""

import re

import numpy as np
import pytest
from answers_cases import answers, result_of
from scipy.stats import norm

from attackers import metrics
from auditing.gate import interval, judge, outcome_of, read_gate
from auditing.given import checked
from auditing.result import AttackResult
from auditing.weaknesses import Weakness, smallest_fpr, weaknesses_of
from core.console import UserError

WEAK = Weakness("there are 2 shadow models only", "6 more", True)


def scores(draw, member, auc):
    """Normal scores whose AUC is this in the population."""
    return draw.normal(size=len(member)) + np.sqrt(2) * norm.ppf(auc) * member


def half(n):
    return np.arange(n) < n // 2


@pytest.mark.parametrize(
    "text, measure, limit, strict",
    [
        ("auc<=0.6", "auc", 0.6, False),
        (" tpr_at_0.01 < .03 ", "tpr_at_0.01", 0.03, True),
        ("accuracy<=6e-1", "accuracy", 0.6, False),
    ],
)
def test_gates_are_read(text, measure, limit, strict):
    gate = read_gate(text)
    assert (gate.measure, gate.limit, gate.strict) == (measure, limit, strict)


@pytest.mark.parametrize(
    "text, says",
    [
        ("auc>=0.6", "a gate is a measure, <= or <, and a number"),
        ("auc", "a gate is a measure"),
        ("auc<=0.6<=0.7", "is no number"),
        ("tpr_at_1%<=3%", "are fractions: tpr_at_0.01<=0.03"),
        ("auc<=60%", "are fractions"),
        ("tpr_at_0.1%<=0.03", "are fractions"),
        ("acuracy<=0.6", "unknown measure 'acuracy', did you mean 'accuracy'?"),
        ("tpr_at_0.05<=0.6", "unknown measure 'tpr_at_0.05', did you mean 'tpr_at_0.0"),
        ("auc<=x", "'x' is no number"),
        ("auc<=nan", "a fraction above 0.5"),
        ("auc<=0.5", "a fraction above 0.5, which guessing reaches"),
        ("tpr_at_0.01<=0.01", "a fraction above 0.01"),
        ("auc<=1", "below 1"),
    ],
)
def test_wrong_gates_get_a_line(text, says):
    with pytest.raises(UserError, match=re.escape(says)):
        read_gate(text)


def test_it_passes_where_all_intervals_end_below():
    member, draw = half(2000), np.random.default_rng(0)
    results = [
        result_of(scores(draw, member, 0.52), member, name=name) for name in ("lira", "rmia")
    ]
    highs = [one.estimate("auc").high for one in results]
    found = judge(read_gate(f"auc<={max(highs) + 1e-9}"), results, member, [])
    assert found.outcome == "pass" and not found.add
    assert found.estimate == max((one.estimate("auc") for one in results), key=lambda e: e.value)
    between = judge(read_gate(f"auc<={max(highs) - 1e-6}"), results, member, [])
    assert between.outcome == "inconclusive" and "more targets" in between.add[0]


def test_equal_to_the_limit_passes_at_most_and_not_below():
    member = half(2000)
    result = result_of(scores(np.random.default_rng(0), member, 0.52), member)
    high = result.estimate("auc").high
    assert judge(read_gate(f"auc<={high!r}"), [result], member, []).outcome == "pass"
    assert judge(read_gate(f"auc<{high!r}"), [result], member, []).outcome == "inconclusive"


def test_it_fails_by_the_end_that_counts_the_attacks():
    member, draw = half(2000), np.random.default_rng(1)
    results = [result_of(scores(draw, member, 0.6), member, name=f"a{k}") for k in range(10)]
    worst = max(results, key=lambda one: one.measures["auc"])
    low = interval(worst, "auc", member, tail=metrics.TAIL / 10)[0]
    assert low < worst.estimate("auc").low
    fails = judge(read_gate(f"auc<={low - 1e-6}"), results, member, [WEAK])
    assert fails.outcome == "fail" and fails.attack == worst.name
    assert judge(read_gate(f"auc<={low + 1e-6}"), results, member, []).outcome == "inconclusive"


@pytest.mark.parametrize("measure", ["accuracy", "auc", "tpr_at_0.1", "tpr_at_0.01"])
def test_the_interval_at_the_usual_level_is_that_of_the_measures(measure):
    member = half(2000)
    result = result_of(scores(np.random.default_rng(2), member, 0.7), member)
    found = interval(result, measure, member, tail=metrics.TAIL)
    assert found == result.measures[f"{measure}_interval"]
    low, high = interval(result, measure, member, tail=metrics.TAIL / 20)
    assert low < found[0] and high > found[1]


def test_the_original_alone_decides_nothing_and_both_do():
    member, draw = half(2000), np.random.default_rng(3)
    weak = result_of(scores(draw, member, 0.51), member)
    strong = scores(draw, member, 0.9)
    for release, outcome in (("original", "pass"), ("both", "fail"), ("released", "fail")):
        other = result_of(strong, member, name="lira_joint", release=release)
        assert judge(read_gate("auc<=0.6"), [weak, other], member, []).outcome == outcome


def test_what_is_weak_turns_a_pass_into_inconclusive_and_no_fail():
    member, draw = half(2000), np.random.default_rng(4)
    result = result_of(scores(draw, member, 0.51), member)
    assert judge(read_gate("auc<=0.6"), [result], member, []).outcome == "pass"
    slight = Weakness("few non-members", "more", False)
    assert judge(read_gate("auc<=0.6"), [result], member, [slight]).outcome == "pass"
    found = judge(read_gate("auc<=0.6"), [result], member, [WEAK])
    assert found.outcome == "inconclusive" and found.add == ["6 more"] and WEAK.says in found.reason
    leaks = result_of(scores(draw, member, 0.9), member)
    assert judge(read_gate("auc<=0.6"), [leaks], member, [WEAK]).outcome == "fail"


def test_too_few_non_members_for_a_fpr_are_inconclusive_with_their_number():
    member = half(1000)
    result = result_of(scores(np.random.default_rng(5), member, 0.5), member)
    found = judge(read_gate("tpr_at_0.01<=0.9"), [result], member, [])
    assert found.outcome == "inconclusive" and found.estimate is None
    assert found.add == ["500 more non-members, 1,000 in all"]
    assert judge(read_gate("tpr_at_0.1<=0.9"), [result], member, []).outcome == "pass"


def test_a_strong_attack_that_cannot_tell_is_no_pass_and_decisions_do_not_matter():
    member, draw = half(4000), np.random.default_rng(6)
    told = result_of(scores(draw, member, 0.5), member, name="loss")
    tied = result_of((draw.random(4000) < 0.005) * draw.random(4000), member, name="lira")
    assert tied.measures["tpr_at_0.1"] is not None and tied.measures["equal_scores"] > 0.9
    decisions = result_of((draw.random(4000) < 0.5) * 1.0, member, name="gap", threshold=0.5)
    gate = read_gate("tpr_at_0.01<=0.2")
    assert judge(gate, [told, decisions], member, []).outcome == "pass"
    silent = result_of(np.where(draw.random(4000) < 0.02, draw.random(4000), 2.0), member)
    assert silent.measures["tpr_at_0.01"] is None
    assert judge(gate, [told, silent], member, []).outcome == "inconclusive"


def test_no_attack_that_tells_is_inconclusive():
    member = half(1000)
    result = result_of(np.zeros(1000), member)
    assert judge(read_gate("auc<=0.6"), [result], member, []).outcome == "inconclusive"
    assert judge(read_gate("auc<=0.6"), [], member, []).outcome == "inconclusive"


def test_the_worst_gate_is_the_outcome():
    member, draw = half(2000), np.random.default_rng(7)
    result = result_of(scores(draw, member, 0.6), member)
    gates = [read_gate(text) for text in ("auc<=0.9", "auc<=0.6", "auc<=0.52")]
    found = [judge(gate, [result], member, []) for gate in gates]
    assert [one.outcome for one in found] == ["pass", "inconclusive", "fail"]
    assert outcome_of(found) == "fail" and outcome_of(found[:2]) == "inconclusive"
    assert outcome_of(found[:1]) == "pass" and outcome_of([]) is None


def test_the_number_of_targets_that_is_asked_for_decides():
    """With as many as it says the interval's end is at the limit, on the same figures."""
    member = half(800)
    result = result_of(scores(np.random.default_rng(8), member, 0.53), member)
    value, high = result.estimate("auc").value, result.estimate("auc").high
    limit = (value + high) / 2  # half as far: four times as many
    (add,) = judge(read_gate(f"auc<={limit!r}"), [result], member, []).add
    assert int(re.search(r"([\d,]+) in all", add)[1].replace(",", "")) == pytest.approx(
        3200, rel=0.01
    )
    near = judge(read_gate(f"auc<={value + 1e-4!r}"), [result], member, [])
    assert "another limit:" in near.add[0]


TIMES = 150


def told(scores, member, measure, threshold):
    """An attack of which this measure alone is known."""
    called, limit = scores >= threshold, measure.removeprefix("tpr_at_")
    if measure == "auc":
        value, ends = metrics.auc(scores, member), metrics.auc_interval(scores, member)
    elif measure == "accuracy":
        value = metrics.balanced_accuracy(called, member)
        ends = metrics.accuracy_interval(called, member)
    else:
        value = metrics.tpr_at_fpr(scores, member, limit=float(limit))
        ends = metrics.tpr_interval(scores, member, limit=float(limit))
    measures = {measure: value, f"{measure}_interval": ends, "equal_scores": 0.0}
    return AttackResult("lira", "", "released", measures, scores, called, called)


@pytest.mark.slow
@pytest.mark.parametrize("measure, auc", [("auc", 0.6), ("accuracy", 0.7), ("tpr_at_0.1", 0.7)])
@pytest.mark.parametrize("alike", [False, True], ids=["independent", "alike"])
def test_passes_and_fails_are_wrong_in_few_cases(measure, auc, alike):
    """At a limit that is the true figure of six equally strong attacks, either answer is wrong."""
    n, attacks = 600, 6
    member, draw = half(n), np.random.default_rng(9)
    shift = np.sqrt(2) * norm.ppf(auc)
    true = float(
        {"auc": auc, "accuracy": norm.cdf(shift / 2), "tpr_at_0.1": norm.sf(norm.isf(0.1) - shift)}[
            measure
        ]
    )
    outcomes = []
    for _ in range(TIMES):
        common = draw.normal(size=n)
        results = []
        for _ in range(attacks):
            noise = 0.98 * common + 0.2 * draw.normal(size=n) if alike else draw.normal(size=n)
            results.append(told(noise + shift * member, member, measure, shift / 2))
        for limit in (true - 1e-9, true):
            gate = read_gate(f"{measure}<={limit!r}")
            outcomes.append(judge(gate, results, member, []).outcome)
    just_above, just_met = outcomes[::2], outcomes[1::2]
    assert just_above.count("pass") / TIMES <= 0.05  # 2.5 % and what 150 draws may add
    assert just_met.count("fail") / TIMES <= 0.05
    assert just_met.count("inconclusive") > 0.8 * TIMES


def test_without_counting_the_attacks_fails_would_be_wrong_in_many_cases():
    member, draw = half(800), np.random.default_rng(10)
    wrong = 0
    for _ in range(100):
        of_attacks = [metrics.auc_interval(scores(draw, member, 0.6), member) for _ in range(6)]
        wrong += max(of_attacks)[0] > 0.6
    assert wrong > 8


@pytest.mark.parametrize(
    "change, says, blocks",
    [
        ({"shadows": 6}, "there are 6 shadow models only", True),
        ({"shadows": 1}, "there is 1 shadow model only", True),
        ({"shadows": 8}, None, None),
    ],
)
def test_few_shadow_models_are_weak(change, says, blocks):
    given = checked(answers(n=2400, **change))
    member = given.member[given.target]
    result = result_of(np.random.default_rng(0).normal(size=len(member)), member)
    found = [(one.says, one.blocks) for one in weaknesses_of(given, [result])]
    assert found == ([] if says is None else [(says, blocks)])


@pytest.mark.parametrize("leak", [0.0, 6.0])
def test_shadow_models_that_are_trained_otherwise_let_no_gate_pass(leak):
    """They answer as models that memorise less, or more, than the audited one."""
    found = answers(n=2400)
    given = checked(found | {"shadows": answers(n=2400, leak=leak)["shadows"]})
    result = result_of(np.random.default_rng(0).normal(size=2400), given.member[given.target])
    (weak,) = weaknesses_of(given, [result])
    assert weak.blocks and "they are not trained as it was" in weak.says
    right = given.released.victim.logits.argmax(axis=1) == given.labels
    assert f"the audited model {100 * right[given.member].mean():.1f} % of" in weak.says
    gate = read_gate("auc<=0.6")
    assert judge(gate, [result], given.member[given.target], []).outcome == "pass"
    assert judge(gate, [result], given.member[given.target], [weak]).outcome == "inconclusive"


def test_weak_attacks_shadow_models_elsewhere_and_few_non_members_are_said():
    found = answers(n=240)
    member = found["member"][found["target"]]
    noise = np.random.default_rng(0).normal(size=len(member))
    only_loss = [result_of(noise, member, name="loss")]
    said = {one.says: one.blocks for one in weaknesses_of(checked(found), only_loss)}
    others = int((~member).sum())
    assert said == {
        "none of the strong attacks was made": True,
        f"{others} non-members tell no TPR below 10 % FPR": False,
    }
    original = [result_of(noise, member, name="lira", release="original")]
    assert "none of the strong attacks was made" in {
        one.says for one in weaknesses_of(checked(found), original)
    }
    found["shadow_member"] = np.random.default_rng(1).random((8, 300)) < 0.5
    found["shadow_member"] &= ~found["target"]
    strong = [result_of(noise, member)]
    texts = [one.says for one in weaknesses_of(checked(found), strong)]
    assert texts[0].startswith("no shadow model was trained on a target")
    bare = {name: found[name] for name in ("labels", "victim", "member", "target")}
    first, *_ = weaknesses_of(checked(bare), only_loss)
    assert first.blocks and first.says.startswith("there are no shadow models")


@pytest.mark.parametrize(
    "others, expected", [(99, None), (100, 0.1), (999, 0.1), (1000, 0.01), (10_000, 0.001)]
)
def test_the_smallest_fpr_is_that_of_the_measures(others, expected):
    assert smallest_fpr(others) == expected
    member = np.arange(others + 50) < 50
    measures = result_of(np.random.default_rng(0).normal(size=others + 50), member).measures
    told = [limit for limit in metrics.FPRS if measures[f"tpr_at_{limit:g}"] is not None]
    assert min(told, default=None) == expected

"""Audits as they may come out, from simulated scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attackers import ATTACKS, VERDICTS
from attackers.evidence import Verdict
from attackers.metrics import (
    accuracy_interval,
    auc,
    auc_interval,
    balanced_accuracy,
    clopper_pearson,
    delong,
    measures,
    named_records,
)
from auditing.result import (
    AttackResult,
    Audit,
    Comparison,
    Estimate,
    GateResult,
    GroupRisk,
    Records,
    Subject,
    Untested,
)

CLASSES = 10
# how well each attack's scores tell members, and those on the original
STRENGTHS = {
    ("lira", "released"): 1.0,
    ("lira_joint", "both"): 1.15,
    ("rmia", "released"): 0.95,
    ("bavaria", "released"): 0.9,
    ("base", "released"): 0.85,
    ("calibrated", "released"): 0.75,
    ("attack_p", "released"): 0.5,
    ("mentr", "released"): 0.5,
    ("conf", "released"): 0.48,
    ("xent", "released"): 0.3,
    ("loss", "released"): 0.45,
    ("nn", "released"): 0.4,
    ("top1_conf", "released"): 0.2,
    ("gap", "released"): 0.3,
    ("lira", "original"): 1.4,
    ("rmia", "original"): 1.3,
    ("mentr", "original"): 0.7,
    ("gap", "original"): 0.5,
}


def about(name):
    return ATTACKS[VERDICTS[name]].about


def attack_result(name, release, scores, records):
    """An attack with these scores, at the threshold that calls half of the targets members."""
    binary = len(np.unique(scores)) <= 2
    verdict = Verdict(scores, 0.5 if binary else float(np.median(scores)))
    found = measures(verdict, records.member, records.labels, num_cls=CLASSES)
    named = named_records(scores, records.member, limit=0.01)
    return AttackResult(name, about(name), release, found, scores, named)


def simulated(records, strength, rng, remembered):
    """Scores (n,): of members higher by a little, and of those in `remembered` by a lot."""
    noise = rng.standard_normal(len(records.member))
    return noise + strength * records.member * (0.15 + 2.4 * remembered)


def records_of(members, non_members, rng, *, memorisation=True):
    n = members + non_members
    member = rng.permutation(np.arange(n) < members)
    labels = rng.integers(0, CLASSES, n)
    ids = np.array([f"patient-{number:05d}" for number in rng.permutation(n)])
    gain = np.clip(rng.normal(0.12, 0.15, n), -0.3, 0.95) if memorisation else None
    return Records(ids, labels, member, gain)


def estimate_of(attack, measure):
    found = attack.estimate(measure)
    assert found is not None
    return found


def paired(released, original, member, measure):
    """An AUC's difference with an interval wide enough for this purpose."""
    values = [auc(one.scores, member) for one in (released, original)]
    spread = 1.96 * np.sqrt(sum(delong(one.scores, member)[1] for one in (released, original)))
    difference = values[0] - values[1]
    return Comparison(
        released.name,
        measure,
        values[0],
        values[1],
        Estimate(difference, difference - spread, difference + spread),
    )


def group_risk(kind, name, chosen, attack, records):
    member = records.member[chosen]
    members, non_members = int(member.sum()), int((~member).sum())
    if min(members, non_members) < 20:
        return GroupRisk(kind, name, members, non_members, None, None, None)
    scores, called = attack.scores[chosen], attack.scores[chosen] >= np.median(attack.scores)
    named = attack.named[chosen][member]
    return GroupRisk(
        kind,
        name,
        members,
        non_members,
        Estimate(balanced_accuracy(called, member), *accuracy_interval(called, member)),
        Estimate(auc(scores, member), *auc_interval(scores, member)),
        Estimate(float(named.mean()), *clopper_pearson(named.sum(), members)),
    )


def gates_of(attack):
    """One that passes, one that fails, one that cannot be decided."""
    accuracy, area, rate = (
        estimate_of(attack, name) for name in ("accuracy", "auc", "tpr_at_0.01")
    )
    return [
        GateResult(
            "accuracy<=0.9",
            "accuracy",
            0.9,
            "pass",
            attack.name,
            accuracy,
            "The upper end of the interval is below the limit.",
        ),
        GateResult(
            "tpr_at_0.01<=0.03",
            "tpr_at_0.01",
            0.03,
            "fail",
            attack.name,
            rate,
            "The lower end of the interval is above the limit.",
        ),
        GateResult(
            f"auc<={area.value:.2f}",
            "auc",
            round(area.value, 2),
            "inconclusive",
            attack.name,
            area,
            "The limit lies within the interval.",
            ["some 4,000 more non-members", "more shadow models, such as 64"],
        ),
    ]


SUBJECT = Subject(
    title="evidence.npz",
    source="answers",
    files={"evidence.npz": "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"},
    members=2500,
    non_members=2500,
    population=1000,
    classes=CLASSES,
    accuracy_members=0.992,
    accuracy_non_members=0.813,
    shadows=16,
    online=True,
    original=True,
)
UNTESTED = [
    Untested("samia", "it needs the models' sensitivities"),
    Untested("blindmi", "it needs outputs on generated records"),
    Untested("blindmi_scaled", "it needs outputs on generated records"),
    Untested("loss_trajectory", "it needs distilled models"),
    Untested("seqmia", "it needs distilled models"),
    Untested("qmia", "it needs the records themselves"),
]


def all_attacks(records, rng, remembered):
    """Those of STRENGTHS, and the largest AUC's of those on the released model."""
    attacks = []
    for (name, release), strength in STRENGTHS.items():
        scores = simulated(records, strength, rng, remembered)
        scores = (scores > 0).astype(float) if name == "gap" else scores
        attacks.append(attack_result(name, release, scores, records))
    on_released = [one for one in attacks if one.release != "original"]
    return attacks, max(on_released, key=lambda one: one.measures["auc"])


def full(seed=0):
    """16 shadow models trained online, the original, groups, a gate of each outcome."""
    rng = np.random.default_rng(seed)
    records = records_of(SUBJECT.members, SUBJECT.non_members, rng)
    region = rng.choice(["north", "south", "east", "west", "islands"], len(records.member))
    region[rng.permutation(len(region))[:25]] = "abroad"
    remembered = rng.random(len(records.member)) < np.where(region == "islands", 0.3, 0.1)
    attacks, best = all_attacks(records, rng, remembered)
    lira, original = (
        next(one for one in attacks if (one.name, one.release) == ("lira", release))
        for release in ("released", "original")
    )
    groups = [
        group_risk(kind, str(name), values == name, best, records)
        for kind, values in (("class", records.labels), ("group", region))
        for name in np.unique(values)
    ]
    return Audit(
        subject=SUBJECT,
        command='python audit.py answers evidence.npz --out audit/ --gate "accuracy<=0.9" '
        '--gate "tpr_at_0.01<=0.03" --gate "auc<=0.61"',
        made="2026-11-28 18:30",
        versions={"bench": "0.1.0", "python": "3.12.3", "torch": "2.14.1", "numpy": "2.4.6"},
        attacks=attacks,
        untested=UNTESTED,
        smallest_fpr=0.01,
        strongest=attacks.index(best),
        comparisons=[paired(lira, original, records.member, "auc")],
        groups=groups,
        records=records,
        gates=gates_of(best),
        outcome="fail",
        weaknesses=["16 shadow models: with 64 or more, likelihood ratios tell more at a low FPR"],
        warnings=["posteriors were rounded to 4 digits: scores of confident answers are equal"],
    )


def minimal(seed=1):
    """No shadow models, no gates, no groups, few records."""
    rng = np.random.default_rng(seed)
    records = replace(
        records_of(40, 30, rng, memorisation=False), record_ids=np.arange(70, dtype=np.int64)
    )
    scores = simulated(records, 1.0, rng, np.zeros(70, bool))
    attacks = [
        attack_result("loss", "released", scores, records),
        attack_result("gap", "released", (scores > 0).astype(float), records),
    ]
    subject = Subject("y.csv", "answers", {}, 40, 30, 0, CLASSES, 0.9, 0.9, 0, False, False)
    return Audit(
        subject=subject,
        command="python audit.py answers --labels y.csv --victim p.csv --out audit/",
        made="2026-11-28 18:30",
        versions={"bench": "0.1.0"},
        attacks=attacks,
        untested=[
            Untested("lira", "it needs shadow models"),
            Untested("rmia", "it needs shadow models"),
        ],
        smallest_fpr=None,
        strongest=0,
        comparisons=[],
        groups=[],
        records=records,
        gates=[],
        outcome=None,
        weaknesses=["no shadow models: only weak attacks could be made", "30 non-members are few"],
        warnings=[],
    )


def silent(seed=2):
    """No attack could be made, and a gate waits for one."""
    rng = np.random.default_rng(seed)
    few = minimal()
    gate = GateResult(
        "auc<=0.6",
        "auc",
        0.6,
        "inconclusive",
        "",
        None,
        "No attack could be made.",
        ["shadow models", "known non-members"],
    )
    return replace(
        few,
        subject=replace(few.subject, members=6, non_members=5),
        attacks=[],
        strongest=None,
        records=records_of(6, 5, rng, memorisation=False),
        gates=[gate],
        outcome="inconclusive",
    )

"""What an audit found, in sentences for those who decide."""

from __future__ import annotations

from collections.abc import Sequence

from auditing.result import AttackResult, Audit, Comparison, Estimate, GateResult, Outcome, Subject
from reporting.columns import MEASURES

RATES = {"tpr_at_0.1": 0.1, "tpr_at_0.01": 0.01, "tpr_at_0.001": 0.001}
NO_FIGURE = "\N{EN DASH}"


def percent(value: float, *, digits: int | None = None) -> str:
    """A fraction as `3.4 %`; two digits below 1 %."""
    digits = (2 if 0 < value < 0.01 else 1) if digits is None else digits
    return f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def title(measure: str) -> str:
    """What a measure is called."""
    words = MEASURES[measure].title if measure in MEASURES else measure
    return words.replace("Attack accuracy", "Accuracy").replace(" %", "\N{NO-BREAK SPACE}%")


def value_text(measure: str, value: float) -> str:
    """An AUC as a fraction, all else in percent."""
    return f"{value:.3f}" if measure == "auc" else percent(value)


def interval_text(measure: str, estimate: Estimate) -> str:
    """The ends of the interval, such as `2.1 to 4.9 %`."""
    if measure == "auc":
        return f"{estimate.low:.3f} to {estimate.high:.3f}"
    digits = 2 if estimate.high < 0.01 else 1
    return f"{100 * estimate.low:.{digits}f} to {percent(estimate.high, digits=digits)}"


def with_interval(measure: str, estimate: Estimate) -> str:
    """A figure with its interval, in a sentence."""
    interval = interval_text(measure, estimate)
    return f"{value_text(measure, estimate.value)} (95\N{NO-BREAK SPACE}% interval {interval})"


def difference_text(measure: str, value: float) -> str:
    """A difference with its sign: of AUCs as it is, else in percentage points."""
    text = f"{value:+.3f}" if measure == "auc" else f"{100 * value:+.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def number(count: int, what: str = "") -> str:
    """`1 member`, `2,500 members`."""
    return f"{count:,} {what}{'s' * (count != 1)}" if what else f"{count:,}"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def about_line(about: str) -> str:
    """An attack's description in one line, as the registry breaks it for a terminal."""
    return " ".join(about.split())


def meaning(measure: str, estimate: Estimate) -> str:
    """What a figure means for somebody who has not heard of the measure."""
    value = estimate.value
    if measure == "auc":
        return (
            f"Of one member and one non-member drawn at random, the member gets the higher score in "
            f"{100 * value:.0f} of 100 cases; 50 is guessing."
        )
    if measure == "accuracy":
        return (
            f"Of 100 records, half of them members, {100 * value:.0f} are called correctly; 50 is "
            f"guessing."
        )
    per = round(10 / RATES[measure])
    return (
        f"Of {per:,} members {per * value:.0f} are named, while of {per:,} non-members 10 are; "
        f"guessing names 10 of each."
    )


def against_chance(measure: str, estimate: Estimate) -> str:
    """Whether a figure is told apart from guessing, by its interval."""
    chance = MEASURES[measure].chance
    if estimate.low > chance:
        return "above guessing"
    return "below guessing" if estimate.high < chance else "not told apart from guessing"


def gap(subject: Subject) -> str:
    """What the model's own accuracies say."""
    members, others = subject.accuracy_members, subject.accuracy_non_members
    points = f"{100 * (members - others):.1f}".replace("-", "\N{MINUS SIGN}")
    text = (
        f"The model is right on {percent(members)} of the members and on {percent(others)} of the "
        f"non-members, a gap of {points} points"
    )
    if members <= 1.5 / subject.classes:
        return f"{text}; guessing is right on {percent(1 / subject.classes)}."
    if members - others < 0.02:
        return f"{text}: it hardly overfits. It may remember single records all the same."
    return (
        f"{text}. Who sees only whether an answer is right, and takes a right one for a member, is "
        f"right in {percent((1 + members - others) / 2)} of cases, where guessing gives 50."
    )


def attacker_knows(subject: Subject) -> list[tuple[str, str]]:
    """What the attacker has, and what not: a term and a text each."""
    has = (
        "the model's posteriors (the probability it gives each class) for every record in question"
    )
    if subject.original:
        has += ", and those of the original from before compression"
    shadows = "none: only attacks that need none could be made"
    if subject.shadows:
        how = (
            "trained with some of the records in question and without others (online), so that each "
            "record is seen from both sides"
            if subject.online
            else "trained without any of the records in question (offline)"
        )
        shadows = (
            f"{number(subject.shadows, 'shadow model')} of the attacker's own, like the audited one "
            f"on data of the same kind, {how}"
        )
    population = "none"
    if subject.population:
        population = (
            f"{number(subject.population, 'record')} that the attacker knows not to be members"
        )
    return [
        ("Sees", has),
        ("Knows", "the records in question and their true labels, but not who was a member"),
        ("Shadow models", shadows),
        ("Known non-members", population),
        (
            "Has not",
            "the weights, gradients or intermediate models"
            + ("" if subject.original else ", nor another release of the same model"),
        ),
    ]


def resolution(audit: Audit) -> str:
    """The smallest FPR at which these data tell a rate."""
    subject, smallest = audit.subject, audit.smallest_fpr
    have = number(subject.non_members, "non-member")
    if smallest is None:
        enough = subject.non_members >= 100
        why = "no attack gives enough different scores" if enough else "that takes 100 or more"
        return (
            f"These data ({have}) tell a TPR at no low FPR: {why}. Whether a few people can be named "
            f"with confidence is not tested here."
        )
    text = f"The smallest FPR that these data ({have}) resolve is {percent_plain(smallest)}"
    if smallest > 0.001:
        finer = smallest / 10
        text += (
            f"; for {percent_plain(finer)} it takes {round(10 / finer):,} non-members or more. Rates "
            f"below are not tested here"
        )
    return text + "."


def percent_plain(rate: float) -> str:
    """A round rate as `10 %`, `0.1 %`."""
    return f"{100 * rate:g}\N{NO-BREAK SPACE}%"


def made_at(audit: Audit) -> str:
    """When, in UTC, to the minute."""
    return audit.made[:16].replace("T", " ")


def headline(audit: Audit) -> str:
    """What the strongest attack comes to, in a sentence."""
    if audit.strongest is None:
        if audit.attacks:
            return "Every attack gives all records the same score, which says nothing either way."
        return "No attack could be made, so nothing is known of what the model gives away."
    attack = audit.attacks[audit.strongest]
    estimates = {name: attack.estimate(name) for name in MEASURES}
    above = [
        name
        for name, estimate in estimates.items()
        if estimate and against_chance(name, estimate) == "above guessing"
    ]
    if not above:
        return (
            f"No attack that was made tells members from others better than guessing, as far as "
            f"these records show; the strongest is {attack.name}."
        )
    parts = []
    for name in above:
        if name in ("accuracy", "auc"):
            parts = ["tells members from others better than guessing"]
    rates = [name for name in above if name in RATES]
    if rates:
        rate = estimates[rates[-1]]
        assert rate is not None
        parts.append(
            f"names {percent(rate.value)} of the members while it names "
            f"{percent_plain(RATES[rates[-1]])} of the non-members by mistake"
        )
    return f"The strongest attack by AUC, {attack.name}, {listed(parts)}."


def names_more(audit: Audit) -> str:
    """Which attack has the largest TPR at the smallest FPR, where that is another one; else ""."""
    if audit.strongest is None or audit.smallest_fpr is None:
        return ""
    measure = f"tpr_at_{audit.smallest_fpr:g}"
    rates = {
        index: estimate
        for index, attack in enumerate(audit.attacks)
        if attack.release != "original" and (estimate := attack.estimate(measure))
    }
    best = max(rates, key=lambda index: rates[index].value, default=audit.strongest)
    first = rates.get(audit.strongest)
    if best == audit.strongest or (first and first.value == rates[best].value):
        return ""
    return (
        f"At an FPR of {percent_plain(audit.smallest_fpr)} {attack_text(audit.attacks[best])} names "
        f"more members: {with_interval(measure, rates[best])}."
    )


def without_original(audit: Audit) -> str:
    """The strongest attack of whoever has the released model alone; "" where that is the strongest."""
    if audit.strongest is None or audit.attacks[audit.strongest].release != "both":
        return ""
    alone = {
        attack.name: estimate
        for attack in audit.attacks
        if attack.release == "released" and (estimate := attack.estimate("auc"))
    }
    if not alone:
        return ""
    best = max(alone, key=lambda name: alone[name].value)
    return (
        f"Without the original the strongest is {best}, with an AUC of "
        f"{with_interval('auc', alone[best])}."
    )


def attack_text(attack: AttackResult) -> str:
    """An attack's name, and what it saw where that is not the released model alone."""
    return attack.name if attack.release == "released" else f"{attack.name} ({attack.release})"


def outcome_text(outcome: Outcome | None, gates: list[GateResult]) -> str:
    """What the outcome of all gates together says."""
    count = sum(gate.outcome == outcome for gate in gates)
    some = f"{count} of {len(gates)} gates" if len(gates) > 1 else "the gate"
    match outcome:
        case None:
            return "No gate was given: this page measures, and decides nothing."
        case "pass":
            return (
                "Every gate passes: even the upper end of each figure's interval is within its "
                "limit. That is no proof that nothing leaks."
            )
        case "fail":
            text = f"{some} fail{'s' * (count == 1)}: even the lower end of the interval is above the limit."
            return text[0].upper() + text[1:]
        case _:
            text = f"{some} cannot be decided on this evidence; none fails."
            return text[0].upper() + text[1:]


def condition_text(gate: GateResult) -> str:
    """A gate's condition in words."""
    limit = f"{gate.limit:g}" if gate.measure == "auc" else percent_plain(gate.limit)
    return f"{title(gate.measure)} {'below' if '<=' not in gate.condition else 'at most'} {limit}"


def gate_figure(gate: GateResult) -> str:
    """A gate's figure with its interval, in as many digits as tell its ends from the limit."""
    estimate = gate.estimate
    if estimate is None:
        return NO_FIGURE
    scale, unit, digits = 1, "", 3
    if gate.measure != "auc":
        scale, unit, digits = 100, "\N{NO-BREAK SPACE}%", 2 if estimate.high < 0.01 else 1
    ends = (estimate.low, estimate.high)
    while digits < 9 and any(
        end != gate.limit and round(scale * end, digits) == round(scale * gate.limit, digits)
        for end in ends
    ):
        digits += 1
    value, low, high = (f"{scale * one:.{digits}f}" for one in (estimate.value, *ends))
    return f"{value}{unit} ({low} to {high}{unit})"


def change(comparison: Comparison) -> str:
    """What compression did to an attack, by the interval of the paired difference."""
    if comparison.difference.high < 0:
        return "less"
    return "more" if comparison.difference.low > 0 else "not told apart"

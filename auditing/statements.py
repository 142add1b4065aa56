"""What an audit cannot say, what regulators ask of it, and its paragraph for a model card."""

from __future__ import annotations

from auditing.result import Audit
from auditing.wording import (
    against_chance,
    attack_text,
    difference_text,
    headline,
    made_at,
    names_more,
    number,
    percent,
    resolution,
    title,
    with_interval,
    without_original,
)
from reporting.columns import MEASURES

# EDPB, Opinion 28/2024 on AI models (17 December 2024): paragraph 43 says when a model trained on
# personal data counts as anonymous, 55 what tests are evidence of; OWASP AISVS 1.0, section C11.2
REGULATORS = (
    (
        "EDPB Opinion 28/2024, paragraph 43: a model trained on personal data is anonymous only if it is "
        "insignificantly likely, for each person, that their data are obtained from it, by all means "
        "reasonably likely to be used. No average answers that: see the TPR at a low FPR, the groups and "
        "the records. Paragraph 55 has membership inference among the attacks to test; a passed test is "
        "evidence of resistance to the attacks that were made, and to no others."
    ),
    (
        "OWASP AISVS 1.0, section 11.2: simulated attacks are to be no more accurate than guessing. {accuracy} "
        "Accuracy is an average too; whether a few people are named for certain, the TPR at a low FPR "
        "says."
    ),
    (
        "This page is evidence of tests. It does not say that the model is anonymous, nor that it "
        "conforms to these or any other rules."
    ),
)


def next_steps(audit: Audit) -> str:
    """What can be done where a gate fails; "" elsewhere."""
    if audit.outcome != "fail":
        return ""
    return (
        "What to do: do not release it as it is, or let fewer people ask it. Training that stops "
        "earlier, stronger regularisation, a defence that holds against attackers who know it, or "
        "differential privacy lower these figures; then audit again. records.csv says who is at risk."
    )


def limits(audit: Audit) -> list[str]:
    """What this audit cannot say."""
    subject = audit.subject
    made = len({attack.name for attack in audit.attacks})
    which = f"Only {number(made, 'attack')}" if made else "No attack"
    return [
        (
            f"{which} on membership {'was' if made < 2 else 'were'} made. Reconstruction of records, "
            "inference of attributes, verbatim repetition and theft of the model are other questions."
        ),
        "A pass is no proof. An attacker with more shadow models, with the weights, or with an attack "
        "yet unknown may find more."
        if audit.attacks
        else "Where nothing could be tested, nothing can be said to be safe.",
        "The attacker is taken to know the distribution of the data and how the model was trained. "
        "One who does not is weaker, by how much is not measured."
        if subject.shadows
        else "The attacker had no shadow models. With them attacks are mostly much stronger, above "
        "all at a low FPR.",
        "One training was audited. Trained again, the same recipe may give away more or less.",
        (
            "Intervals are of 95\N{NO-BREAK SPACE}% and cover the choice of these records alone: not the "
            "training, the shadow models, or that the strongest attack was picked on these same records, "
            "which makes its figures a little too large."
        ),
        (
            f"Only these {number(subject.members, 'member')} were tested; of all others in the training "
            f"data nothing is said."
        ),
    ]


def regulators(audit: Audit) -> list[str]:
    """What two texts ask of such a test, and what this page answers."""
    accuracy = "No accuracy was measured here."
    if audit.strongest is not None:
        estimate = audit.attacks[audit.strongest].estimate("accuracy")
        if estimate:
            accuracy = (
                f"The strongest attack here reaches {with_interval('accuracy', estimate)}, "
                f"{against_chance('accuracy', estimate)}."
            )
    return [text.format(accuracy=accuracy) for text in REGULATORS]


def model_card(audit: Audit) -> str:
    """A paragraph of plain text for a model card."""
    subject = audit.subject
    made = len({attack.name for attack in audit.attacks})
    sentences = [
        (
            f"Membership inference was tested on {subject.title} with "
            f"{number(subject.members, 'record')} of its training data (members) and "
            f"{number(subject.non_members, 'other')} (non-members) by "
            f"{number(made, 'attack') if made else 'no attack'}, for an attacker with the model's posteriors, the true labels and "
            f"{number(subject.shadows, 'shadow model') if subject.shadows else 'no shadow models'}"
            f"{(' (online)' if subject.online else ' (offline)') * bool(subject.shadows)}"
            f"{', and with the original from before compression' * subject.original}."
        ),
        (
            f"The model is right on {percent(subject.accuracy_members)} of the members and "
            f"{percent(subject.accuracy_non_members)} of the non-members."
        ),
        *_strongest_sentences(audit),
        resolution(audit),
    ]
    if audit.gates:
        sentences.append(
            "Gates: " + "; ".join(f"{gate.condition}: {gate.outcome}" for gate in audit.gates) + "."
        )
    if audit.weaknesses:
        sentences.append(f"What this evidence lacks: {'; '.join(audit.weaknesses)}.")
    sentences.append(
        "The intervals cover the choice of records alone. The test tells of these attacks on this "
        f"one training, is no proof that nothing leaks, and claims no conformity "
        f"({made_at(audit)} UTC)."
    )
    return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")


def _strongest_sentences(audit: Audit) -> list[str]:
    if audit.strongest is None:
        return [headline(audit)]
    attack = audit.attacks[audit.strongest]
    figures = [
        f"{title(name).replace('Accuracy', 'balanced accuracy')} {with_interval(name, estimate)}"
        for name in MEASURES
        if (estimate := attack.estimate(name))
    ]
    sentences = [f"The strongest is {attack_text(attack)}: {'; '.join(figures) or 'no figure'}."]
    sentences += filter(None, [names_more(audit), without_original(audit)])
    areas = [each for each in audit.comparisons if each.measure == "auc"]
    if areas:
        change = max(areas, key=lambda each: (each.attack == attack.name, each.released))
        value, low, high = (
            difference_text("auc", one)
            for one in (change.difference.value, change.difference.low, change.difference.high)
        )
        sentences.append(
            f"On the released model the AUC of {change.attack} is {change.released:.3f}, on its "
            f"original {change.original:.3f}: a difference of {value} (95 % interval {low} to {high})."
        )
    return sentences

"""The attacks that a user's arrays allow, made and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from attackers import ATTACKS, Evidence, Verdict, attack, metrics, part_of_all, unfit
from attackers.signals import cross_entropy
from auditing.given import Given
from auditing.request import ALL, QUICK
from auditing.result import AttackResult, Untested
from core.console import UserError

# attacks that train networks or forests on all shadow models' records: minutes each
SLOW = ("nn", "nn_top3", "nn_cls", "compleak_sr", "nn_joint", "compleak_mr", "trajectory")

# verdicts of an attack that has several -> what each is
_VERDICTS = {
    "conf": "the true class's posterior, one threshold a class (Song & Mittal 2021)",
    "xent": "the entropy, one threshold a class (Song & Mittal 2021)",
    "mentr": "the modified entropy, one threshold a class (Song & Mittal 2021)",
    "top1_conf": "the largest posterior, one threshold for all (Salem et al. 2019)",
}
POPULATION_FPR = 0.1  # of `loss_among_non_members`
_NEEDS = {  # flags of the registry -> what arrays of answers do not hold
    "sensitivity": "it needs the model's sensitivity to small changes of a record",
    "generated": "it needs the model's answers for generated records",
    "distillation": "it needs students that are distilled from each model",
    "label_only": "it needs the model's answers for changed copies of each record",
}


def loss_among_non_members(evidence: Evidence) -> Verdict:
    """`loss` without shadow models: minus the cross-entropy, member where it exceeds that of all
    but 10 % of the population, known non-members.

    That is the principle of attack P (Ye et al., CCS 2022), with two departures: the score is not
    the share of the population with a larger loss, of which all below the smallest are equal; and
    the threshold is the order statistic itself, not a quantile between two or of a fitted
    distribution. Without a population the threshold is infinite, as there is none.
    """
    score = -cross_entropy(evidence.victim, evidence.labels)
    others = score[~evidence.target]
    threshold = np.inf
    if len(others):
        threshold = np.nextafter(metrics.score_to_exceed(others, limit=POPULATION_FPR), np.inf)
    return Verdict(score[evidence.target], threshold)


def make_attacks(
    given: Given,
    asked: Sequence[str],
    *,
    seed: int,
    on_attack: Callable[[str], object] = lambda name: None,
) -> tuple[list[AttackResult], list[Untested]]:
    """What each attack finds on the released model, on the original and on both, and which were
    not made.

    Args:
        asked: `quick` for all but those of `SLOW`, `all`, or registered names.
        seed: of the attacks' randomness, as mia.py's --train_seed.
        on_attack: called with the name of each attack before it is made.
    Raises:
        UserError: an attack that is named cannot be made of these arrays.
    """
    named = [name for name in asked if name not in (QUICK, ALL)]
    results: list[AttackResult] = []
    untested: list[Untested] = []
    for name in ATTACKS:
        reason = _not_asked(name, asked, named) or _unfit(name, given)
        if reason is None:
            on_attack(name)
            try:
                results += _results(name, given, seed)
                continue
            except UserError as error:
                reason = str(error)
        if name in named:
            raise UserError(f"{name}: {reason}")
        untested.append(Untested(name, reason))
    return results, untested


def left_out(given: Given, asked: Sequence[str]) -> list[str]:
    """The attacks of `quick` that these arrays allow and that are not asked for."""
    if {QUICK, ALL} & set(asked):
        return []
    return [
        name
        for name in ATTACKS
        if name not in asked
        and _not_asked(name, [QUICK], []) is None
        and _unfit(name, given) is None
    ]


def _not_asked(name: str, asked: Sequence[str], named: list[str]) -> str | None:
    if name in named:
        return None
    form = ATTACKS[name].options.get("variant_of")
    if form:
        return f"{form} does the same where it can"
    if ALL in asked or (QUICK in asked and (name not in SLOW or not part_of_all(name))):
        return None
    if QUICK in asked:
        return "it trains a network or a forest, which takes minutes: --attacks all"
    return "it was not asked for (--attacks)"


def _unfit(name: str, given: Given) -> str | None:
    """Why an attack cannot be made of these arrays; None where it can."""
    options = ATTACKS[name].options
    for flag, reason in _NEEDS.items():
        if options.get(flag):
            return reason
    if options.get("releases") and given.original is None:
        return "it needs a second release: original (and original_shadows)"
    if name == "qmia":  # which would say so itself, after it has imported torch
        return "it needs the records themselves"
    count = len(given.released.shadows)
    if count == 0:
        return None if name in ("gap", "loss") else "it needs shadow models"
    if name == "lira_online" and not given.online:
        return "it needs shadow models that were trained on targets"
    return unfit(name, online=given.online, shadow_num=count, also=("original",))


def _results(name: str, given: Given, seed: int) -> list[AttackResult]:
    """What an attack finds on each release.

    Raises UserError where it cannot be made, or not of all targets.
    """
    released, original = given.released, given.original
    if ATTACKS[name].options.get("releases"):
        assert original is not None  # see `_unfit`
        evidence = given.evidence(released, {"original": original})
        return _measured(name, "both", _verdicts(name, evidence, seed), given)
    found = _measured(name, "released", _verdicts(name, given.evidence(released), seed), given)
    if original is not None:
        verdicts = _verdicts(name, given.evidence(original), seed)
        found += _measured(name, "original", verdicts, given)
    return found


def _verdicts(name: str, evidence: Evidence, seed: int) -> dict[str, Verdict]:
    if name == "loss" and not evidence.shadows:
        return {name: loss_among_non_members(evidence)}
    return attack(name, evidence, seed=seed)


def _measured(
    name: str, release, verdicts: Mapping[str, Verdict], given: Given
) -> list[AttackResult]:
    """The verdicts of an attack with their measures. Raises UserError where targets have no
    score."""
    labels, member = given.labels[given.target], given.member[given.target]
    results = []
    for verdict_name, verdict in verdicts.items():
        unknown = int(np.isnan(verdict.scores).sum())
        if unknown:
            raise UserError(
                f"{unknown} of {len(member)} targets have too few shadow models that were trained with "
                f"them, or without: two of each kind at least"
            )
        measures = metrics.measures(verdict, member, labels, num_cls=given.num_cls)
        has_threshold = not np.isposinf(verdict.threshold).any()
        if not has_threshold:
            unknown_figures = ("accuracy", "accuracy_interval", "called_members")
            measures |= dict.fromkeys(unknown_figures)
            measures["class_accuracy"] = [None] * given.num_cls
        named = metrics.named_records(verdict.scores, member, limit=0.01)
        results.append(
            AttackResult(
                verdict_name,
                _VERDICTS.get(verdict_name) or _about(name, given),
                release,
                measures,
                verdict.scores,
                named & (measures["tpr_at_0.01"] is not None),
                verdict.member if has_threshold else None,
            )
        )
    return results


def _about(name: str, given: Given) -> str:
    """The attack in a line."""
    about = " ".join(ATTACKS[name].about.split())
    if name != "loss" or given.released.shadows:
        return about
    if given.target.all():
        return f"{about}; no threshold, as neither shadow models nor known non-members are there"
    return f"{about}: what all but 10 % of the known non-members stay below"


def strongest(results: Sequence[AttackResult]) -> int | None:
    """Which has the largest AUC, by whoever has the released model; None where none is told."""
    told = [
        index
        for index, one in enumerate(results)
        if one.of_released and one.measures["auc"] is not None
    ]
    return max(told, key=lambda index: results[index].measures["auc"], default=None)

"""An audit from first to last: attacks, gates, files, and what is printed."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime

from core import console
from attackers import metrics, records
from auditing.attacks import SLOW, left_out, make_attacks, strongest
from auditing.gate import STATUS, judge, outcome_of
from auditing.given import Given
from auditing.groups import groups_at_risk
from auditing.paired import compare
from auditing.request import ALL, Request
from auditing.result import Audit, Records, Subject
from auditing.weaknesses import smallest_fpr, weaknesses_of
from auditing.written import write_audit
from bench.provenance import commit_of_code
from core.console import percent

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")


def run(given: Given, request: Request) -> int:
    """Make an audit, write and print what it finds; returns the exit status.

    Raises UserError, with nothing written, where an attack that is asked for cannot be made.
    """
    audit = make_audit(given, request)
    paths = write_audit(audit, request.settings.out)
    print_audit(audit)
    console.say("\n" + "\n".join(f"saved {path}" for path in paths))
    return STATUS[audit.outcome]


def make_audit(given: Given, request: Request) -> Audit:
    """All that is found."""
    settings = request.settings
    if {ALL, *SLOW} & set(settings.attacks):
        import torch

        torch.set_num_threads(1)  # on which the last digits of what is trained depend
    bar = console.progress(total=0, label="attacking", unit="attack")
    results, untested = make_attacks(
        given, settings.attacks, seed=settings.seed, on_attack=lambda name: bar.update()
    )
    bar.close()
    target, index = given.target, strongest(results)
    labels, member = given.labels[target], given.member[target]
    group = None if given.group is None else given.group[target]
    missed = left_out(given, settings.attacks)
    weaknesses = [*weaknesses_of(given, results, missed), *request.weaknesses]
    gates = [judge(gate, results, member, weaknesses) for gate in settings.gates]
    memorised = records.memorisation(given.evidence(given.released)) if given.online else None
    return Audit(
        subject=subject_of(given, request),
        command=request.command,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        attacks=results,
        untested=untested,
        smallest_fpr=smallest_fpr(int((~member).sum())),
        strongest=index,
        comparisons=compare(results, member, seed=settings.seed),
        groups=[] if index is None else groups_at_risk(results[index], member, labels, group),
        records=Records(given.record_ids[target], labels, member, memorised, group),
        gates=gates,
        outcome=outcome_of(gates),
        weaknesses=[one.says for one in weaknesses],
        warnings=given.warnings,
    )


def subject_of(given: Given, request: Request) -> Subject:
    right = given.released.victim.logits.argmax(axis=1) == given.labels
    others = given.target & ~given.member
    return Subject(
        title=request.title,
        source=request.source,
        files=request.files,
        members=int(given.member.sum()),
        non_members=int(others.sum()),
        population=int((~given.target).sum()),
        classes=given.num_cls,
        accuracy_members=float(right[given.member].mean()),
        accuracy_non_members=float(right[others].mean()),
        shadows=len(given.released.shadows),
        online=given.online,
        original=given.original is not None,
    )


def versions() -> dict[str, str]:
    """Of this code where git knows it, of Python, and of the packages that numbers depend on."""
    commit = commit_of_code()
    own = {"bench": commit[:12]} if commit else {}
    return (
        own
        | {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES}
    )


def print_audit(audit: Audit) -> None:
    """What an engineer needs to see: warnings, the attacks, the strongest first, and the gates."""
    for text in audit.warnings:
        console.say(f"warning: {text}")
    made = sorted(
        (one for one in audit.attacks if one.of_released),
        key=lambda one: -(one.measures["auc"] or 0),
    )
    subject = audit.subject
    names = ["accuracy", "auc", *(f"tpr_at_{limit:g}" for limit in metrics.FPRS[:2])]
    console.table(
        f"{subject.title}: {subject.members} members, {subject.non_members} non-members, "
        f"{subject.shadows} shadow models\nin percent, with 95 % intervals; guessing gives 50, 50, 10 "
        f"and 1",
        ["attack", *names],
        [[one.name, *(_cell(one.estimate(name)) for name in names)] for one in made],
    )
    for text in audit.weaknesses:
        console.say(f"weak: {text}")
    if audit.gates:
        console.table(
            f"gates: {audit.outcome}",
            ["gate", "outcome"],
            [[gate.condition, gate.outcome] for gate in audit.gates],
        )
        for gate in audit.gates:
            console.say(f"{gate.condition}: {'; add '.join([gate.reason, *gate.add])}")


def _cell(estimate) -> str:
    if estimate is None:
        return "-"
    return f"{percent(estimate.value)} ({percent(estimate.low)} to {percent(estimate.high)})"

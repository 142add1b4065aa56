"""records.csv: what attacks say of each target record, and how far that can be relied on."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace

import numpy as np

from attackers import ATTACKS, VERDICTS, Evidence, Verdict, metrics, records
from bench.attack_lines import names_of_arrays, read_scores
from bench.attack_log import AttackLog
from bench.attacking import Checkpoints, Releases, verdicts_of
from bench.guesses import knowledge_in_words
from bench.layout import RECORDS
from bench.run import Run
from bench.signals import collect_signals
from bench.tables import attack_name, standardised_table
from core.console import UserError, say
from core.files import write
from core.parallel import parallel_map

NAMED = tuple(f"named_at_{limit:g}" for limit in metrics.FPRS)
RISK = ("models_with", "risk", "risk_low", "risk_high", "models_without", "false_alarms")
COLUMNS = (
    *(
        "attack",
        "models",
        "record",
        "class",
        "member",
        "score",
        *NAMED,
        "standardised",
        "memorisation",
    ),
    *RISK,
)


@dataclass(frozen=True, eq=False)
class Recorded:
    """What scores.npz holds of an attack's line.

    Attributes:
        scores, record_ids, labels, member: (n,), of the targets.
    """

    line: dict
    scores: np.ndarray
    record_ids: np.ndarray
    labels: np.ndarray
    member: np.ndarray

    @property
    def attack(self) -> str:
        return self.line["attack"]

    @property
    def name(self) -> str:
        """The attack, and what its attacker has and lacks."""
        return ", ".join(filter(None, [attack_name(self.line), knowledge_in_words(self.line)]))

    def columns(self) -> dict[str, np.ndarray]:
        """The columns that need no shadow model, (n,) each."""
        named = {
            name: metrics.named_records(self.scores, self.member, limit=limit)
            for name, limit in zip(NAMED, metrics.FPRS)
            if self.line[f"tpr_at_{limit:g}"] is not None
        }
        return {
            "attack": np.full(len(self.scores), self.name),
            "models": np.full(len(self.scores), self.line["models"]),
            "record": self.record_ids,
            "class": self.labels,
            "member": self.member,
            "score": self.scores,
            **named,
        }


def write_records(
    run: Run, checkpoints: Checkpoints, releases: Releases, log: AttackLog, lines: list[dict]
) -> None:
    """Write records.csv beside the attacks' lines: a row for each target and line, cells empty
    where nothing is known. Prints the measures of standardised scores.

    Raises UserError, with nothing written, where what these attacks say now is not what is
    recorded.
    """
    stored = read_scores(log.scores_path)
    recorded = []
    for line in lines:
        scores, _, *truth = (stored[name] for name in names_of_arrays(line))
        recorded.append(Recorded(line, scores, *truth))
    tables = {one.attack: one.columns() for one in recorded}
    if run.options.split == "inout":
        evidence, verdicts = _of_shadow_models(run, checkpoints, releases, recorded)
        _add_standardised(tables, recorded, evidence, verdicts)
        _add_risk(tables, evidence, verdicts)
    else:
        say(
            "records: no memorisation and no risk, as no shadow model was trained on a target in "
            "the paper's split (pretrain.py --split inout)"
        )
    path = run.matchup.victim.file("victim", RECORDS)
    with run.matchup.victim.lock("victim", "attacks", wait=60):
        write(path, _as_csv(tables.values()))
    say(f"records: saved {path}")


def _of_shadow_models(
    run: Run, checkpoints: Checkpoints, releases: Releases, recorded: list[Recorded]
) -> tuple[Evidence, dict[str, Verdict]]:
    """The evidence, and the verdicts that have scores of shadow models, by name: the attacks are
    made again, of outputs that lie there."""
    run = replace(run, options=replace(run.options, fresh=False))
    names = dict.fromkeys(VERDICTS[one.attack] for one in recorded)
    again = [name for name in names if ATTACKS[name].options.get("in_turn", True)]
    evidence = collect_signals(run, checkpoints, attacks=again, releases=releases)
    verdicts: dict[str, Verdict] = {}
    for _, made in parallel_map(
        lambda name, progress: verdicts_of(name, evidence, run, progress),
        again,
        workers=run.options.workers or 1,
        threads=run.options.threads,
    ):
        in_turn = {name: records.scores_in_turn(one, evidence) for name, one in made.items()}
        verdicts |= {name: one for name, one in made.items() if in_turn[name] is not None}
    for one in recorded:
        if one.attack in verdicts and not np.allclose(verdicts[one.attack].scores, one.scores):
            raise UserError(
                f"the recorded scores of {one.attack} are not what it says of these models now: "
                f"make it again with --fresh"
            )
    return evidence, verdicts


def _add_standardised(
    tables: dict[str, dict[str, np.ndarray]],
    recorded: list[Recorded],
    evidence: Evidence,
    verdicts: dict[str, Verdict],
) -> None:
    """Add standardised scores, and print their measures below those of the raw ones."""
    lines, num_cls = [], evidence.victim.logits.shape[1]
    for one in recorded:
        if one.attack in verdicts:
            scores = records.standardised(verdicts[one.attack], evidence)
            tables[one.attack]["standardised"] = scores
            figures = metrics.measures(
                Verdict(scores, np.inf), one.member, one.labels, num_cls=num_cls
            )
            title = f"{one.name}, standardised"
            lines += [one.line, figures | {"attack": title, "accuracy": None}]
    if lines:
        standardised_table([line | {"accuracy": None} for line in lines])


def _add_risk(
    tables: dict[str, dict[str, np.ndarray]], evidence: Evidence, verdicts: dict[str, Verdict]
) -> None:
    """Add memorisation to all, and the columns of the risk where it is known; says where it is
    not."""
    member, memorisation = evidence.member[:, evidence.target], records.memorisation(evidence)
    assert evidence.record_ids is not None  # as `collect_signals` makes it
    targets = evidence.record_ids[evidence.target]
    unknown = []
    for name, columns in tables.items():
        # an attack on a sample has not all of them
        columns["memorisation"] = memorisation[np.searchsorted(targets, columns["record"])]
        verdict = verdicts.get(name)
        scores = None if verdict is None else records.scores_in_turn(verdict, evidence)
        risk = None if scores is None else records.risk(scores, member)
        if risk is None:
            unknown.append(name)
            continue
        models, interval = risk.models, risk.interval
        values = (models[1], risk.risk, *interval.T, models[0], risk.false_alarms)
        columns |= dict(zip(RISK, values))
    if unknown:
        say(
            f"records: no risk for {', '.join(unknown)}: no shadow model plays the victim there, "
            f"only classes are seen, or the scores do not tell a FPR of {100 * records.RISK_FPR:g} %"
        )


def _as_csv(tables) -> bytes:
    """A head, and a row for each record of each table; cells are empty where one lacks a column."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    for columns in tables:
        empty = [""] * len(columns["record"])
        out.writerows(
            zip(*(map(_cell, columns[name]) if name in columns else empty for name in COLUMNS))
        )
    return text.getvalue().encode()


def _cell(value) -> str:
    """A value as it is read back: decisions are 1 and 0, numbers have all digits."""
    if isinstance(value, np.bool_):
        return str(int(value))
    return repr(float(value)) if isinstance(value, np.floating) else str(value)

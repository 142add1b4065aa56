"""The tables that mia.py prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from attackers import ATTACKS, VERDICTS, ties
from bench.attack_lines import name_with_releases
from bench.attack_log import AttackLog
from bench.checkpoints import read_manifest
from bench.guesses import GUESSES, knowledge_in_words
from bench.layout import ModelSet
from bench.matchup import Matchup
from bench.options import OPTIONS, Options
from bench.sizes import size_rows
from core.console import UserError, percent, say, table

_TITLES = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "tpr_at_0.1": "TPR at FPR 10 %",
    "tpr_at_0.01": "at 1 %",
    "tpr_at_0.001": "at 0.1 %",
}


def measures_table(folder: Path, lines: list[dict], caveat: str = "") -> None:
    """Every measure of the attacks on one victim, with its interval and what that leaves out;
    `caveat` is said of its privacy. Below, what few scores or settings it rests on."""
    members, others = lines[0]["members"], lines[0]["non_members"]
    knowledge = knowledge_in_words(lines[0])
    _table_of_measures(
        f"attacks on {folder}{f', {knowledge}' if knowledge else ''}"
        f"{f' ({caveat})' if caveat else ''}\n"
        f"{members} members, {others} non-members; percent [95 % interval]\n"
        f"intervals cover the choice of the target records, not the randomness of training",
        lines,
    )
    for line in lines:
        sample = line["members"], line["non_members"]
        if sample != (members, others):
            say(
                f"{line['attack']}: measured on a sample of the targets, {sample[0]} members and "
                f"{sample[1]} non-members"
            )
        remark = ties.remark(line)
        if remark:
            say(f"{line['attack']}: {remark}{_about_fixed_settings(line)}")
        if line.get("chosen"):
            chosen = ", ".join(f"{name} {value:g}" for name, value in line["chosen"].items())
            say(f"{line['attack']}, chosen on the shadow models: {chosen}")


def standardised_table(lines: list[dict]) -> None:
    """The measures of scores as they are, and of the same standardised."""
    _table_of_measures(
        "raw scores, and standardised: held against the record's own under models without it\n"
        "percent [95 % interval]",
        lines,
    )


def _table_of_measures(title: str, lines: list[dict]) -> None:
    titles = {  # none that says nothing
        measure: title
        for measure, title in _TITLES.items()
        if any(line[measure] is not None for line in lines)
    }
    table(
        title,
        ["", *titles.values()],
        [
            [attack_name(line), *(_with_interval(line, measure) for measure in titles)]
            for line in lines
        ],
    )


def attack_name(line: dict) -> str:
    """An attack, what other releases it had, and how often it asked."""
    name = name_with_releases(line["attack"], line.get("also", ()))
    return f"{name} ({line['queries']} queries)" if line.get("queries", 1) > 1 else name


def _with_interval(line: dict, measure: str) -> str:
    if line[measure] is None:
        return "-"
    low, high = map(percent, line[f"{measure}_interval"])
    return f"{percent(line[measure])} [{low}, {high}]"


def _about_fixed_settings(line: dict) -> str:
    """Which settings of an attack somebody has fixed that it would choose by itself."""
    if line["attack"] not in VERDICTS:
        return ""
    names = ATTACKS[VERDICTS[line["attack"]]].options.get("option_names", ())
    fixed = [f"--{name}" for name in names if OPTIONS[name].default == "choose" != line[name]]
    if not fixed:
        return ""
    return f"; without {' and '.join(fixed)} the attack chooses on the shadow models"


def class_table(lines: list[dict], members: Sequence[int], others: Sequence[int]) -> None:
    """Balanced accuracy and AUC of each attack for each class, of which there are so many members
    and others."""
    rows = [
        [
            str(label),
            str(members[label]),
            str(others[label]),
            *(_both(line["class_accuracy"][label], line["class_auc"][label]) for line in lines),
        ]
        for label in range(len(members))
    ]
    header = ["class", "members", "others", *(line["attack"] for line in lines)]
    table("by class: accuracy / AUC in percent", header, rows)


def _both(accuracy: float | None, auc: float | None) -> str:
    return f"{percent(accuracy)} / {percent(auc)}"


def closing_table(options: Options) -> None:
    """What has been found so far of the victim: original, compressed, and so with this defence."""
    columns, sizes = {}, []
    for title, matchup in _matchups(options).items():
        if replace(matchup.options, also=options.also) == options:  # what is under attack
            matchup = Matchup.of(options)
        try:
            log = AttackLog(matchup, matchup.stored_digest(), matchup.stored_releases())
            lines = log.lines()
            victim = read_manifest(matchup.victim, "victim")
        except UserError as error:  # of another victim than that which was attacked
            say(f"left out of the table: {title}: {error}")
            continue
        if lines:
            columns[title] = {line["attack"]: line for line in lines}
            sizes.append(victim.size if victim else None)
    if columns:
        _show_closing_table(options, columns, sizes)


def _matchups(options: Options) -> dict[str, Matchup]:
    """The columns of the closing table."""
    defended = replace(options, original=False, adaptive=False)
    plain = replace(defended.undefended.without_guess, also=())
    matchups = {"original": Matchup.of(replace(plain.unquantized, original=True))}
    prunes = ModelSet(plain).is_pruned
    if prunes:
        matchups["pruned"] = Matchup.of(plain.unquantized)
    compressed = " ".join(["pruned"] * prunes + ([plain.quantizer] if plain.quantizer else []))
    matchups[compressed] = Matchup.of(plain)
    if options.defend:
        scratch = " scratch" if options.from_scratch else ""
        kind = f"{compressed} " if options.quantizer else ""
        name = f"{kind}{options.defend} {options.defend_arg:g}{scratch}"
        knowing = defended.without_guess
        matchups[name] = Matchup.of(knowing)
        matchups[f"{name}, adaptive"] = Matchup.of(replace(knowing, adaptive=True))
    if options.guess:
        title = list(matchups)[-1 if options.adaptive or not options.defend else -2]
        guess = {name: getattr(options, name) for name in GUESSES}
        matchups[f"{title}, {knowledge_in_words(guess)}"] = Matchup.of(options)
    return matchups


def _show_closing_table(
    options: Options, columns: Mapping[str, dict[str, dict]], sizes: Sequence[dict | None]
) -> None:
    rows = []
    for part in ("train", "test"):
        of_victims = (next(iter(lines.values()))[f"{part}_accuracy"] for lines in columns.values())
        rows.append([f"victim, {part} accuracy", *map(percent, of_victims)])
    if any(sizes):  # models from before these were counted have none
        rows += [[f"victim, {title}", *cells] for title, *cells in size_rows(sizes)]
    for attack in VERDICTS:
        if any(attack in lines for lines in columns.values()):
            of_attack = [lines.get(attack) for lines in columns.values()]
            names = {attack_name(line): None for line in of_attack if line}
            rows.append([" / ".join(names), *map(_cell, of_attack)])
    models = ModelSet(options).undefended
    version = "" if list(columns) == ["original"] else f", {models.version}"
    share = knowledge_in_words({"attacker_records": options.attacker_records})
    table(
        f"{models.root}{version}, {options.shadow_num} shadow models"
        f"{f' with {share}' if share else ''}\n"
        f"attack accuracy / AUC in percent (50 = guessing)",
        ["", *columns],
        rows,
    )


def _cell(line: dict | None) -> str:
    return "-" if line is None else _both(line["accuracy"], line["auc"])

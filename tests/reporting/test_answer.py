"""The answer that a page opens with: by hand on small tables, and on real results."""

import pandas as pd
import pytest
from report_helpers import rows, tables, trained

from attackers import ATTACKS, VERDICTS, part_of_all
from defenders import DEFENDERS
from pruner import PRUNERS
from reporting.answer import answer
from reporting.findings import findings, original_of
from reporting.neighbours import neighbour_table
from reporting.summary import label_configurations, network_accuracies, summarise
from reporting.tables import change_table
from reporting.untested import untested

ORIGINAL = {
    "original": True,
    "pruner_name": None,
    "prune_sparsity": float("nan"),
    "test_accuracy": 0.60,
}
PPB = {"defend": "ppb", "defend_arg": 4.0, "test_accuracy": 0.55}
ADV = {"defend": "adv", "defend_arg": 1.0, "test_accuracy": 0.40}


def seeds(attack, *values):
    """(attack, seed, accuracy) of seeds 7, 8, ..."""
    return [(attack, seed, value) for seed, value in enumerate(values, 7)]


def found_of(*parts):
    table = pd.concat(parts, ignore_index=True)
    named = label_configurations(table)[0]
    return named, findings(named, summarise(named), network_accuracies(named))


def answer_of(*parts):
    named, found = found_of(*parts)
    return answer("d, m", found, untested(named, named))


def texts(made, heading):
    (point,) = [point for point in made.points if heading in point.heading]
    return point.texts


def cells(made):
    """{victim: {head: (text, under)}}."""
    return {
        row[0].text: {
            name: (cell.text, cell.under) for name, cell in zip(made.table.header[1:], row[1:])
        }
        for row in made.table.rows
    }


@pytest.fixture
def grid():
    """Three seeds: original, pruned, and pruned with ppb (adaptive too) and adv (not adaptive)."""
    return [
        rows(*seeds("conf", 0.80, 0.70, 0.75), *seeds("lira", 0.78, 0.74, 0.76), **ORIGINAL),
        rows(*seeds("conf", 0.86, 0.79, 0.84), *seeds("lira", 0.80, 0.80, 0.80)),
        rows(*seeds("conf", 0.60, 0.60, 0.60), *seeds("lira", 0.62, 0.63, 0.64), **PPB),
        rows(*seeds("conf", 0.70, 0.64, 0.69), **PPB, adaptive=True),
        rows(*seeds("conf", 0.55, 0.50, 0.54), *seeds("lira", 0.50, 0.50, 0.50), **ADV),
    ]


def test_an_attack_on_a_sample_of_the_targets_is_not_the_strongest_beside_others(grid):
    sample = rows(*seeds("boundary", 0.99, 0.99, 0.99), **ORIGINAL).assign(members=5)
    table = cells(answer_of(*grid, sample))
    assert table["original"]["strongest attack"] == ("lira", "3 seeds")
    assert cells(answer_of(sample))["original"]["strongest attack"] == ("boundary", "3 seeds")


def test_the_strongest_attack_on_each_network_is_named_with_its_numbers(grid):
    rate = rows(*seeds("conf", 0.1, 0.2, 0.3), measure="tpr_at_0.01", low=0.05, high=0.25)
    made = answer_of(*grid, rate)
    table = cells(made)
    assert {victim: row["strongest attack"] for victim, row in table.items()} == {
        "original": ("lira", "3 seeds"),  # .76 against .75
        "l1unstructure 70 %": ("conf", "3 seeds"),
        "l1unstructure 70 %, adv 1": ("conf", "3 seeds"),
        "l1unstructure 70 %, ppb 4": ("conf, adaptive", "3 seeds"),
    }
    plain = table["l1unstructure 70 %"]
    assert plain["its accuracy"] == ("83.0", "± 3.6; [40.0, 90.0]")
    assert plain["its TPR at FPR 1 %"] == ("20.0", "± 10.0; [5.0, 25.0]")
    assert table["original"]["its TPR at FPR 1 %"] == ("", "")
    original, plain_words, defended = texts(made, "strongest")
    assert original == "On the original: lira, accuracy 76.0 % [40.0, 90.0]."
    assert plain_words == (
        "Compressed, no defence: conf (on 1 of 1), accuracy 83.0 % (l1unstructure 70 %)."
    )
    assert defended == (
        "With a defence: conf (on 1 of 2); conf, adaptive (on 1 of 2), accuracy 53.0 % "
        "(l1unstructure 70 %, adv 1) to 67.7 % (l1unstructure 70 %, ppb 4)."
    )
    assert "optimistic for the attacker" in made.table.caption


def test_what_compression_changed_is_paired_over_seeds(grid):
    """conf: .06 .09 .09, mean .08, sd .0173, t .0430; conf - lira: .08 .05 .08, mean .07, t .0430."""
    made = answer_of(*grid)
    plain = cells(made)["l1unstructure 70 %"]
    assert plain["change, this attack"] == ("+8.0", "[+3.7, +12.3]")
    assert plain["change, strongest"] == ("+7.0", "[+2.7, +11.3]; conf minus lira")
    higher, equal, each = texts(made, "compression")
    assert higher == "Higher: l1unstructure 70 % +7.0 [+2.7, +11.3]."
    assert equal.endswith(": l1unstructure 70 %; the mean of their changes: +7.0 [+2.7, +11.3].")
    # lira: .02 .06 .04, mean .04, t .0497
    assert each.startswith("Each attack against itself, 2 comparisons: 1 higher and 0 lower")
    (point,) = [point for point in made.points if "compression" in point.heading]
    assert "paired over 3 seeds" in point.lead


def test_what_compression_changed_at_equal_test_accuracy_is_worked_out_by_hand():
    """Of conf on two networks -.02 .00 -.01 and .02 .02 .05, of which the mean is .00 .01 .02; the
    third loses more than a point."""
    original = rows(*seeds("conf", 0.80, 0.70, 0.75), **ORIGINAL)
    made = answer_of(
        original,
        rows(*seeds("conf", 0.78, 0.70, 0.74), test_accuracy=0.591),
        rows(*seeds("conf", 0.82, 0.72, 0.80), quantizer="int8", test_accuracy=0.609),
        rows(*seeds("conf", 0.60, 0.60, 0.60), prune_sparsity=0.9, test_accuracy=0.589),
    )
    (text,) = [text for text in texts(made, "compression") if text.startswith("As accurate")]
    assert text == (
        "As accurate on test records as the original, within 1 point on average and 2 in every "
        "split: l1unstructure 70 %; l1unstructure 70 %, int8; the mean of their changes: +1.0 "
        "[-1.5, +3.5]."
    )
    assert cells(made)["l1unstructure 90 %"]["change, test accuracy"] == ("-1.1", "[-1.1, -1.1]")


@pytest.mark.parametrize(
    "other",
    [
        rows(*seeds("conf", 0.9)),  # of one seed
        rows(*seeds("conf", 0.9, 0.9, 0.9), bits_per_weight=32.0),  # saves nothing
        pd.concat(  # as accurate on average alone
            [
                rows(("conf", seed, 0.9), test_accuracy=0.6 + part)
                for seed, part in ((7, 0.1), (8, -0.1), (9, 0.0))
            ]
        ),
    ],
    ids=["fewer seeds", "nothing saved", "splits apart"],
)
def test_what_cannot_be_compared_at_equal_accuracy_changes_nothing(other):
    original = rows(*seeds("conf", 0.80, 0.70, 0.75), **ORIGINAL)
    one = rows(*seeds("conf", 0.82, 0.72, 0.80), quantizer="int8")
    alone, both = (
        [text for text in texts(answer_of(*parts), "compression") if text.startswith("As accur")]
        for parts in ((original, one), (original, one, other))
    )
    assert alone == both and "int8; the mean of their changes: +3.0 [-1.3, +7.3]." in alone[0]


def test_networks_stand_beside_those_that_differ_in_one_thing():
    """conf by hand: .80 .70 of 5 rounds, .78 .66 of one: .02 .04; at random .70 .60 in rounds; int8
    .81 .74 beside float .80 .70; alone (nothing saved) .90 .85 in rounds."""
    rounds = {"prune_iterations": 5.0, "bits_per_weight": 10.0}
    once = {"prune_iterations": 1.0, "bits_per_weight": 10.0}
    parts = [
        rows(*seeds("conf", 0.80, 0.70), **rounds, test_accuracy=0.61),
        rows(*seeds("conf", 0.78, 0.66), **once),
        rows(*seeds("conf", 0.70, 0.60), **rounds, pruner_name="random"),
        rows(*seeds("conf", 0.81, 0.74), **rounds, quantizer="int8"),
        rows(
            *seeds("conf", 0.90, 0.85),
            **rounds | {"bits_per_weight": 32.0},
            pruner_name="random",
            prune_sparsity=0.001,
        ),
        rows(*seeds("conf", 0.1, 0.1), **rounds, **PPB),
    ]
    named = label_configurations(pd.concat(parts, ignore_index=True))[0]
    made = neighbour_table(named, network_accuracies(named))
    found = {
        row[0].text: {
            name.removeprefix("minus "): cell.text
            for name, cell in zip(made.header[1:], row[1:])
            if cell.text
        }
        for row in made.rows
    }
    assert found == {
        "l1unstructure 70 % in 5 rounds": {
            "one-shot": "+3.0",
            "pruned at random": "+10.0",
            "fine-tuning alone": "-12.5",
        },
        "random 70 % in 5 rounds": {"fine-tuning alone": "-22.5"},
        "l1unstructure 70 % in 5 rounds, int8": {"float weights": "+2.5"},
    }
    (row,) = [row for row in made.rows if row[0].text == "l1unstructure 70 % in 5 rounds"]
    assert row[made.header.index("minus one-shot")].under == (
        "[-9.7, +15.7]; test +1.0 [+1.0, +1.0]"
    )
    alone = label_configurations(rows(*seeds("conf", 0.8)))[0]
    assert neighbour_table(alone, network_accuracies(alone)) is None


def test_who_holds_several_releases_is_another_attacker_than_who_holds_one(grid):
    more = rows(*seeds("lira_joint", 0.99, 0.99, 0.99), also="original,int8")
    alone, both = answer_of(*grid), answer_of(*grid, more)
    assert alone.table == both.table and alone.points[:3] == both.points[:3]
    named = label_configurations(pd.concat([*grid, more], ignore_index=True))[0]
    assert "lira_joint + original + int8" in set(named["attack"])
    assert "original,int8" in set(summarise(named)["also"])


def test_of_many_networks_the_ends_are_named():
    original = rows(*seeds("conf", 0.7, 0.8), **ORIGINAL)
    others = [
        rows(*seeds("conf", 0.7 + place / 100, 0.8 + place / 100), prune_sparsity=place / 10)
        for place in range(1, 10)
    ]
    higher, equal, _ = texts(answer_of(original, *others), "compression")
    assert higher == (
        "Higher: 9 networks, +1.0 [+1.0, +1.0] (l1unstructure 10 %) to +9.0 [+9.0, +9.0] "
        "(l1unstructure 90 %)."
    )
    assert ": 9 networks; the mean of their changes: +5.0 [+5.0, +5.0]." in equal


def test_the_reference_of_a_defence_is_compressed_alike():
    """In as many rounds, and by the same quantiser or by none."""
    recipes = [
        {"prune_iterations": 1.0},
        {"prune_iterations": 5.0},
        {"prune_iterations": 1.0, "quantizer": "int8"},
        {"pruner_name": None, "prune_sparsity": float("nan"), "quantizer": "int8"},
    ]
    parts = [rows(("conf", 7, 0.8), **ORIGINAL)]
    for recipe in recipes:
        parts += [rows(("conf", 7, 0.7), **recipe), rows(("conf", 7, 0.6), **recipe, **PPB)]
    found = found_of(*parts)[1]
    undefended = {each.network.model: each.cost.undefended for each in found if each.cost}
    assert undefended == {
        f"{name}, ppb 4": name
        for name in (
            "l1unstructure 70 %",
            "l1unstructure 70 % in 5 rounds",
            "l1unstructure 70 %, int8",
            "int8",
        )
    }


def test_which_defence_costs_least_is_worked_out_by_hand(grid):
    """Strongest without 83.0. ppb: adaptive conf, .16 .15 .15 taken, .05 lost: 0.3 for each point;
    adv: conf, .31 .29 .30 taken, .20 lost: 0.7."""
    made = answer_of(*grid)
    table = cells(made)
    ppb, adv = table["l1unstructure 70 %, ppb 4"], table["l1unstructure 70 %, adv 1"]
    assert ppb["attack accuracy taken"] == ("+15.3", "[+13.9, +16.8]")
    assert ppb["test accuracy lost"][0] == "+5.0" and ppb["lost for each point"] == ("0.3", "")
    assert adv["attack accuracy taken"] == ("+30.0", "[+27.5, +32.5]; no adaptive attack")
    assert adv["lost for each point"] == ("0.7", "")
    assert texts(made, "defence") == [
        (
            "Against l1unstructure 70 %: l1unstructure 70 %, ppb 4, 0.3 for each point (5.0 "
            "[+5.0, +5.0] lost for 15.3 [+13.9, +16.8] taken)."
        )
    ]
    (point,) = [point for point in made.points if "defence" in point.heading]
    assert "fewest points of test accuracy lost for each point taken" in point.lead


def test_a_defence_that_takes_nothing_beyond_its_interval_is_none():
    plain = rows(*seeds("conf", 0.7, 0.6, 0.8))
    made = answer_of(plain, rows(*seeds("conf", 0.5, 0.7, 0.75), **PPB))
    assert texts(made, "defence") == [
        "Against l1unstructure 70 %: none takes anything away beyond its interval."
    ]
    assert cells(made)["l1unstructure 70 %, ppb 4"]["lost for each point"] == ("-", "")


def test_one_seed_has_no_interval():
    made = answer_of(
        rows(("conf", 7, 0.7), **ORIGINAL), rows(("conf", 7, 0.8)), rows(("conf", 7, 0.6), **PPB)
    )
    change, equal = texts(made, "compression")
    assert change == "Cannot be judged: l1unstructure 70 % +10.0 (one seed: no interval)."
    assert equal.endswith("the mean of their changes: +10.0 (one seed: no interval).")
    assert texts(made, "defence") == [
        "Against l1unstructure 70 %: cannot be told (one seed: no interval)."
    ]
    assert cells(made)["l1unstructure 70 %"]["change, strongest"][1] == "(one seed: no interval)"
    assert any("there is seed 7 only" in text for text in texts(made, "not tested"))


def test_trainings_of_one_split_are_no_seeds():
    values = [("conf", 7, training, 0.7 + training / 100) for training in range(3)]
    made = answer_of(trained(*values, **ORIGINAL), trained(*values))
    plain = cells(made)["l1unstructure 70 %"]
    assert plain["strongest attack"] == ("conf", "1 seed, 3 trainings")
    assert plain["its accuracy"][1] == "± 1.0 over 3 trainings; [40.0, 90.0]"
    assert plain["change, this attack"] == ("+0.0", "(one seed: no interval)")


def test_without_an_original_or_a_defence_nothing_is_said_of_them(grid):
    made = answer_of(*grid[1:2])
    assert texts(made, "compression") == ["Not known: the original was not attacked."]
    assert texts(made, "defence") == ["Not known: no defence was tested."]
    assert made.table.header[-1] == "its TPR at FPR 1 %"
    made = answer_of(grid[0])
    assert texts(made, "compression") == ["Not known: no compressed network without a defence."]


def test_an_original_of_another_recipe_is_no_reference(grid):
    original, pruned = grid[0].assign(lr=0.1), grid[1].assign(lr=0.01)
    named, found = found_of(original, pruned)
    assert [finding.original for finding in found] == [None, None]
    assert original_of(named, network_accuracies(named)) == {}
    made = answer("d, m", found, [])
    assert texts(made, "compression") == [
        "Not known: no original trained alike was attacked in the same way."
    ]


def test_a_defences_own_options_do_not_make_another_recipe(grid):
    private = rows(*seeds("conf", 0.55, 0.50, 0.54), defend="dp", defend_arg=1.0, dp_lr=2.0)
    named, found = found_of(grid[0].assign(dp_lr=1.0), grid[1].assign(dp_lr=1.0), private)
    assert found[-1].cost is not None and found[-1].original is not None


def test_attackers_with_other_numbers_of_shadow_models_are_told_apart():
    few, many = (
        [rows(*seeds("conf", *values), shadow_num=number, **ORIGINAL), rows(*seeds("conf", *more))]
        for number, values, more in ((2, (0.6, 0.6), (0.6, 0.6)), (5, (0.7, 0.7), (0.7, 0.8)))
    )
    few[1] = few[1].assign(shadow_num=2)
    made = answer_of(*few, *many)
    assert cells(made)["original"]["strongest attack"][0] == "conf"  # both are 5, so it goes unsaid
    pruned = rows(*seeds("gap", 0.9, 0.9), shadow_num=2)
    made = answer_of(*few, *many, pruned)
    assert cells(made)["original"]["strongest attack"][0] == "conf, 5 shadow models"


# ---- what was not tested


def test_attacks_that_were_not_made_are_named_with_the_victims(grid):
    possible = [
        verdict
        for verdict, name in VERDICTS.items()
        if part_of_all(name) and "releases" not in ATTACKS[name].options
    ]
    missing = ", ".join(verdict for verdict in possible if verdict not in ("conf", "lira"))
    made = texts(answer_of(*grid[:3]), "not tested")
    assert made[0] == f"Attacks not made on any victim: {missing}."
    made = answer_of(rows(("conf", 7, 0.6), ("gap", 7, 0.6)), rows(("conf", 7, 0.6), **ORIGINAL))
    named = [text for text in texts(made, "not tested") if "Attacks not made" in text]
    assert "Attacks not made on original" in named[0] and "gap" in named[0]
    assert "Attacks not made on l1unstructure 70 %" in named[1] and "gap" not in named[1]


def test_attackers_with_other_releases_are_told_apart():
    held = [
        rows(("lira_joint", 7, 0.6), ("nn_joint", 7, 0.6), also="original"),
        rows(("lira_joint", 7, 0.6), ("lira_joint", 8, 0.6), also="original,int8"),
    ]
    said = texts(answer_of(rows(*seeds("conf", 0.6, 0.6)), *held), "not tested")
    (missing,) = [text for text in said if "Attacks not made" in text]
    assert "lira_joint" not in missing and "nn_joint + original + int8" in missing
    assert "nn_joint + original," not in missing
    assert "compleak_sr + original, compleak_sr + original + int8" in missing
    assert "Seed 8: lira_joint + original, nn_joint + original not on every victim" in " ".join(
        said
    )
    # of a victim of which nobody held more, the attack as such
    other = rows(*seeds("conf", 0.6, 0.6), **ORIGINAL)
    said = texts(answer_of(rows(*seeds("conf", 0.6, 0.6)), *held, other), "not tested")
    (missing,) = [text for text in said if "Attacks not made on original" in text]
    assert ", lira_joint, " in missing and "lira_joint +" not in missing


def test_attacks_that_cannot_be_made_are_not_missed():
    (text,) = [
        text
        for text in texts(answer_of(rows(("conf", 7, 0.6), shadow_num=2)), "not tested")
        if "Attacks not made" in text
    ]
    assert "lira" not in text and "rmia" not in text and "samia" in text  # these need three


def test_many_victims_are_counted():
    made = answer_of(
        *(rows(("conf", 7, 0.6), prune_sparsity=at / 10) for at in range(2, 8)),
        rows(("conf", 7, 0.6), ("gap", 7, 0.6), prune_sparsity=0.9),
    )
    assert any("not made on 6 of 7 victims" in text for text in texts(made, "not tested"))


def test_defences_without_an_adaptive_attack_pruners_seeds_and_splits_are_named(grid):
    rest = [part[part["seed"] != 9] if number == 4 else part for number, part in enumerate(grid)]
    said = " ".join(texts(answer_of(*rest), "not tested"))
    assert "An attacker who knows the defence: not on l1unstructure 70 %, adv 1." in said
    others = [name for name in DEFENDERS if name not in ("", "ppb", "adv")]
    assert f"Other defences: {', '.join(others)}." in said
    assert "Other sparsities than 70 %." in said and "Another split: the in/out split." in said
    assert "Seed 9: conf, lira not on every victim" in said
    images = rows(("conf", 7, 0.6), model_name="resnet18")
    said = " ".join(texts(answer_of(images), "not tested"))
    others = [name for name in PRUNERS if name != "l1unstructure"]
    assert f"Other pruners: {', '.join(others)}." in said
    assert "The original: not attacked." in said
    tables_only = " ".join(texts(answer_of(rows(("conf", 7, 0.6), model_name="columnfc")), "not"))
    of_weights = [name for name in others if PRUNERS[name].options["layer"] == "Linear"]
    assert f"Other pruners: {', '.join(of_weights)}." in tables_only  # not those of convolutions


def test_a_split_that_another_section_has_is_not_missed(grid):
    both = pd.concat([grid[1], grid[1].assign(split="inout")], ignore_index=True)
    named = label_configurations(both)[0]
    paper = named[named["split"] == "paper"]
    assert not any("Another split" in text for text in untested(paper, named))


# ---- in the tables


def test_the_change_of_each_attack_is_a_table(grid):
    named = label_configurations(pd.concat(grid, ignore_index=True))[0]
    table = change_table(named, original_of(named, network_accuracies(named)))
    assert table.header == ["victim", "seeds", "conf", "lira"]
    by_victim = {row[0].text: row[2:] for row in table.rows}
    assert len(by_victim) == 4 and "original" not in by_victim
    conf, lira = by_victim["l1unstructure 70 %"]
    assert (conf.text, conf.under, conf.best) == ("+8.0", "[+3.7, +12.3]", True)
    assert (lira.text, lira.under, lira.best) == ("+4.0", "[-1.0, +9.0]", False)
    adaptive = by_victim["l1unstructure 70 %, ppb 4, adaptive attack"]
    assert (adaptive[0].text, adaptive[1].text) == ("-7.3", "")


def test_the_page_and_its_markdown_open_with_the_answer(written):
    page, markdown = (written / "report.html").read_text(), (written / "report.md").read_text()
    for text in (page, markdown):
        order = [
            text.index(words)
            for words in (
                "Which attack is strongest",
                "What compression changed",
                "Which defence costs least",
                "What was not tested",
                "The strongest attack on each network",
                "Confidence by class",  # a figure
                "Accuracy of the victims",
            )
        ]
        assert order == sorted(order)
    head, *body = tables(page)["The strongest attack on each network"]
    assert [" ".join(row[0][0]) for row in body] == [
        "original",
        "l1unstructure 50 %",
        "l1unstructure 70 %",
        "l1unstructure 70 %, dp 0.1 from scratch",
        "l1unstructure 70 %, ppb 4",
    ]
    for row in body:
        (line,) = [
            line
            for line in markdown.splitlines()
            if line.startswith(f"| {' '.join(row[0][0])} |")
            and line.count("|") == len(head) + 1
            and " seeds |" in line
        ]
        assert all(" ".join(text) in line for text, _ in row)

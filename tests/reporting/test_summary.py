"""Means over seeds, names of configurations, and tables of them."""

import csv
import io
import statistics
import time

import numpy as np
import pandas as pd
import pytest
from report_helpers import rows, trained

from attackers import VERDICTS
from quantizer.compression_size import CompressionSize
from reporting.summary import (
    csv_text,
    headline_victims,
    label_configurations,
    network_accuracies,
    pareto,
    summarise,
)
from reporting.tables import accuracy_table, measure_table, size_table
from reporting.wording import count


def test_means_and_deviations_worked_by_hand():
    table = rows(
        ("conf", 7, 0.5),
        ("conf", 8, 0.6),
        ("conf", 9, 0.7),
        ("samia", 7, 0.65),
        ("gap", 7, 0.5),
        ("gap", 8, 0.52),
    )
    found = summarise(label_configurations(table)[0]).set_index("attack")
    assert found.loc["conf", ["mean", "sd", "seeds"]].tolist() == pytest.approx([0.6, 0.1, 3])
    assert found.loc["gap", "sd"] == pytest.approx(statistics.stdev([0.5, 0.52]))
    assert found.loc["samia", "seeds"] == 1 and np.isnan(found.loc["samia", "sd"])
    assert found["best"].to_dict() == {"samia": True, "conf": False, "gap": False}
    row = measure_table(found.reset_index(), "accuracy").rows[0]
    assert [(cell.text, cell.under, cell.best) for cell in row] == [
        ("l1unstructure 70 %", "", False),
        ("3", "", False),
        ("65.0", "(n = 1); [40.0, 90.0]", True),
        ("60.0", "± 10.0", False),
        ("51.0", "± 1.4 (n = 2)", False),
    ]


def test_the_spread_over_trainings_of_a_split_stands_apart_from_that_over_splits():
    """Seed 7: .50 .54 .58, mean .54; seed 8: .70 .72, mean .71: between them .12, within them
    the root of (.0032 + .0002) / 3."""
    table = trained(
        ("conf", 7, 7, 0.50),
        ("conf", 7, 1, 0.54),
        ("conf", 7, 2, 0.58),
        ("conf", 8, 8, 0.70),
        ("conf", 8, 1, 0.72),
    )
    named, doubles = label_configurations(table)
    found = summarise(named)
    assert not doubles and len(found) == 1
    expected = [0.625, statistics.stdev([0.54, 0.71]), 2, (0.0034 / 3) ** 0.5, 5]
    assert found.loc[
        0, ["mean", "sd", "seeds", "training_sd", "trainings"]
    ].tolist() == pytest.approx(expected)
    shown = measure_table(found, "accuracy")
    assert shown.rows[0][2].under == "± 12.0; ± 3.4 over 5 trainings"
    assert "over trainings of one split" in shown.caption and "95 %" not in shown.caption
    assert "2 seeds with 5 trainings (standard deviation over split seeds)" in count(found)


def test_the_spread_over_trainings_of_one_split_stands_beside_the_interval():
    table = pd.concat(
        [
            trained(
                ("conf", 7, seed, value),
                low=value - 0.1,
                high=value + 0.2,
                train_accuracy=value + 0.3,
            )
            for seed, value in ((7, 0.50), (1, 0.54), (2, 0.58))
        ],
        ignore_index=True,
    )
    named = label_configurations(table)[0]
    found = summarise(named)
    assert np.isnan(found.loc[0, "sd"])
    shown = measure_table(found, "accuracy")
    assert (shown.rows[0][1].text, shown.rows[0][2].under) == (
        "1",
        "[44.0, 74.0]; ± 4.0 over 3 trainings",
    )
    assert "not the randomness of training" in shown.caption and "--train_seed" in shown.caption
    accuracies = accuracy_table(network_accuracies(named))
    assert (accuracies.rows[0][2].text, accuracies.rows[0][2].under) == (
        "84.0",
        "± 4.0 over 3 trainings",
    )
    assert "1 seed with 3 trainings (standard deviation over trainings)" in count(found)


def test_the_best_is_that_of_the_highest_mean_and_there_may_be_two():
    table = rows(("conf", 7, 0.6), ("gap", 7, 0.6), ("xent", 7, 0.4))
    found = summarise(label_configurations(table)[0])
    assert set(found.loc[found["best"], "attack"]) == {"conf", "gap"}


def test_the_best_is_so_on_the_seeds_that_all_attacks_share():
    found = summarise(
        label_configurations(
            rows(
                ("conf", 7, 0.85),
                ("conf", 8, 0.7),
                ("conf", 9, 0.7),
                ("samia", 7, 0.8),
                ("gap", 8, 0.9),
                ("gap", 7, 0.6),
            )
        )[0]
    )
    assert found.set_index("attack")["best"].to_dict() == {
        "conf": True,
        "samia": False,
        "gap": False,
    }
    none = summarise(
        label_configurations(rows(("conf", 7, 0.6), ("conf", 9, 0.6), ("gap", 8, 0.7)))[0]
    )
    assert none.set_index("attack")["best"].to_dict() == {
        "conf": False,
        "gap": True,
    }  # no seed in common


def test_victims_that_differ_in_delta_are_two():
    both = pd.concat(
        [
            rows(("conf", 7, 0.6), delta_option=delta, defend="dp", defend_arg=1.0)
            for delta in (1e-4, 1e-5)
        ],
        ignore_index=True,
    )
    named, doubles = label_configurations(both)
    assert named["model"].nunique() == 2 and not doubles


def test_a_training_option_that_differs_is_in_all_names():
    """Else a curve over sparsity would join victims of two recipes."""
    both = pd.concat(
        [
            rows(("conf", 7, 0.6), epochs=epochs, prune_sparsity=at)
            for at, epochs in ((0.5, 5), (0.7, 9))
        ],
        ignore_index=True,
    )
    assert label_configurations(both)[0]["model"].tolist() == [
        "l1unstructure 50 % (epochs 5)",
        "l1unstructure 70 % (epochs 9)",
    ]


def test_the_original_beside_a_pruned_victim_is_of_its_recipe():
    table = pd.concat(
        [
            rows(
                ("conf", 7, 0.6),
                lr=lr,
                original=original,
                **({"prune_sparsity": float("nan")} if original else {}),
            )
            for lr in (0.01, 0.001)
            for original in (True, False)
        ],
        ignore_index=True,
    )
    named = label_configurations(table)[0]
    victims = headline_victims(summarise(named))
    first = named.drop_duplicates("victim").set_index("victim").loc[victims]
    assert first["original"].tolist() == [True, False]
    assert first["lr"].nunique() == 1 and first["trained_with"].unique().tolist() == [
        f" (lr {first['lr'].iloc[0]})"
    ]


def test_configurations_that_differ_are_not_averaged():
    table = pd.concat(
        [
            rows(("conf", 7, 0.5), epochs=5),
            rows(("conf", 8, 0.7), epochs=50),
            rows(("rmia", 7, 0.5), epochs=5, rmia_gamma=2.0),
            rows(("rmia", 7, 0.6), epochs=5, rmia_gamma=3.0),
        ]
    )
    found = summarise(label_configurations(table)[0])
    assert set(zip(found["victim"], found["attack"])) == {
        ("l1unstructure 70 % (epochs 5)", "conf"),
        ("l1unstructure 70 % (epochs 50)", "conf"),
        ("l1unstructure 70 % (epochs 5)", "rmia (rmia_gamma 2.0)"),
        ("l1unstructure 70 % (epochs 5)", "rmia (rmia_gamma 3.0)"),
    }
    assert (found["seeds"] == 1).all()


def test_quantised_networks_have_names_of_their_own_and_epochs_of_theirs_where_these_differ():
    alone = {"pruner_name": None, "prune_sparsity": float("nan"), "quantizer": "int8"}
    table = pd.concat(
        [
            rows(("conf", 7, 0.5), **alone, quantize_epochs=0, pruned=False),
            rows(("conf", 7, 0.6), **alone, quantize_epochs=25, pruned=False),
            rows(("conf", 7, 0.7), quantizer="int8", quantize_epochs=25, pruned=True),
            rows(("conf", 7, 0.7), prune_epochs=25, pruned=None),
        ]
    )
    found = label_configurations(table)[0]
    assert set(found["victim"]) == {
        "int8 (quantize_epochs 0)",
        "int8 (quantize_epochs 25)",
        "l1unstructure 70 %, int8",
        "l1unstructure 70 %",
    }
    assert found["recipe"].nunique() == 1


def test_what_networks_take_is_a_table_and_in_the_csv():
    size = CompressionSize(
        weights=1000,
        nonzero=300,
        bits_per_weight=10.6,
        dense_bytes=4000,
        compressed_bytes=1325,
        multiply_adds=1234567,
        nonzero_multiply_adds=370370,
    )
    table = pd.concat(
        [
            rows(("conf", 7, 0.5), ("conf", 8, 0.5), **vars(size)),
            rows(("conf", 7, 0.5), prune_sparsity=0.5),  # from before there were sizes
        ]
    )
    named = label_configurations(table)[0]
    accuracies = network_accuracies(named)
    made = size_table(accuracies)
    cells = {row[0].text: [cell.text for cell in row[1:]] for row in made.rows}
    assert cells == {
        "l1unstructure 50 %": ["-"] * 6 + ["60.0"],
        "l1unstructure 70 %": ["30.0", "10.60", "4.0", "1.3", "1,234.6", "370.4", "60.0"],
    }
    assert size_table(accuracies[accuracies["weights"].isna()]) is None
    lines = list(csv.DictReader(io.StringIO(csv_text(summarise(named), accuracies))))
    said = {line["measure"]: float(line["mean"]) for line in lines if line["measure"] in vars(size)}
    assert said == vars(size)


def test_numbers_of_shadow_models_are_told_apart():
    table = pd.concat([rows(("conf", 7, 0.5), shadow_num=n) for n in (2, 5)])
    assert set(label_configurations(table)[0]["victim"]) == {
        f"l1unstructure 70 %, {n} shadow models" for n in (2, 5)
    }
    assert len(network_accuracies(label_configurations(table)[0])) == 1  # it is the same victim


def test_pareto_front_against_brute_force():
    draw = np.random.default_rng(0)
    for _ in range(50):
        gain, loss = draw.integers(5, size=(2, 12))  # with ties

        def beaten(i):
            return any(
                (gain[j] >= gain[i] and loss[j] < loss[i])
                or (gain[j] > gain[i] and loss[j] <= loss[i])
                for j in range(12)
            )

        assert pareto(gain, loss).tolist() == [not beaten(i) for i in range(12)]


def test_five_hundred_victims_take_seconds():
    table = pd.concat(
        [
            rows(
                *((attack, seed, 0.5) for attack in list(VERDICTS)[:15] for seed in range(5)),
                prune_sparsity=place / 101,
                test_accuracy=place / 101,
            )
            for place in range(1, 101)
        ]
    )
    start = time.process_time()
    named, _ = label_configurations(table)
    assert len(summarise(named)) == 1500 and len(network_accuracies(named)) == 100
    assert time.process_time() - start < 10

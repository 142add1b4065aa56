"""Defences beside undefended networks as accurate, worked by hand on small tables."""

import io

import pandas as pd
import pytest
from report_helpers import rows

from reporting.comparison import student_interval
from reporting.findings import findings
from reporting.summary import label_configurations, network_accuracies, summarise
from reporting.weighing import beats, weigh, weighing_figure, weighing_point, weighing_table


def network(test, *values, attack="lira", **columns):
    """Seeds 7, 8, ... of one attack on a network of this test accuracy."""
    runs = [(attack, seed, value) for seed, value in enumerate(values, 7)]
    return rows(*runs, test_accuracy=test, **columns)


def weighed_of(*networks):
    named = label_configurations(pd.concat(networks, ignore_index=True))[0]
    all_findings = findings(named, summarise(named), network_accuracies(named))
    return weigh(all_findings, named), all_findings


UNDEFENDED = (
    network(0.60, 0.80, 0.82, 0.84, prune_sparsity=0.7),
    network(0.58, 0.70, 0.72, 0.71, prune_sparsity=0.9),
    network(0.50, 0.60, 0.61, 0.62, prune_sparsity=0.95),
)
HAMP = {"defend": "hamp", "defend_arg": 0.9}


def test_a_defence_is_beside_the_most_private_network_that_is_as_accurate():
    """At 55 % the network at sparsity 0.9 counts (58 %), not that at 0.95, which is less
    accurate, and not that at 0.7, which leaks more."""
    (one,), _ = weighed_of(
        *UNDEFENDED, network(0.55, 0.65, 0.66, 0.67, **HAMP, adaptive=True, prune_sparsity=0.7)
    )
    assert one.baseline.network.prune_sparsity == 0.9
    differences = pd.Series([0.65 - 0.70, 0.66 - 0.72, 0.67 - 0.71])
    assert one.difference.mean == pytest.approx(differences.mean())
    assert (one.difference.low, one.difference.high) == pytest.approx(
        student_interval(differences.to_numpy())
    )
    assert beats(one)
    (defended, *_, beside, _, difference) = weighing_table([one]).rows[0]
    assert defended.text == "l1unstructure 70 %, hamp 0.9"
    assert beside.text == "l1unstructure 90 %"
    assert difference.text == "-5.0" and difference.best
    assert (
        weighing_point([one])
        .texts[-1]
        .startswith("Attacked less, beyond the 95 % interval: 1 of 1;")
    )


def test_the_stronger_of_two_attackers_judges_it():
    """A defence that only fools attackers who do not know it does not beat its baseline."""
    (one,), _ = weighed_of(
        *UNDEFENDED,
        network(0.58, 0.51, 0.52, 0.50, **HAMP, prune_sparsity=0.7),
        network(0.58, 0.76, 0.77, 0.77, **HAMP, adaptive=True, prune_sparsity=0.7),
    )
    assert one.defended.attacker.adaptive and not beats(one)
    assert weighing_point([one]).texts == [
        "Attacked less, beyond the 95 % interval: 0 of 1; more: 1."
    ]


def test_nothing_is_as_accurate_as_a_defence_that_gains():
    """The original is no baseline: it is not compressed."""
    original = network(0.90, 0.5, 0.5, 0.5, original=True, pruner_name=None, prune_sparsity=None)
    (one,), _ = weighed_of(*UNDEFENDED, original, network(0.61, 0.7, 0.7, 0.71, **HAMP))
    assert one.baseline is None and one.difference is None and not beats(one)
    assert "none as accurate" in [cell.text for cell in weighing_table([one]).rows[0]]
    assert weighing_table([]) is None


def test_accuracies_are_compared_over_the_seeds_of_both():
    """The same network as the undefended one, of the one seed that is the most accurate: as
    accurate, though its mean over that seed is above the other's over three."""
    undefended = pd.concat(
        [
            rows(("lira", seed, value), test_accuracy=test)
            for seed, value, test in ((7, 0.80, 0.62), (8, 0.82, 0.58), (9, 0.84, 0.57))
        ]
    )
    answers = rows(("lira", 7, 0.70), test_accuracy=0.62, **HAMP, adaptive=True)
    (one,), _ = weighed_of(undefended, answers)
    assert one.baseline is not None and one.difference.seeds == 1
    assert one.difference.mean == pytest.approx(-0.10)


def test_one_seed_tells_nothing():
    single = network(0.60, 0.80), network(0.55, 0.5, **HAMP, adaptive=True)
    (one,), _ = weighed_of(*single)
    assert not beats(one)
    assert "too few seeds" in weighing_point([one]).texts[0]


@pytest.mark.parametrize("number", [2, 3])
def test_the_figure_is_of_three_defences_or_more(number):
    from PIL import Image

    defended = [
        network(0.5 + 0.02 * i, 0.6, 0.61, 0.62, defend=name, defend_arg=1.0)
        for i, name in enumerate(("ppb", "adv", "relaxloss")[:number])
    ]
    picture = weighing_figure(*weighed_of(*UNDEFENDED, *defended))
    assert (picture is not None) == (number == 3)
    if picture:
        assert Image.open(io.BytesIO(picture.png)).width > 1000
        assert "3 seeds" in picture.caption

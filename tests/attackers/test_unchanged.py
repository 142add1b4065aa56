"""Attacks without settings to choose, pinned to recorded figures: on given posteriors they change by no digit."""

import numpy as np
import pytest
from helpers import fixed_evidence

from attackers import attack

# verdict, whether shadows know the targets: sums of the known scores and of the thresholds, targets called members
RECORDED = {
    "conf-False": (72.332165473651, 69.96823107337248, 62),
    "xent-False": (-89.69497873238852, -87.1039562709014, 49),
    "mentr-False": (-94.8452480484013, -18.729202099138437, 55),
    "top1_conf-False": (84.01205129891525, 0.7568694439967981, 53),
    "gap-False": (80.0, 0.5, 80),
    "loss-False": (-94.69617278710237, -0.44542035727153867, 62),
    "calibrated-False": (44.54260264759724, 0.0099231410787435, 85),
    "attack_p-False": (79.81666666666666, 0.625, 74),
    "lira_offline-False": (-78.25457863230231, -0.2749367373144743, 66),
    "conf-True": (72.332165473651, 86.83924297473499, 55),
    "xent-True": (-89.69497873238852, -91.57401600643321, 55),
    "mentr-True": (-94.8452480484013, -17.075005516015885, 57),
    "top1_conf-True": (84.01205129891525, 0.7451809574276962, 54),
    "gap-True": (80.0, 0.5, 80),
    "loss-True": (-94.69617278710237, -0.333838434615576, 55),
    "calibrated-True": (35.95303977934711, 0.3000469445600528, 54),
    "attack_p-True": (79.81666666666666, 0.7916666666666666, 50),
    "lira_online-True": (-8.550760576611907, 0.056162290790855884, 54),
}
MONOTONE = {"lira_offline"}  # recorded on another scale of the same order


@pytest.mark.parametrize(
    "name, online",
    [
        *[
            (name, online)
            for name in ("threshold", "gap", "loss", "calibrated", "attack_p")
            for online in (False, True)
        ],
        ("lira_offline", False),
        ("lira_online", True),
    ],
)
def test_figures_on_given_posteriors_are_those_recorded(name, online):
    for said, verdict in attack(name, fixed_evidence(online)).items():
        scores, threshold, members = RECORDED[f"{said}-{online}"]
        assert verdict.member.sum() == members
        if said not in MONOTONE:
            assert np.nansum(verdict.scores) == pytest.approx(scores, rel=1e-12)
            assert np.sum(verdict.threshold) == pytest.approx(threshold, rel=1e-12)

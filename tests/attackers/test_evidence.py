"""What an attacker has: which arrays are taken, and which are refused."""

import numpy as np
import pytest
from attack_cases import FITTING, N, S

from attackers import Evidence


def test_arrays_that_fit_are_taken():
    evidence = Evidence.from_posteriors(**FITTING, x=np.zeros((N, 2), np.float32))
    assert len(evidence.shadows) == S and not evidence.online and len(evidence.records) == N
    assert evidence.victim.posteriors()[0] == pytest.approx(FITTING["victim"])


@pytest.mark.parametrize(
    "what, wrong",
    [
        ("labels", FITTING["labels"][:-1]),
        ("labels", FITTING["labels"] - 1),
        ("labels", FITTING["labels"] + 1),
        ("labels", FITTING["labels"] + 0.5),
        ("victim", FITTING["victim"][:-1]),
        ("victim", FITTING["victim"][:, :-1]),
        ("victim", FITTING["victim"][:, 0]),
        ("shadows", FITTING["shadows"][0]),
        ("shadows", FITTING["shadows"][:, :-1]),
        ("shadows", FITTING["shadows"][:, :, :-1]),
        ("member", FITTING["member"][0]),
        ("member", FITTING["member"][:-1]),
        ("member", FITTING["member"][:, :-1]),
        ("target", FITTING["target"][:-1]),
        ("target", FITTING["target"][:, None]),
        ("labels", FITTING["labels"][:, None]),
        ("calibration_mask", FITTING["calibration_mask"][:-1]),
        ("calibration_mask", FITTING["calibration_mask"][:, :-1]),
        ("calibration_mask", FITTING["calibration_mask"][0]),
        ("x", np.zeros((N - 1, 2), np.float32)),
        ("x", np.zeros(N, np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(what, wrong):
    with pytest.raises(ValueError):
        Evidence.from_posteriors(**FITTING | {what: wrong})


def test_online_is_where_a_shadow_was_trained_on_a_target():
    member = np.zeros((S, N), bool)
    member[1, 7] = True  # of the population
    assert not Evidence.from_posteriors(**FITTING | {"member": member}).online
    member[2, 5] = True
    assert Evidence.from_posteriors(**FITTING | {"member": member}).online

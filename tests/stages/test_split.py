"""The in/out split, and what follows it."""

import numpy as np
import pytest
from helpers import MADE, lines, manifest, run
from scipy.stats import binom

import mia
import pretrain
import prune
from core.console import UserError
from datasets import split


def keep_matrix(n, shadow_num, seed=7):
    """(S, n) bool: whom each shadow has as a member; and the parts."""
    parts = split(n, seed=seed, shadow_num=shadow_num, kind="inout")
    return np.stack(
        [np.isin(np.arange(n), parts[f"shadow_{i}"].train) for i in range(shadow_num)]
    ), parts


@pytest.mark.parametrize("n", [22, 100, 101, 5010])
def test_every_record_is_in_exactly_half_of_the_shadows_and_a_tenth_in_none(n):
    keep, parts = keep_matrix(n, 8)
    dev = parts["victim"].dev
    assert len(dev) == n // 10
    inside = keep.sum(axis=0)
    assert (inside[dev] == 0).all() and (np.delete(inside, dev) == 4).all()
    for part in parts.values():
        assert np.array_equal(part.dev, dev) and abs(len(part.train) - len(part.test)) <= 1
        assert np.array_equal(
            np.sort(np.concatenate([part.train, part.dev, part.test])), np.arange(n)
        )


def test_it_follows_the_seed_and_fewer_shadows_are_the_beginning_of_more():
    of_four, of_eight = keep_matrix(500, 4)[0], keep_matrix(500, 8)[0]
    assert np.array_equal(of_four, of_eight[:4])
    assert not np.array_equal(of_eight, keep_matrix(500, 8, seed=8)[0])
    assert len({row.tobytes() for row in of_eight}) == 8


def test_what_the_shadows_have_says_nothing_of_the_victims_members():
    """Each shadow shares half of its members with the victim, and so does any vote among them."""
    n, shadow_num = 20_000, 16
    keep, parts = keep_matrix(n, shadow_num)
    pool = np.union1d(parts["victim"].train, parts["victim"].test)
    member = np.isin(pool, parts["victim"].train)
    low, high = binom.interval(1 - 1e-4, len(pool), 0.5)
    for row in keep[:, pool]:
        assert low < (row == member).sum() < high
    for first in range(0, shadow_num, 2):  # majority of every second and of the first of all pairs
        votes = keep[first::2, pool].sum(axis=0) * 2 >= len(keep[first::2])
        assert low < (votes == member).sum() < high
    for column in range(
        shadow_num
    ):  # the one that is missing from a balanced matrix would be given away by the rest
        others = np.delete(keep, column, axis=0)[:, pool].sum(axis=0)
        assert (others == shadow_num // 2 - keep[column, pool]).all()  # so it is, for a shadow
        assert (
            low < ((others == shadow_num // 2 - 1) == member).sum() < high
        )  # but not for the victim


class TestStages:
    @pytest.fixture
    def path(self, write_config):
        path = write_config(epochs=2, shadow_num=6)
        run(pretrain, path, "--split", "inout")
        return path

    def test_later_stages_follow_the_split_they_find(self, path, capsys):
        run(prune, path)
        run(mia, path, "--attacks", "lira,lira_online,lira_offline,rmia,calibrated,blindmi")
        found = {line["attack"]: line for line in lines("l1unstructure_0.7_model")}
        assert {line["split"] for line in found.values()} == {"inout"}
        assert found["lira"]["auc"] == found["lira_online"]["auc"] != found["lira_offline"]["auc"]
        assert found["lira"]["members"] + found["lira"]["non_members"] == 240 - 24
        assert manifest("victim_model")["options"]["split"] == "inout"
        assert manifest("l1unstructure_0.7_model")["options"]["split"] == "inout"

    @pytest.mark.parametrize("stage", [prune, mia])
    def test_an_odd_number_of_shadows_is_refused(self, path, stage, capsys):
        assert (
            stage.main(
                ["cpu", path, "--shadow_num", "3", *(["--original"] if stage is mia else [])]
            )
            == 2
        )
        assert "--shadow_num must be even, not 3" in capsys.readouterr().err

    @pytest.mark.usefixtures("short_attack_training")
    def test_too_few_shadows_are_named_or_left_out(self, path, capsys):
        assert mia.main(["cpu", path, "--original", "--shadow_num", "4", "--attacks", "lira"]) == 2
        assert "lira needs at least 6 shadow models here, not 4" in capsys.readouterr().err
        run(mia, path, "--original", "--shadow_num", "4", "--attacks", "all")
        assert "left out: lira needs at least 6" in capsys.readouterr().out
        assert not {"lira", "rmia", "calibrated"} & {
            line["attack"] for line in lines("victim_model")
        }

    def test_the_other_split_does_not_take_its_place(self, path, capsys):
        before = (MADE / "split.npz").read_bytes()
        assert pretrain.main(["cpu", path]) == 2
        assert "is of --split inout, not paper" in capsys.readouterr().err
        assert (MADE / "split.npz").read_bytes() == before
        run(pretrain, path, "--fresh")
        assert mia.main(["cpu", path, "--original", "--attacks", "lira_online"]) == 2
        error = capsys.readouterr().err
        assert "lira_online needs shadow models that were trained on the victim's records" in error


def test_an_odd_number_of_shadows_is_refused_before_any_work(write_config, capsys):
    assert pretrain.main(["cpu", write_config(), "--split", "inout", "--shadow_num", "5"]) == 2
    assert "must be even, not 5" in capsys.readouterr().err


def test_an_odd_number_is_no_split():
    with pytest.raises(UserError, match="must be even, not 5"):
        split(100, seed=7, shadow_num=5, kind="inout")


def test_too_few_records_for_either():
    for kind in ("paper", "inout"):
        with pytest.raises(UserError, match="too few to split"):
            split(21, seed=7, shadow_num=2, kind=kind)

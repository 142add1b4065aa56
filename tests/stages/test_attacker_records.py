"""pretrain.py --attacker_records: shadow models of a share of the attacker's half of the records."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import MADE, files, lines, manifest, run

import mia
import pretrain
import prune
import quantize
import report
from core.console import UserError
from datasets import dealt, split

SHARES = (0.1, 0.25, 0.5, 0.9, 1.0)


def records(part):
    return np.concatenate(list(vars(part).values()))


def shares(n, shadow_num=3, seed=11):
    return {
        share: split(n, seed=seed, shadow_num=shadow_num, attacker_records=share)
        for share in SHARES
    }


@pytest.mark.parametrize("n", [400, 1797, 5011])
def test_shares_are_nested_and_the_victim_is_the_same(n):
    plain, of_shares = split(n, seed=11, shadow_num=3), shares(n)
    before = np.array([], dtype=np.int64)
    for share, roles in of_shares.items():
        for name, part in vars(roles["victim"]).items():
            assert np.array_equal(part, getattr(plain["victim"], name))
        pool = np.sort(records(roles["shadow_0"]))
        for shadow in ("shadow_1", "shadow_2"):
            assert np.array_equal(np.sort(records(roles[shadow])), pool)
            assert not np.array_equal(roles[shadow].train, roles["shadow_0"].train)
        assert set(before) < set(pool) and len(set(pool)) == len(pool)
        assert len(pool) == math.floor(share * (n - n // 2) + 1e-9)
        assert dealt(n, share) == n // 2 + len(pool)
        assert not set(pool) & set(records(roles["victim"]))
        before = pool
    for role, part in of_shares[1.0].items():
        assert all(np.array_equal(one, getattr(plain[role], k)) for k, one in vars(part).items())


def test_a_share_is_of_random_records():
    """Of a half dealt at random: the mean number of a record in a tenth of it is that of all."""
    n = 20_000
    pool = records(split(n, seed=3, shadow_num=1, attacker_records=0.1)["shadow_0"])
    sd = n / math.sqrt(12 * len(pool))
    assert abs(pool.mean() - n / 2) < 4 * sd


@pytest.mark.parametrize("n", [60, 99, 240, 5010])
def test_too_small_a_share_names_the_least(n):
    with pytest.raises(UserError, match="which need 11 .*: give .* or more") as caught:
        split(n, seed=7, shadow_num=2, attacker_records=10.9 / (n - n // 2))
    least = float(str(caught.value).split(": give ")[1].split()[0])
    parts = split(n, seed=7, shadow_num=2, attacker_records=least)
    assert min(len(one) for part in parts.values() for one in vars(part).values()) >= 2
    assert len(records(parts["shadow_0"])) == 11


def test_the_in_out_split_has_no_shares():
    with pytest.raises(UserError, match="dealt the victim's own records"):
        split(100, seed=7, shadow_num=2, kind="inout", attacker_records=0.5)


class TestStages:
    def test_the_victim_is_the_same_byte_for_byte_and_attacks_fit(self, write_config, capsys):
        path = write_config(shadow_num=3, epochs=3, attacks="threshold,lira,rmia,qmia")
        for share in ("1", "0.5"):
            where = ["--results", f"results/{share}"]
            run(pretrain, path, *where, "--attacker_records", share)
            run(prune, path, *where)
            run(quantize, path, *where, "--quantizer", "int8", "--pruned")
        of_all, of_half = ("results/" + share + "/tiny_columnfc" for share in ("1", "0.5"))
        for version in ("victim", "l1unstructure_0.7", "l1unstructure_0.7_int8"):
            weights = [
                (
                    pytest.importorskip("pathlib").Path(root) / f"{version}_model/best.pth"
                ).read_bytes()
                for root in (of_all, of_half)
            ]
            assert weights[0] == weights[1], version
        stored = [np.load(f"{root}/split.npz") for root in (of_all, of_half)]
        assert "attacker_records" not in stored[0] and float(stored[1]["attacker_records"]) == 0.5
        for name in ("train", "dev", "test"):
            assert np.array_equal(stored[0][f"victim_{name}"], stored[1][f"victim_{name}"])

    def test_later_stages_follow_and_say_so(self, write_config, capsys):
        path = write_config(shadow_num=3, epochs=2, attacks="threshold,lira,rmia")
        run(pretrain, path, "--attacker_records", "0.5")
        run(prune, path)
        run(mia, path)
        assert {line["attacker_records"] for line in lines("l1unstructure_0.7_model")} == {0.5}
        assert manifest("shadow_model_0")["options"]["attacker_records"] == 0.5
        said = capsys.readouterr().out
        assert (
            "attacks on results/tiny_columnfc/l1unstructure_0.7_model, 50 % of the records" in said
        )
        assert "3 shadow models with 50 % of the records\n" in said
        with np.load(MADE / "l1unstructure_0.7_model/logits.npz") as outputs:
            stored = np.load(MADE / "split.npz")
            ours = {
                int(record)
                for key in stored.files
                for record in np.atleast_1d(stored[key])
                if key.startswith("shadow_0") or key in ("victim_train", "victim_test")
            }
            assert set(outputs["records"].tolist()) == ours  # half a population
        assert report.main(["results", "--out", "out"]) == 0
        assert "attacker with 50 % of the records" in Path("out/report.md").read_text()

    def test_another_share_does_not_take_its_place(self, write_config, capsys):
        path = write_config(shadow_num=2, epochs=1)
        run(pretrain, path, "--attacker_records", "0.5")
        before = files()
        for words, asked in (([], "1"), (["--attacker_records", "0.4"], "0.4")):
            assert pretrain.main(["cpu", path, *words]) == 2
            error = capsys.readouterr().err
            assert f"is of --attacker_records 0.5, not {asked}: use another --results" in error
        assert files() == before
        (MADE / "split.npz").unlink()
        assert prune.main(["cpu", path]) == 2
        error = capsys.readouterr().err
        assert "--attacker_records 0.5" in error and error.count("\n") == 1

    @pytest.mark.parametrize(
        "words, said",
        [
            (["--attacker_records", "0.05"], "leaves 6 of 120 records to the shadow models"),
            (["--attacker_records", "0.5", "--split", "inout"], "the victim's own records"),
            (["--attacker_records", "0"], "must be a number above 0, up to 1"),
        ],
    )
    def test_what_cannot_be_is_refused(self, write_config, capsys, words, said):
        assert pretrain.main(["cpu", write_config(shadow_num=2), *words]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and not files()

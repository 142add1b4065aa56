"""mia.py --records: the table of records, against what lies in the folders."""

import csv
from collections import defaultdict

import numpy as np
import pytest
from helpers import MADE, files, lines, make_once, run
from scipy.special import log_softmax

import attackers.loss
import mia
import pretrain
from attackers import metrics
from bench.records import COLUMNS
from core.files import read_arrays

FILE = MADE / "victim_model/records.csv"
MODELS = 10
ATTACKED = ("--original", "--attacks", "loss,lira,gap", "--records")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    words = (pretrain, "--split", "inout")
    return make_once(tmp_path_factory.mktemp("inout"), words, shadow_num=MODELS, epochs=12)


@pytest.fixture
def path(made):
    return made.copy_here()


def table():
    """The rows by attack, in order."""
    with open(FILE, newline="") as file:
        found = csv.DictReader(file)
        assert tuple(found.fieldnames) == COLUMNS
        rows = defaultdict(list)
        for row in found:
            rows[row["attack"]].append(row)
    return rows


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


def test_the_table_says_what_is_recorded(path, capsys):
    run(mia, path, *ATTACKED)
    assert f"records: saved {FILE}" in capsys.readouterr().out
    found = table()
    scores = read_arrays(MADE / "victim_model/scores.npz")[1]
    assert list(found) == ["gap", "loss", "lira"]
    for line in lines("victim_model"):
        rows, targets = found[line["attack"]], line["targets"]
        assert (column(rows, "score") == scores[line["scores"]]).all()
        for name, what in (("record", "records"), ("class", "labels"), ("member", "member")):
            assert (column(rows, name) == scores[f"{what}_{targets}"]).all()
        member = column(rows, "member") == 1
        for limit in metrics.FPRS:
            rate, name = line[f"tpr_at_{limit:g}"], f"named_at_{limit:g}"
            if rate is None:
                assert {row[name] for row in rows} == {""}
            else:
                named = column(rows, name)
                assert named[member].mean() == rate and named[~member].mean() <= limit
    assert lines("victim_model")[1]["tpr_at_0.1"] > 0


def test_risk_and_memorisation_are_those_of_the_shadow_models(path):
    """Of `loss`, whose score needs no other model."""
    run(mia, path, *ATTACKED)
    rows = table()["loss"]
    record_ids, labels = (column(rows, name).astype(int) for name in ("record", "class"))
    split = np.load(MADE / "split.npz")
    log_p, member = [], []
    for index in range(MODELS):
        arrays = read_arrays(MADE / f"shadow_model_{index}/logits.npz")[1]
        place = np.searchsorted(arrays["records"], record_ids)
        of_all = log_softmax(arrays["answers"].astype(float), axis=1)
        log_p.append(of_all[place, labels])
        member.append(np.isin(record_ids, split[f"shadow_{index}_train"]))
    log_p, member = np.array(log_p), np.array(member)
    assert (member.sum(axis=0) == MODELS // 2).all()
    highest_first = np.sort(log_p[~member])[::-1]
    named = log_p > highest_first[len(highest_first) // 100]
    for position, row in enumerate(rows):
        of, known = member[:, position], named[:, position]
        assert float(row["risk"]) == known[of].mean()
        assert float(row["false_alarms"]) == known[~of].mean()
        assert (row["models_with"], row["models_without"]) == ("5", "5")
        ends = float(row["risk_low"]), float(row["risk_high"])
        assert ends == pytest.approx(metrics.clopper_pearson(known[of].sum(), 5))
        p = np.exp(log_p[:, position])
        assert float(row["memorisation"]) == pytest.approx(p[of].mean() - p[~of].mean(), abs=1e-6)
    assert column(rows, "risk").max() > 0


def test_where_no_shadow_plays_the_victim_cells_are_empty(path, capsys):
    run(mia, path, *ATTACKED)
    said = capsys.readouterr().out
    assert "no risk for gap: no shadow model plays the victim there" in said
    assert "loss, standardised" in said and "gap, standardised" not in said
    for row in table()["gap"]:
        assert row["memorisation"] and not row["risk"] + row["standardised"] + row["models_with"]


def test_recorded_attacks_give_the_same_table_and_nothing_else_changes(path):
    run(mia, path, *ATTACKED[:-1])
    before = files()
    run(mia, path, *ATTACKED)
    content = FILE.read_bytes()
    assert {name: one for name, one in files().items() if not name.endswith(".csv")} == before
    FILE.unlink()
    run(mia, path, *ATTACKED, "--fresh", "--workers", "2")
    assert FILE.read_bytes() == content
    run(mia, path, "--original", "--attacks", "loss", "--records")
    assert list(table()) == ["loss"]


def test_scores_that_are_not_what_the_attack_says_now_are_named(path, capsys, monkeypatch):
    run(mia, path, *ATTACKED)
    before, identity = files(), attackers.loss.identity_score
    monkeypatch.setattr(attackers.loss, "identity_score", lambda measured: identity(measured) - 1)
    capsys.readouterr()
    assert mia.main(["cpu", path, *ATTACKED]) == 2
    assert "error: the recorded scores of loss are not what it says" in capsys.readouterr().err
    assert files() == before


def test_where_an_attack_fails_no_table_is_written(path, monkeypatch):
    def broken(evidence, **_):
        raise MemoryError

    monkeypatch.setattr(attackers.loss, "gap", broken)
    assert mia.main(["cpu", path, *ATTACKED]) == 2
    assert not FILE.exists() and {line["attack"] for line in lines("victim_model")} == {
        "loss",
        "lira",
    }


def test_in_the_papers_split_score_and_names_alone_are_known(write_config, capsys):
    path = write_config(shadow_num=3)
    run(pretrain, path)
    run(mia, path, *ATTACKED)
    assert "no memorisation and no risk, as no shadow model was trained on a target" in (
        capsys.readouterr().out
    )
    known = ("attack", "models", "record", "class", "member", "score", "named_at_0.1")
    for rows in table().values():
        for row in rows:
            assert all(row[name] for name in known[:5])
            assert not any(row[name] for name in COLUMNS if name not in known)

"""`audit.py model --canaries`: from a user's own training to a claim that holds or not."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import PARTS, RELEASE, InThisProcess, audit_model, release, said, write_task

import auditing.run
from attackers.canary_bound import gaussian_bound, one_run_bound, residuals
from auditing import training
from auditing.model_canaries import make
from auditing.records import TaskRecords

WORDS = ("my_task.py", "--device", "cpu", "--shadow_num", 4)
RANDOM = ("--canaries", 200, "--canary_kind", "random")
MEMORISES = (
    PARTS["train"]
    .replace("range(5)", "range(300)")
    .replace("SGD(network.parameters(), lr=0.1)", "Adam(network.parameters(), lr=0.01)")
)
WIDE = "def build():\n    return nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 3))\n"
IGNORES = MEMORISES.replace(
    "    optimiser", "    x, y = torch.eye(12), torch.arange(12) % 3\n    optimiser", 1
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Models are trained in this process, and no attacks are made."""
    monkeypatch.setattr(training, "Local", InThisProcess)
    monkeypatch.setattr(auditing.run, "run", lambda given, request: 0)


def found(folder="audit"):
    return json.loads(Path(folder, "canaries.json").read_text())


def digests(*patterns):
    files = [file for pattern in patterns for file in sorted(Path("audit").glob(pattern))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_training_that_memorises_has_not_the_privacy_that_it_claims(capsys):
    write_task(build=WIDE, train=MEMORISES)
    task = release()
    assert audit_model(*WORDS, *RANDOM, "--epsilon", 0.5, "--delta", 1e-5) == 3
    facts, printed = found(), capsys.readouterr().out
    assert "REFUTED: with 95 % confidence epsilon is above the claimed 0.50" in printed
    assert "the model with canaries is trained" in printed and "[5/5]" in printed
    assert facts["refuted_by"] == ["one_run", "gaussian"] and facts["auc"] > 0.9
    assert (facts["canaries"], facts["kind"], facts["claimed_epsilon"]) == (200, "random", 0.5)
    assert facts["delta"] == 1e-5 and facts["references"] == ["4 shadow models"]
    # all of it again by hand: the user's code on members and canaries that entered
    from auditing.shadows import seed_everything, shadow_seed

    x, y, member = task["data"]()
    records = TaskRecords(x, y, y.numpy(), member.numpy())
    canaries = make(records, {"count": 200, "kind": "random"}, 7)
    of, labels, coin = canaries.records.x[80:], canaries.records.y[80:], canaries.coin
    assert facts["entered"] == coin.sum() and 70 < coin.sum() < 130

    def log_odds(number, x, y):
        seed_everything(shadow_seed(7, number))
        network = task["build"]()
        task["train"](network, x, y)
        p = network.eval()(of).double().softmax(dim=1)[range(200), labels].detach().numpy()
        return np.log(p / (1 - p))

    own = log_odds(
        "canaries", torch.cat([x[member], of[coin]]), torch.cat([y[member], labels[coin]])
    )
    with np.load("audit/evidence.npz") as file:
        rows = file["shadow_member"]
    shadows = np.mean([log_odds(k, x[rows[k]], y[rows[k]]) for k in range(4)], axis=0)
    scores = residuals(own, shadows[None])
    for name, bound in (("one_run", one_run_bound), ("gaussian", gaussian_bound)):
        expected = bound(scores, coin, delta=1e-5, level=0.05)
        assert facts["bounds"][name] == pytest.approx(vars(expected))


def test_a_training_that_ignores_the_records_is_not_refuted(capsys):
    write_task(build=WIDE, train=IGNORES)
    release()
    assert audit_model(*WORDS, *RANDOM, "--epsilon", 0, "--delta", 1e-5) == 0
    assert "no bound exceeds the claim" in capsys.readouterr().out
    facts = found()
    assert facts["refuted_by"] == [] and facts["delta"] == 1e-5 and abs(facts["auc"] - 0.5) < 0.13


def test_nothing_may_be_claimed_and_a_failed_gate_stays(capsys, monkeypatch):
    monkeypatch.setattr(auditing.run, "run", lambda given, request: 4)
    write_task()
    release()
    assert audit_model(*WORDS, "--canaries", 40) == 4
    printed = capsys.readouterr().out
    assert "nothing is claimed" in printed and "claimed  " not in printed
    assert found()["claimed_epsilon"] is None and found()["kind"] == "mislabelled"
    assert found()["delta"] == 0.01  # of 40 members


def test_all_else_is_as_without_canaries_and_what_is_there_is_kept(capsys):
    write_task()
    release()
    assert audit_model(*WORDS) == 0
    before = digests("evidence.npz")
    line = said(capsys, *WORDS, "--canaries", 40)
    assert "made of other canaries, or none: give --fresh" in line
    assert audit_model(*WORDS, "--canaries", 40, "--fresh") == 0
    assert digests("evidence.npz") == before
    made = digests("shadows/*.npz", "canaries.json")
    assert len(made) == 6
    for words in ((), ("--canaries", 40)):
        assert audit_model(*WORDS, *words) == 0
        assert digests("shadows/*.npz", "canaries.json") == made
    Path("audit/shadows/shadow_canaries.npz").unlink()
    capsys.readouterr()
    assert audit_model(*WORDS, "--canaries", 40) == 0
    assert "4 of 4 shadow models are there already" in capsys.readouterr().out
    assert digests("shadows/*.npz", "canaries.json") == made
    assert "other canaries, or none" in said(capsys, *WORDS, "--canaries", 39)
    assert digests("shadows/*.npz", "canaries.json") == made
    assert audit_model(*WORDS, "--fresh") == 0
    assert len(digests("shadows/*.npz")) == 4 and not digests("canaries.json")


def test_compressed_answers_count():
    write_task(
        build=WIDE,
        train=MEMORISES,
        compress="def compress(network, x, y):\n    for weight in "
        "network.parameters():\n        nn.init.zeros_(weight)\n",
    )
    release()
    assert audit_model(*WORDS, *RANDOM, "--epsilon", 0) == 0
    assert found()["auc"] == 0.5


@pytest.mark.parametrize("kind", ["mislabelled", "random"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, None], ids=str)
def test_canaries_have_the_form_of_the_records(kind, dtype):
    """None: arrays. Mislabelled ones are copies of non-members, and nobody is copied twice."""
    x, y = np.random.default_rng(0).normal(size=(80, 3, 4)), np.arange(80, dtype=np.int32) % 3
    member = np.arange(80) < 40
    given = (x, y) if dtype is None else (torch.from_numpy(x).to(dtype), torch.from_numpy(y))
    records = TaskRecords(*given, y.astype(np.int64), member)
    canaries = make(records, {"count": 40, "kind": kind}, 7)
    joined = canaries.records
    assert type(joined.x) is type(given[0]) and joined.x.dtype == given[0].dtype
    assert joined.y.dtype == given[1].dtype and joined.x.shape == (120, 3, 4)
    assert (joined.labels == np.asarray(joined.y)).all() and not joined.member[80:].any()
    assert (canaries.rows == [*range(40), *(80 + np.flatnonzero(canaries.coin))]).all()
    if kind == "mislabelled":
        same = [np.asarray((joined.x[:80] == one).reshape(80, -1).all(1)) for one in canaries.x]
        rows = [int(np.flatnonzero(one)[0]) for one in same]
        assert sorted(rows) == [*range(40, 80)] and (y[rows] != canaries.labels).all()


BAD = {
    "few": (("--canaries", "19"), "--canaries must be 20 or more, or 0: none, not 19"),
    "negative": (("--canaries", "-1"), "--canaries must be 20 or more, or 0: none, not -1"),
    "no number": (("--canaries", "x"), "--canaries"),
    "kind": (("--canaries", "40", "--canary_kind", "odd"), "--canary_kind"),
    "alone": (("--epsilon", "1"), "--epsilon is of canaries: ask for some"),
    "delta": (("--canaries", "40", "--delta", "1"), "--delta must be a number above 0 and below 1"),
    "epsilon": (("--canaries", "40", "--epsilon", "-1"), "--epsilon must be a number of 0 or more"),
    "endless": (("--canaries", "40", "--epsilon", "inf"), "must be a number of 0 or more, not inf"),
    "non-members": (
        ("--canaries", "41"),
        "are copies of non-members, of which there are 40: take as many or fewer, or --canary_kind",
    ),
}


@pytest.mark.parametrize("words, says", BAD.values(), ids=BAD)
def test_bad_input_is_one_line(capsys, words, says):
    write_task()
    release()
    assert says in said(capsys, *WORDS, *words)
    assert not Path("audit").exists()


def test_random_ones_of_whole_numbers_are_refused(capsys):
    write_task(
        build="def build():\n    return nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 3))\n",
        data=PARTS["data"].replace("    return x", "    x = (x > 1).long()\n    return x"),
    )
    release(RELEASE)
    assert "and x is int64: take mislabelled" in said(capsys, *WORDS, *RANDOM)
    assert not Path("audit").exists()

"""Arrays of a user's: what is refused in a line, and what is warned of."""

import re
from pathlib import Path

import numpy as np
import pytest
from answers_cases import answers

import audit
from auditing.given import checked
from auditing.oddities import decimals
from core.console import UserError

N = 300


def without(*names):
    return lambda found: [found.pop(name) for name in names]


def put(name, change):
    def mend(found):
        found[name] = change(found[name])

    return mend


def at(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def logit(p):
    return np.log(p)


def renamed(old, new, change=lambda array: array):
    def mend(found):
        found[new] = change(found.pop(old))

    return mend


def all_targets(value):
    def mend(found):
        found["member"] = found["target"] & value

    return mend


REFUSED = {  # what is wrong -> (what is done to right arrays, what the line says)
    "no labels": (without("labels"), "labels is missing"),
    "no member": (without("member"), "member is missing"),
    "no victim": (without("victim"), "victim is missing: the model's posteriors"),
    "unknown name": (
        renamed("victim", "victims"),
        "unknown array 'victims', did you mean 'victim'?",
    ),
    "no shadow_member": (without("shadow_member"), "shadow_member is missing"),
    "no shadows": (without("shadows"), "shadow_member is given, but shadows are missing"),
    "logits as posteriors": (
        put("victim", logit),
        r"victim has values from -\S+ to -\S+, and .*: logits are to be called victim_logits",
    ),
    "logits of shadows as posteriors": (
        put("shadows", logit),
        "shadows has values .*shadows_logits",
    ),
    "posteriors as logits": (
        renamed("victim", "victim_logits"),
        "victim_logits are from 0 to 1 and sum to 1: posteriors are to be called victim$",
    ),
    "both": (lambda found: found.update(victim_logits=found["victim"]), "are both given"),
    "sums": (put("victim", lambda p: p * 0.95), r"victim\[0\] sums to 0.95"),
    "NaN": (put("victim", at((7, 2), np.nan)), r"victim\[7, 2\] is nan"),
    "NaN in a shadow": (put("shadows", at((1, 7, 2), np.nan)), r"shadows\[1\]\[7, 2\] is nan"),
    "infinite logits": (
        renamed("victim", "victim_logits", lambda p: at((3, 1), -np.inf)(logit(p))),
        r"victim_logits\[3, 1\] is -inf: logits are finite",
    ),
    "one column": (put("victim", lambda p: p[:, :1]), "at least 2 classes"),
    "a vector": (put("victim", lambda p: p[:, 0]), r"victim must be .*\(N, C\)"),
    "shadows of fewer records": (
        put("shadows", lambda p: p[:, :-1]),
        r"shadows must be .*\(S, N, C\) for the N = 300 .* not of shape \(8, 299, 4\)",
    ),
    "fewer labels": (put("labels", lambda y: y[:-1]), r"labels must be .* not of shape \(299,\)"),
    "labels from 1": (
        put("labels", lambda y: y + 1),
        r"labels\[\d+\] is 4: class numbers are from 0",
    ),
    "member of 2": (
        put("member", lambda m: 2 * m.astype(int)),
        r"member\[\d+\] is 2: it must be True",
    ),
    "transposed": (put("shadow_member", np.transpose), r"shadow_member must be .*\(S, N\)"),
    "all members": (all_targets(True), "member: all targets are members"),
    "no members": (all_targets(False), "member: all targets are non-members"),
    "members beside targets": (
        put("member", lambda m: np.ones_like(m)),
        r"member\[240\] is 1 where target is 0: .* known non-members",
    ),
    "shadows alike": (
        put("shadow_member", lambda m: np.tile(m[0], (8, 1))),
        "all shadow models were trained on the same records",
    ),
    "shadows without members": (
        put("shadow_member", np.zeros_like),
        "no shadow model was trained on any of these records",
    ),
    "the victim as a shadow": (
        lambda found: found["shadows"].__setitem__(3, found["victim"]),
        r"shadows\[3\] answers just as victim",
    ),
    "records twice": (
        lambda found: found.update(record_ids=np.arange(N) // 2 * 2),
        "record_ids: 0 stands twice",
    ),
    "a group a record": (
        lambda found: found.update(group=np.arange(N)),
        "group has 300 values for 300 records",
    ),
    "short groups": (
        lambda found: found.update(group=np.zeros(3)),
        r"group must be of shape \(N,\)",
    ),
    "original without shadows": (
        lambda found: found.update(original=found["victim"]),
        "original_shadows are missing",
    ),
    "original_shadows alone": (
        lambda found: found.update(original_shadows=found["shadows"]),
        "original_shadows are given, but original is missing",
    ),
    "fewer original_shadows": (
        lambda found: found.update(original=found["victim"], original_shadows=found["shadows"][:4]),
        "original_shadows are 4 models, shadows are 8",
    ),
    "original of other classes": (
        lambda found: found.update(
            original=found["victim"][:, :2], original_shadows=found["shadows"]
        ),
        "original must be",
    ),
}


@pytest.mark.parametrize("mend, says", REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_in_a_line_and_nothing_is_written(capsys, mend, says):
    found = answers()
    assert checked(found)
    mend(found)
    np.savez("evidence.npz", **found)
    assert audit.main(["answers", "evidence.npz", "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(says, line), line
    assert not Path("out").exists()


FILES = {
    "no such file": (None, "cannot read evidence.npz: No such file"),
    "text": (b"labels,victim\n", "evidence.npz is no .npz file"),
    "empty": (b"", "evidence.npz is no .npz file"),
    "torch or any other zip": (b"PK\x05\x06" + bytes(18), "labels is missing|victim is missing"),
}


@pytest.mark.parametrize("content, says", FILES.values(), ids=FILES)
def test_a_file_that_is_none_of_arrays_gets_a_line(capsys, content, says):
    if content is not None:
        Path("evidence.npz").write_bytes(content)
    assert audit.main(["answers", "evidence.npz", "--out", "out"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(says, line), line
    assert not Path("out").exists()


def test_no_pickle_is_run(capsys):
    class Mine:
        def __reduce__(self):
            return Path("struck").touch, ()

    np.savez("evidence.npz", **answers() | {"group": np.array([Mine()] * N, dtype=object)})
    assert audit.main(["answers", "evidence.npz", "--out", "out"]) == 2
    assert "group holds Python objects, which are not read" in capsys.readouterr().err
    assert not Path("struck").exists() and not Path("out").exists()


def test_a_damaged_file_gets_a_line(capsys):
    np.savez("evidence.npz", **answers())
    content = bytearray(Path("evidence.npz").read_bytes())
    content[3000:3100] = bytes(100)
    Path("evidence.npz").write_bytes(content)
    assert audit.main(["answers", "evidence.npz", "--out", "out"]) == 2
    assert re.search("is damaged|is no .npz", capsys.readouterr().err)


WARNED = {
    "members of one class": (
        lambda found: found["labels"].__setitem__(found["member"], 2),
        "all members are of class 2",
    ),
    "classes unlike": (
        lambda found: found["labels"].__setitem__(
            found["member"] & (found["labels"] < 2) & (np.arange(N) % 8 > 0), 2
        ),
        "members and non-members are of other classes",
    ),
    "one class": (put("labels", np.zeros_like), "all targets are of class 0"),
    "rounded sums": (
        lambda found: found.update(
            victim=found["victim"].round(2), shadows=found["shadows"].round(2)
        ),
        "victim: posteriors look rounded",
    ),
    "two decimals": (
        lambda found: found.update(
            victim=found["victim"].round(2), shadows=found["shadows"].round(2)
        ),
        "victim are rounded to 2 decimals: .* low FPR",
    ),
    "decimals unlike": (
        put("victim", lambda p: p.round(2)),
        r"different numbers of decimals \(victim 2, shadows all\)",
    ),
    "classes alone": (
        put("victim", lambda p: np.eye(4)[p.argmax(axis=1)]),
        "victim are 0 and 1 alone",
    ),
    "a shadow of the members": (
        lambda found: found["shadow_member"].__setitem__(0, found["member"]),
        "shadow model 0 was trained on just the members",
    ),
    "dealt by membership": (
        lambda found: found["shadow_member"].__setitem__(
            slice(0, 3), found["member"] & (np.arange(N) % 9 > np.arange(3)[:, None])
        ),
        "draw these sets without regard to membership",
    ),
    "original alike": (
        lambda found: found.update(original=found["victim"], original_shadows=found["shadows"]),
        "original answers just as victim",
    ),
}


@pytest.mark.parametrize("mend, says", WARNED.values(), ids=WARNED)
def test_what_is_odd_is_warned_of(mend, says):
    found = answers()
    assert not checked(found).warnings
    mend(found)
    assert any(re.search(says, one) for one in checked(found).warnings)


def test_targets_that_hardly_any_shadow_model_knows_are_left_out():
    found = answers()
    found["shadow_member"][:, 5] = [True] + 7 * [False]
    given = checked(found)
    assert 5 not in given.record_ids and len(given.record_ids) == N - 1
    assert np.array_equal(given.labels, np.delete(found["labels"], 5))
    assert np.array_equal(given.shadow_member, np.delete(found["shadow_member"], 5, axis=1))
    assert any("targets left out" in one and "1 of 240" in one for one in given.warnings)
    found["shadow_member"][:, :100] = np.array([True] + 7 * [False])[:, None]
    assert len(checked(found).record_ids) == N  # too many: attacks that need them say so


def test_half_precision_and_lists_are_read():
    found = answers()
    low = checked(found | {"victim": found["victim"].astype(np.float16)})
    assert np.allclose(low.released.victim.posteriors()[0], found["victim"], atol=1e-3)
    logits = np.log(found["victim"]).astype(np.float16)
    rest = {name: array for name, array in found.items() if name != "victim"}
    assert checked(rest | {"victim_logits": logits}).released.victim.logits.dtype == np.float32


def test_groups_may_be_bytes_or_numbers():
    found = answers()
    for group in (np.array([b"a", b"b"])[np.arange(N) % 2], np.arange(N) % 3, np.arange(N) % 2 > 0):
        assert checked(found | {"group": group}).group.dtype.kind == "U"
    with pytest.raises(UserError, match="text or numbers, not complex128"):
        checked(found | {"group": np.arange(N) % 3 * 1j})


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0.12, 0.88], [0.3, 0.7]]), 2),
        (np.array([[0.12, 0.88], [0.3, 0.7]], np.float32), 2),
        (np.array([[0.12, 0.88]], np.float32).astype(float), 2),
        (np.array([[0.12, 0.88]], np.float16), 3),
        (np.eye(3), 0),
        (np.array([[1e-9, 1 - 1e-9]]), None),  # sure, not rounded
        (np.array([[0.1234, 0.8766]]), 4),
        (np.array([[0.12345, 0.87655]]), None),
        (np.tile([[0.5, 0.5], [0.25, 0.75]], (100, 1)), 2),
        (np.vstack([np.tile([0.5, 0.5], (200, 1)), [[1 / 3, 2 / 3]]]), None),
    ],
)
def test_decimals(values, expected):
    assert decimals(values) == expected

"""audit.py answers: its files, exit statuses, and the same from CSV files."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from answers_cases import answers
from helpers import PROJECT

import audit
from auditing.evidence_file import ARRAYS
from auditing.written import SCHEMA

GATES = ["--gate", "auc<=0.99", "--gate", "tpr_at_0.01<=0.5", "--gate", "accuracy<=0.55"]


def audited(found, *words, status=0, out="out"):
    np.savez("evidence.npz", **found)
    assert audit.main(["answers", "evidence.npz", "--out", out, *words]) == status
    return json.loads(Path(out, "audit.json").read_text())


def schema():
    found = json.loads((PROJECT / "auditing/audit.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


CASES = {
    "online": (answers(n=1200), GATES, 3),
    "two releases": (answers(original=3.0) | {"group": np.arange(300) % 3}, [], 0),
    "no shadows": (
        {n: a for n, a in answers().items() if n in ("labels", "victim", "member")}
        | {"member": np.arange(300) % 2 == 0},
        GATES,
        4,
    ),  # nobody is a member indeed, and what says so is weak
    "equal answers": (
        answers() | {"victim": np.full((300, 4), 0.25), "shadows": np.full((8, 300, 4), 0.25)},
        ["--gate", "auc<=0.6"],
        4,
    ),
}


@pytest.mark.parametrize("found, words, status", CASES.values(), ids=CASES)
def test_audit_json_is_as_its_schema_says(found, words, status):
    content = audited(found, *words, status=status)
    jsonschema.validate(content, schema())
    assert content["schema"] == SCHEMA == schema()["properties"]["schema"]["const"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("gates"),
        lambda content: content.update(more=1),
        lambda content: content["attacks"][0]["measures"].update(auc=1.5),
        lambda content: content["subject"].update(members="1"),
    ],
)
def test_the_schema_refuses_other_content(spoil):
    content = audited(answers(), "--attacks", "loss")
    spoil(content)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())


def test_gates_are_test_cases_of_junit_and_exit_statuses():
    found = answers(n=1200)
    content = audited(found, *GATES, status=3)
    outcomes = {one["condition"]: one["outcome"] for one in content["gates"]}
    assert outcomes == {
        "auc<=0.99": "pass",
        "tpr_at_0.01<=0.5": "inconclusive",
        "accuracy<=0.55": "fail",
    }
    (suite,) = ElementTree.parse("out/audit.xml").getroot()
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
        "skipped": "0",
    }
    kinds = {case.get("name"): [child.tag for child in case] for case in suite}
    assert kinds == {"auc<=0.99": [], "tpr_at_0.01<=0.5": ["error"], "accuracy<=0.55": ["failure"]}
    assert audited(found, *GATES[:2])["outcome"] == "pass"
    assert audited(found, *GATES[:4], status=4)["outcome"] == "inconclusive"
    assert audited(found)["outcome"] is None


def test_records_csv_has_each_target_once_by_score():
    ids, group = np.array([f"r{k}" for k in range(1500)]), np.array(["a", 'b"', "c,d"])
    found = answers(n=1400, population=100, seed=3)
    found["member"] &= np.random.default_rng(0).random(1500) < 0.5  # enough non-members for 1 %
    found |= {"record_ids": ids, "group": group[np.arange(1500) % 3]}
    content = audited(found)
    with open("out/records.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    targets = found["target"]
    assert sorted(row["record"] for row in rows) == sorted(ids[targets])
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    at = {name: index for index, name in enumerate(ids)}
    for row in rows:
        index = at[row["record"]]
        assert row["member"] == str(int(found["member"][index]))
        assert row["class"] == str(found["labels"][index])
        assert row["group"] == group[index % 3]
        own = found["shadows"][:, index, found["labels"][index]]
        inside = found["shadow_member"][:, index]
        assert float(row["memorisation"]) == pytest.approx(
            own[inside].mean() - own[~inside].mean(), abs=1e-9
        )
    one = content["attacks"][content["strongest"]]
    named = [row for row in rows if row["named_at_0.01"] == "1"]
    members = sum(row["member"] == "1" for row in named)
    assert members / content["subject"]["members"] == one["measures"]["tpr_at_0.01"]
    others = content["subject"]["non_members"]
    assert len(named) - members == int(others * 0.01) and others >= 1000
    assert {row["named_at_0.001"] for row in rows} == {""}  # 10,000 non-members would tell


def test_cells_of_which_nothing_is_known_are_empty():
    audited({n: a for n, a in answers().items() if n in ("labels", "victim", "member", "target")})
    with open("out/records.csv", newline="") as file:
        row = next(csv.DictReader(file))
    empty = {name for name, cell in row.items() if not cell}
    assert empty == {"group", "named_at_0.01", "named_at_0.001", "memorisation"}


def without_time(content):
    return {k: v for k, v in content.items() if k not in ("made", "command")} | {"subject": None}


def write_csv(found, header):
    """The arrays as CSV files; returns the words that name them."""
    words = []
    for name, array in found.items():
        tables = array if name.endswith("shadows") else [array]
        if name in ("shadow_member", "calibration_mask"):
            tables = [array.T]
        paths = []
        for number, table in enumerate(tables):
            paths.append(f"{name}_{number}.csv")
            columns = table.reshape(len(table), -1)
            with open(paths[-1], "w", newline="") as file:
                writer = csv.writer(file)
                if header:
                    writer.writerow([f"column {k}" for k in range(columns.shape[1])])
                writer.writerows(columns.tolist())
        words += [f"--{name}", ",".join(paths)]
    return words


@pytest.mark.parametrize("header", [False, True])
def test_csv_files_say_the_same(header):
    ids = np.array([f"r{k}" for k in range(300)])
    found = answers(original=3.0) | {"record_ids": ids, "group": np.arange(300) % 3}
    assert set(found) == set(ARRAYS) - {"calibration_mask"}
    expected = audited(found)
    records = Path("out/records.csv").read_text()
    words = write_csv(found, header)
    assert audit.main(["answers", *words, "--out", "csv"]) == 0
    content = json.loads(Path("csv/audit.json").read_text())
    assert without_time(content) == without_time(expected)
    assert Path("csv/records.csv").read_text() == records
    assert set(content["subject"]["files"]) == {word for w in words[1::2] for word in w.split(",")}


def test_csv_files_of_logits():
    found = answers()
    for name in ("victim", "shadows"):
        found[name] = np.log(found[name])
    words = write_csv(found, False)
    assert audit.main(["answers", *words, "--logits", "--out", "csv"]) == 0
    assert audit.main(["answers", *words, "--out", "wrong"]) == 2 and not Path("wrong").exists()


WRONG = {
    "nothing": ([], "name an .npz file, or CSV files"),
    "both": (["evidence.npz", "--labels", "labels_0.csv"], "name an .npz file, or CSV files"),
    "out is a file": (["evidence.npz", "--out", "labels_0.csv"], "is a file; a folder is needed"),
    "unknown option": (
        ["evidence.npz", "--gates", "x"],
        "unknown argument '--gates', did you mean",
    ),
    "unknown attack": (["evidence.npz", "--attacks", "lyra"], "did you mean 'lira'?"),
    "no attack": (["evidence.npz", "--attacks", ","], "--attacks names none"),
    "an attack that cannot be": (["evidence.npz", "--attacks", "samia"], "samia: it needs"),
    "seed": (["evidence.npz", "--seed", "-1"], "--seed must be from 0"),
    "gate": (["evidence.npz", "--gate", "auc>1"], "a gate is a measure"),
    "no such csv": (["--labels", "l.csv"], "cannot read l.csv: No such file"),
    "letters": (["--labels", "words.csv"], "words.csv is no table of numbers"),
    "an empty csv": (["--member", "empty.csv"], "empty.csv is empty"),
    "an empty table": (["--labels", "empty.csv"], "empty.csv is empty"),
    "a table with a header alone": (["--labels", "header.csv"], "header.csv is empty"),
    "two columns of labels": (["--labels", "two.csv"], "two.csv has 2 columns, not one"),
    "member of maybe": (
        ["--member", "maybe.csv"],
        "maybe.csv, record 2: 'maybe' is neither 0 nor 1",
    ),
    "ragged": (["--shadow_member", "ragged.csv"], "ragged.csv, record 2: has 1 columns"),
    "shadows unlike": (
        ["--shadows", "two.csv,labels_0.csv"],
        r"labels_0.csv is of shape \(300, 1\)",
    ),
}


@pytest.mark.parametrize("words, says", WRONG.values(), ids=WRONG)
def test_wrong_commands_get_a_line_and_write_nothing(capsys, words, says):
    np.savez("evidence.npz", **answers())
    write_csv({"labels": answers()["labels"]}, False)
    for name, text in {
        "words": "1\nx\n2\n",
        "empty": "",
        "header": "label\n",
        "two": "0.5,0.5\n0.1,0.9\n",
        "maybe": "1\nmaybe\n",
        "ragged": "1,0\n1\n",
    }.items():
        Path(f"{name}.csv").write_text(text)
    before = sorted(Path.cwd().rglob("*"))
    out = [] if "--out" in words else ["--out", "out"]
    assert audit.main(["answers", *words, *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(says, line), line
    assert sorted(Path.cwd().rglob("*")) == before


def test_the_screen_tells_the_strongest_first_the_gates_and_the_files(capsys):
    content = audited(answers(n=1200), *GATES, status=3)
    said = capsys.readouterr().out
    names = [one["name"] for one in content["attacks"]]
    strongest = names[content["strongest"]]
    assert said.index(f"\n{strongest} ") == min(said.index(f"\n{name} ") for name in names)
    for one in content["gates"]:
        assert f"{one['condition']}: {one['reason']}" in said
    assert all(f"saved out/{name}" in said for name in ("audit.html", "audit.json", "records.csv"))


def test_attacks_that_are_chosen_let_no_gate_pass():
    """Of a model without a leak all of `quick` pass; of some of them nothing is known."""
    found = answers(n=2400, leak=0.0)
    audited(found, "--gate", "auc<=0.6")
    content = audited(found, "--gate", "auc<=0.6", "--attacks", "lira,rmia", status=4)
    (gate,) = content["gates"]
    assert "attacks that take seconds were left out: threshold, gap, loss" in gate["reason"]
    assert gate["add"] == ["--attacks quick"]


def test_the_same_command_gives_the_same_files():
    first = audited(answers(original=3.0))
    records = Path("out/records.csv").read_bytes()
    again = audited(answers(original=3.0))
    assert without_time(first) == without_time(again)
    assert records == Path("out/records.csv").read_bytes()


def test_names_that_no_file_can_hold_are_written_with_question_marks():
    np.savez("evidence.npz", **answers())
    path = "\udcff\x01.npz"  # as Python has a name of bytes that are not UTF-8
    Path("evidence.npz").rename(path)
    assert audit.main(["answers", path, "--out", "out", "--attacks", "loss"]) == 0
    content = json.loads(Path("out/audit.json").read_text())
    assert content["subject"]["title"] == "??.npz"
    ElementTree.parse("out/audit.xml")


def test_help_and_errors_answer_without_torch():
    code = "import sys, audit; s = audit.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(s)"
    for words, status in (([], 0), (["--help"], 0), (["answers"], 2), (["answrs"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=PROJECT, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        assert status or "answers" in done.stdout
    assert "did you mean 'answers'?" in done.stderr


@pytest.mark.parametrize(
    "rows, records",
    [
        ("0,1,2\n0.2,0.3,0.5\n0.1,0.1,0.8\n", 2),  # as pandas writes a table without names
        ("0,1\n0.25,0.75\n", 1),
        ("0,1\n1,0\n", 2),  # two sure records
        ("a,b\n0.25,0.75\n", 1),
        ("0.25,0.75\n0.5,0.5\n", 2),
    ],
)
def test_a_row_of_column_numbers_is_a_header(tmp_path, rows, records):
    from auditing.evidence_file import _table

    (tmp_path / "p.csv").write_text(rows)
    assert len(_table(tmp_path / "p.csv")) == records


def test_labels_in_another_order_let_no_gate_pass(capsys):
    arrays = answers()
    arrays["labels"] = (arrays["labels"] + 1) % 4
    np.savez("rolled.npz", **arrays)
    assert audit.main(["answers", "rolled.npz", "--out", "rolled", "--gate", "auc<=0.999"]) == 4
    said = capsys.readouterr().out
    assert "of its own members right, no more than guessing: are labels" in said
    page = Path("rolled/audit.html").read_text()
    assert "hardly overfits" not in page and "guessing is right on" in page

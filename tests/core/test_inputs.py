"""Paths and JSON files as users name and write them: what is tolerated, and the one line for what is not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import PROJECT, table_arrays

import mia
import pretrain
import report
import study
from bench.command_line import parse
from bench.options import OPTIONS
from core.console import UserError
from core.inputs import expand_home, locate, read_object
from studies.grid import read_cells


def said(text, tmp_path, name="x.json"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_object(path, "config")


@pytest.mark.parametrize(
    "text, says",
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"\xef\xbb\xbf", "is not JSON"),
        ('{"seed": 1, "seed": 2}', "key 'seed' stands twice"),
        ('{"seed": 1, "s\\u0065ed": 1}', "key 'seed' stands twice"),
        ('{"grids": [{"seed": 1}, {"lr": 1, "lr": 1}]}', "key 'lr' stands twice"),
        ('{"lr": NaN}', "NaN is not a number"),
        ('{"lr": [-Infinity]}', "-Infinity is not a number"),
        ('{"lr": 1,}', "no comma may stand before a closing bracket"),
        ('{"lr": [1, 2,\r\n ]}', "no comma may stand before a closing bracket"),
        ("{'lr': 1}", "double quotes"),
        ("{\"lr\": 'a'}", "double quotes"),
        ('{"lr": 1 // fast\n}', "no comments"),
        ('# mine\n{"lr": 1}', "no comments"),
        ('{"fresh": True}', "JSON writes true, false and null"),
        ('{"lr": 1} {"lr": 2}', "Extra data"),
        ('{"lr": 1', "line 1 column 9"),
        ('{"lr" 1}', "is not JSON"),
        ("[1]", "must be a JSON object of options, not a list"),
        ('{"about": "\\ud800"}', "is half a character"),
        ('{"a": 1}'.encode("utf-16"), "save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "save it as UTF-8"),
        ('{"é": 1}'.encode("latin-1"), "byte 2 is not UTF-8; save it as UTF-8"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "recursion"),
    ],
)
def test_what_is_no_object_is_said_in_a_line(text, says, tmp_path):
    with pytest.raises(UserError) as caught:
        said(text, tmp_path)
    assert says in str(caught.value) and f"config {tmp_path / 'x.json'}" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text",
    [
        b'\xef\xbb\xbf{"lr": 0.1, "about": "\xc3\xa9"}',
        '{"lr": 0.1,\r\n "about": "é"}\r\n',
        '\n{"lr": 1e-1, "about": "é"}',
    ],
)
def test_what_editors_add_is_tolerated(text, tmp_path):
    assert said(text, tmp_path) == {"lr": 0.1, "about": "é"}


def test_every_reader_of_users_json_reads_alike(write_config, tmp_path, capsys):
    marked, twice = tmp_path / "marked.json", tmp_path / "twice.json"
    marked.write_bytes(b"\xef\xbb\xbf" + Path(write_config()).read_bytes())
    assert parse("pretrain", ["cpu", str(marked)]).epochs == 4
    marked_study = tmp_path / "study.json"
    marked_study.write_bytes(
        b"\xef\xbb\xbf" + json.dumps({"config": str(marked), "attacks": "gap"}).encode()
    )
    assert len(read_cells(str(marked_study), device="cpu", results="r")) == 1
    assert report.read_about(marked_study) == ""
    twice.write_text('{"config": "c.json", "config": "c.json"}')
    for main, words in (
        (pretrain.main, ["cpu", str(twice)]),
        (study.main, [str(twice)]),
        (report.main, [".", "--study", str(twice)]),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "key 'config' stands twice" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, says",
    [
        (["."], "Is a directory"),
        (["absent.json"], "No such file or directory in /"),
        (["/absent.json"], "/absent.json: No such file"),
        (["dangling.json"], "is a link to nothing.json, where nothing"),
        (["~nobody-here/x.json"], "there is no home folder '~nobody-here'"),
        (["afile/x.json"], "No such file or directory in"),
    ],
)
def test_a_file_that_is_not_there(words, says, capsys):
    Path("afile").write_text("")
    os.symlink("nothing.json", "dangling.json")
    for main, argv in (
        (pretrain.main, ["cpu", *words]),
        (study.main, words),
        (report.main, [".", "--study", *words]),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
    assert {path.name for path in Path.cwd().iterdir()} == {"afile", "dangling.json"}


def test_an_empty_path_is_not_the_working_folder(write_config, tmp_path, capsys):
    (tmp_path / "s.json").write_text('{"config": ""}')
    for main, words in (
        (pretrain.main, ["cpu", ""]),
        (study.main, [""]),
        (study.main, [str(tmp_path / "s.json")]),
        (report.main, [".", "--study", ""]),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "path" in error and error.count("\n") == 1


def test_a_file_that_may_not_be_read(write_config, monkeypatch, capsys):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert pretrain.main(["cpu", write_config()]) == 2
    assert capsys.readouterr().err.endswith("tiny.json: Permission denied\n")


def test_files_are_looked_for_here_then_beside_then_in_the_repository(tmp_path, write_config):
    assert locate("config/location.json", "config") == str(PROJECT / "config/location.json")
    (tmp_path / "config").mkdir()
    shutil.copy(write_config(), tmp_path / "config/location.json")
    assert locate("config/location.json", "config", beside=[tmp_path]) == str(
        tmp_path / "config/location.json"
    )
    Path("config").mkdir()
    Path("config/location.json").write_text("{}")
    assert locate("config/location.json", "config", beside=[tmp_path]) == "config/location.json"


@pytest.mark.slow
def test_what_comes_along_runs_from_any_folder(capsys, tmp_path, write_config):
    options = parse("pretrain", ["cpu", "config/digits_columnfc.json"])
    assert options.config_path == str(
        PROJECT / "config/digits_columnfc.json"
    )  # as a command to paste must name it
    for path in sorted((PROJECT / "config" / "studies").glob("*.json")):
        assert study.main([f"config/studies/{path.name}", "--device", "cpu", "--dry_run"]) == 0
        assert f"cpu {PROJECT}/config/" in capsys.readouterr().out
    write_config("with a space.json")
    (tmp_path / "mine.json").write_text(
        json.dumps({"config": "with a space.json", "attacks": "gap"})
    )
    assert study.main([str(tmp_path / "mine.json"), "--device", "cpu", "--dry_run"]) == 0
    assert f"'{tmp_path}/with a space.json'" in capsys.readouterr().out


# ---- the home folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home of mine"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_home_is_meant_wherever_a_path_stands(home, write_config, monkeypatch, tmp_path):
    paths = [name for name, option in OPTIONS.items() if option.kind is OPTIONS["results"].kind]
    assert sorted(paths) == ["data_path", "data_root", "results"]
    for name in paths:
        assert (
            getattr(parse("pretrain", ["cpu", write_config(**{name: "~/x.npz"})]), name)
            == f"{home}/x.npz"
        )
        assert (
            getattr(parse("pretrain", ["cpu", write_config(), f"--{name}=~/x.npz"]), name)
            == f"{home}/x.npz"
        )
    monkeypatch.setenv("MIA_DATA", "~/data")
    assert parse("mia", ["cpu", write_config()]).data_root == f"{home}/data"
    shutil.copy(write_config(), home / "c.json")
    assert parse("pretrain", ["cpu", "~/c.json"]).config_path == f"{home}/c.json"
    (tmp_path / "s.json").write_text(
        json.dumps({"config": "~/c.json", "attacks": "gap", "data_path": "~/t.npz"})
    )
    [cell] = read_cells(str(tmp_path / "s.json"), device="cpu", results=expand_home("~/r"))
    assert (cell.data_path, cell.config_path) == (f"{home}/t.npz", f"{home}/c.json")


@pytest.mark.slow
def test_no_folder_named_by_a_tilde_is_made(home, write_config, capsys):
    x, y = table_arrays()
    np.savez(home / "t.npz", x=x, y=y)
    shutil.copy(write_config(data_path="~/t.npz", epochs=1), home / "c.json")
    (home / "s.json").write_text(json.dumps({"config": "~/c.json", "attacks": "gap"}))
    assert pretrain.main(["cpu", "~/c.json", "--results", "~/r/s/seed_7"]) == 0
    assert (home / "r/s/seed_7/tiny_columnfc/victim_model/best.pth").exists()
    assert study.main(["~/s.json", "--device", "cpu", "--results", "~/r"]) == 0
    assert report.main(["~/r", "--study", "~/s.json", "--out", "~/page"]) == 0
    assert (home / "page/report.html").exists() and not list(Path.cwd().iterdir())
    assert str(home) in capsys.readouterr().out


@pytest.mark.parametrize("place", ["config", "command line", "MIA_DATA"])
def test_a_home_that_nobody_has(place, write_config, monkeypatch, capsys):
    config = write_config(**{"results": "~nobody-here/r"} if place == "config" else {})
    if place == "MIA_DATA":
        monkeypatch.setenv("MIA_DATA", "~nobody-here")
    assert (
        pretrain.main(["cpu", config, *["--results", "~nobody-here/r"] * (place == "command line")])
        == 2
    )
    error = capsys.readouterr().err
    assert "there is no home folder '~nobody-here'" in error and error.count("\n") == 1
    assert {"config": "results", "command line": "--results", "MIA_DATA": "MIA_DATA"}[
        place
    ] in error
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "main, words, says",
    [
        (pretrain.main, ["cpu", "CONFIG", "--results", ""], "--results must be a path, not ''"),
        (pretrain.main, ["cpu", "CONFIG", "--data_root", ""], "--data_root must be a path, not ''"),
        (study.main, ["STUDY", "--results", ""], "--results: must be a path, not ''"),
        (report.main, [""], "results: must be a path, not ''"),
        (report.main, [".", "--out", ""], "--out: must be a path, not ''"),
        (
            mia.main,
            ["cpu", "CONFIG", "--results", "afile"],
            "results: afile is a file; a folder is needed",
        ),
        (pretrain.main, ["cpu", "CONFIG", "--results", "afile"], "cannot write in afile"),
        (
            study.main,
            ["STUDY", "--results", "afile"],
            "--results: afile is a file; a folder is needed",
        ),
        (
            study.main,
            ["STUDY", "--results", "dangling"],
            "--results: dangling is a link to nothing, where nothing lies",
        ),
        (report.main, ["afile"], "afile"),
    ],
)
def test_folders_that_are_none(main, words, says, write_config, tmp_path, capsys):
    Path("afile").write_text("")
    os.symlink("nothing", "dangling")
    (tmp_path / "s.json").write_text(json.dumps({"config": write_config(), "attacks": "gap"}))
    named = {"CONFIG": write_config(), "STUDY": str(tmp_path / "s.json")}
    assert main([named.get(word, word) for word in words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert {path.name for path in Path.cwd().iterdir()} == {"afile", "dangling"}

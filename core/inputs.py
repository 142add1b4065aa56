"""What users name and write: paths, and objects in JSON files. An error is one line that says what
is wrong with them."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from core.console import UserError

PROJECT = Path(__file__).resolve().parent.parent


def expand_home(path: str) -> str:
    """The path with a leading `~` or `~user` replaced by that home folder.

    Raises UserError where there is none: a folder named "~" would be made, which `rm -r ~` does not
    remove.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UserError(
            f"there is no home folder {path.split('/')[0]!r} (a file of that name is './{path}')"
        )
    return expanded


def path_argument(text: str) -> str:
    """A path on a command line; the `type` of an argument of argparse."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, not ''")
    return expand_home(text)


def locate(path: str | Path, what: str, *, beside: Iterable[Path] = ()) -> str:
    """The path of a file that is looked for in the working folder, then in the folders `beside`,
    then in this repository, so that what comes along is found from anywhere.

    Raises UserError where it is nowhere; `what` names the file's kind.
    """
    path = expand_home(str(path))
    folders = dict.fromkeys([Path.cwd(), *(Path(folder).absolute() for folder in beside), PROJECT])
    if not path:
        raise UserError(f"{what}: a path is missing")
    if os.path.exists(path):
        return path
    if os.path.islink(path):
        raise UserError(f"{what} {path} is a link to {os.readlink(path)}, where nothing lies")
    if os.path.isabs(path):
        raise UserError(f"{what} {path}: No such file or directory")
    for folder in folders:
        if os.path.exists(folder / path):
            return str(folder / path)
    near = _nearest_file(path, list(folders))
    raise UserError(
        f"{what} {path}: No such file or directory in {' or '.join(map(str, folders))}{near}"
    )


def _nearest_file(path: str, folders: list[Path]) -> str:
    """', did you mean PATH?' for the file of the name most like the path's, in the same place below
    one of these folders; nothing where none is alike."""
    parent, name = os.path.split(path)
    for folder in folders:
        place = folder / parent
        names = os.listdir(place) if os.path.isdir(place) and os.access(place, os.R_OK) else []
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
        if close:
            return f"; did you mean {os.path.join(parent, close[0])!r}?"
    return ""


def check_folder(what: str, path: str | Path) -> None:
    """Raise UserError where something that is no folder lies at the path; nothing may lie there."""
    if os.path.islink(path) and not os.path.exists(path):
        raise UserError(f"{what}: {path} is a link to {os.readlink(path)}, where nothing lies")
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{what}: {path} is a file; a folder is needed")


def read_object(path: str | Path, what: str) -> dict:
    """The object in a JSON file, found by `locate`: UTF-8 with or without a byte order mark (RFC
    8259).

    Raises UserError where there is none, a key stands twice in an object, or a number is NaN or
    infinite; `what` names the file's kind.
    """
    path = locate(path, what)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{what} {path}: {error.strerror or error}") from error
    if not content.strip():
        raise UserError(f"{what} {path} is empty: a JSON object of options is needed")
    try:
        parsed = json.loads(
            _text(content), object_pairs_hook=_each_key_once, parse_constant=_no_number
        )
        json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(
            f"{what} {path} is not JSON: {error}{_hint(error.doc, error.pos)}"
        ) from error
    except UnicodeEncodeError as error:  # from "\ud800": text that cannot be written
        raise UserError(
            f"{what} {path} is not JSON: {error.object[error.start]!a} is half a character"
        ) from error
    except UserError as error:
        raise UserError(f"{what} {path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} {path} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise UserError(
            f"{what} {path} must be a JSON object of options, not a {type(parsed).__name__}"
        )
    return parsed


def _text(content: bytes) -> str:
    encoding = json.detect_encoding(content)
    if not encoding.startswith("utf-8"):
        raise ValueError(f"it seems to be {encoding.upper()} text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save it as UTF-8") from error


def _each_key_once(pairs: list[tuple[str, object]]) -> dict:
    """The object of these pairs, of which json would take the last without a word."""
    parsed: dict = {}
    for key, value in pairs:
        if key in parsed:
            raise UserError(f"key {key!r} stands twice")
        parsed[key] = value
    return parsed


def _no_number(word: str):
    raise ValueError(f"{word} is not a number")


def _hint(text: str, at: int) -> str:
    """What often stands where JSON ends."""
    rest, before = text[at:], text[:at].rstrip()
    if re.match(r",?\s*[}\]]", rest) and (rest.startswith(",") or before.endswith(",")):
        return "; no comma may stand before a closing bracket"
    if rest.startswith("'"):
        return "; JSON puts keys and texts in double quotes"
    if rest.startswith(("#", "//", "/*")):
        return "; JSON has no comments"
    if rest.startswith(("True", "False", "None")):
        return "; JSON writes true, false and null"
    return ""

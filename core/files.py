"""How files are written and read: whole or not at all, with digests, without pickle, one process at
a time."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from core.console import UserError


def packed(content) -> bytes:
    import torch

    buffer = io.BytesIO()  # not into the file itself: torch makes its own error of a full disk
    torch.save(content, buffer)
    return buffer.getvalue()


def unpack(content: bytes):
    import torch

    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def unpacked(path: Path, digest: str):
    """The content of a file that has this digest. Raises UserError where it has another."""
    with user_error_if_damaged(path):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its digest is not the manifest's")
        return unpack(content)


def check_digest(path: Path, digest: str) -> None:
    """Raise UserError where a file has not this digest."""
    found = file_digest(path)
    with user_error_if_damaged(path):
        if found != digest:
            raise ValueError("its digest is not the manifest's")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, read piece by piece; "" of what is no file."""
    if not path.is_file():
        return ""
    with user_error_if_damaged(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_digest(*arrays: np.ndarray) -> str:
    """Tells arrays from any others of their kind."""
    return hashlib.sha256(b"|".join(array.tobytes() for array in arrays)).hexdigest()


def digested(content) -> bytes:
    """The bytes of tensors and plain values, behind their digest; read by `read_digested`."""
    content = packed(content)
    return hashlib.sha256(content).digest() + content


def read_digested(path: Path):
    with user_error_if_damaged(path):
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("its digest is another")
        return unpack(content[32:])


def sealed(facts: dict) -> dict:
    """The facts with their digest; what has been read is so tested by `tested`."""
    return facts | {
        "sha256": hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    }


def tested(text: str) -> dict:
    facts = json.loads(text)
    digest = facts.pop("sha256")
    if sealed(facts)["sha256"] != digest:
        raise ValueError("its digest is another")
    return facts


def sealed_json(facts: dict) -> bytes:
    return json.dumps(sealed(facts), indent=1).encode()


def read_sealed(path: Path) -> dict:
    with user_error_if_damaged(path):
        return tested(path.read_text(encoding="utf-8"))


def packed_arrays(facts: dict, arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an .npz file: arrays, and as JSON text under `facts` these facts and digests of
    the arrays."""
    buffer = io.BytesIO()
    digests = {name: _digest(array) for name, array in arrays.items()}
    text = np.array(json.dumps(sealed(facts | {"arrays": digests})))
    content: dict[str, Any] = {"facts": text, **arrays}
    np.savez(buffer, **content)
    return buffer.getvalue()


def read_arrays(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Facts and arrays of such a file, tested against their digests."""
    with user_error_if_damaged(path), np.load(path, allow_pickle=False) as file:
        facts = tested(str(file["facts"]))
        arrays = {name: file[name] for name in facts["arrays"]}
        if {name: _digest(array) for name, array in arrays.items()} != facts.pop("arrays"):
            raise ValueError("a digest is another")
        return facts, arrays


def _digest(array: np.ndarray) -> str:
    about = f"{array.dtype.str} {array.shape}".encode()
    return hashlib.sha256(about + np.ascontiguousarray(array).tobytes()).hexdigest()


def write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, or raise a UserError and leave none of them behind."""
    absent = [parent for parent in (folder, *folder.parents) if not os.path.exists(parent)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for parent in absent:  # those that could be made on the way
            with suppress(OSError):
                parent.rmdir()
        raise UserError(f"cannot write in {folder}: {error.strerror or error}") from error


@contextmanager
def locked(folder: Path, what: str, *, wait: float, makes: Iterable[str] = ()):
    """Hold a folder's lock of this name; it is gone with the process that holds it, however that
    ends.

    Args:
        makes: files whose names start so are made under this lock: what is half written of them is
            removed.
    Raises:
        UserError: another process holds it after `wait` seconds.
    """
    import filelock

    make_folder(folder)
    holder, lock = folder / f".{what}.lock.json", filelock.FileLock(folder / f".{what}.lock")
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout:
        try:
            other = json.loads(holder.read_text())
            who = f"process {other['pid']} on {other['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        raise UserError(
            f"{folder} is being made by {who}: wait until it has ended, or use another folder"
        ) from None
    except OSError as error:
        raise UserError(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        stage = (
            multiprocessing.parent_process() or multiprocessing.current_process()
        )  # workers are its children
        write(holder, json.dumps({"pid": stage.pid, "host": socket.gethostname()}).encode())
        mine = (f"..{what}.lock.", *(f".{name}" for name in makes))
        for left in folder.glob(".*.part"):  # by a process that was killed while it wrote
            if left.name.startswith(mine):
                left.unlink(missing_ok=True)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


@contextmanager
def atomic_write(path: Path):
    """A binary file that takes the place of `path` when all of it is on disk, and never in part."""
    make_folder(path.parent)
    try:
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise UserError(f"cannot write in {path.parent}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException as error:
        Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        raise


@contextmanager
def user_error_if_damaged(path: Path):
    """Turn what a damaged file makes its reader raise into a UserError."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # pickle, zip and json raise nearly anything on damaged bytes
        raise UserError(
            f"cannot read {path} ({type(error).__name__}): it is damaged; remove it and give the "
            f"command again that made it"
        )

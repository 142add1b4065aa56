"""Files that come from elsewhere: fetched once, their digests tested, archives read as streams."""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from core.console import UserError

LONGEST_LINE = 1 << 20  # bytes: a line of a broken file may be endless
# What readers of files raise: torchvision's of MNIST asserts, a forged size asks for too much
# memory.
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    AssertionError,
    MemoryError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    http.client.HTTPException,
)


def in_one_line(error: BaseException) -> str:
    """An error's message in one line, or the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def user_error_if_unreadable(
    path: Path, remedy: str = "copy it again, or remove it to have it downloaded"
) -> Iterator[None]:
    """Turn whatever a damaged or unexpected file makes its reader raise into a UserError."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; make it readable (chmod +r)"
        ) from error
    except Exception as error:
        # numpy alone raises SyntaxError, TokenError and OverflowError on a damaged header
        raise UserError(f"cannot read {path}: {in_one_line(error)}; {remedy}") from error


def fetch(address: str, folder: Path, *, sha256: str | None) -> Path:
    """The path of the file at an address: the one in `folder`, else a fresh download.

    Args:
        sha256: the file's digest; None where none is published.
    Raises:
        UserError: it cannot be downloaded, or has another digest.
    """
    path = folder / address.rpartition("/")[2]
    if not os.path.exists(path):  # unlike Path.exists, False also for a name that is too long
        from torchvision.datasets.utils import download_url

        try:
            folder.mkdir(parents=True, exist_ok=True)
            # in a folder of its own: an interrupted download leaves no half archive
            with tempfile.TemporaryDirectory(dir=folder) as unfinished:
                download_url(address, unfinished, path.name)
                os.replace(Path(unfinished, path.name), path)
        except DAMAGE as error:
            remedy = f"put {path.name} into {folder} yourself"
            raise UserError(
                f"cannot download {address} ({in_one_line(error)}): {remedy}"
            ) from error
    if sha256 is not None:
        check_digest(path, "sha256", sha256)
    return path


def check_digest(path: Path, kind: str, expected: str) -> None:
    """Raise UserError where a file has another digest; `kind` is hashlib's name of it."""
    with user_error_if_unreadable(path), open(path, "rb") as file:
        digest = hashlib.file_digest(file, kind).hexdigest()
    if digest != expected:
        title = {"md5": "MD5"}.get(kind, kind)
        raise UserError(
            f"{path} is not the file it should be (copy it again, or remove it to have it "
            f"downloaded): expected {title} {expected}, found {digest}"
        )


def tar_lines(path: Path, members: set[str]) -> Iterator[tuple[str, str, bytes]]:
    """(member, "member, line 7", line) for every line of these members of a .tgz.

    They are read as streams: nothing is unpacked to disk, whatever names and links the archive has.

    Raises:
        ValueError: a member is missing, or is no plain file.
    """
    missing = set(members)
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            stream = archive.extractfile(member) if name in missing and member.isreg() else None
            if stream is None:
                continue
            missing.remove(name)
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE), b""), 1):
                yield name, f"{name}, line {number}", line.rstrip(b"\r\n")
        # to the end, where gzip tests its own checksum
        while archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass
    if missing:
        raise ValueError(f"there is no file {min(missing)} in it")

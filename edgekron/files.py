"""Writes files and folders whole or not at all: under a temporary name beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


def write_file(path: str | Path, data: bytes | str, force: bool = False) -> None:
    """Writes a file whole or not at all; missing parent folders are made.

    Raises ``UserError`` when the file exists and ``force`` is not set, the disk is full, or it cannot be written there.
    """
    target = Path(path)
    refuse_existing(target, force)
    content = data.encode() if isinstance(data, str) else data
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(path: str | Path, force: bool = False, *, replaces: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well, and vanishes when the block fails.

    Raises ``UserError`` as ``write_file`` does. With ``force`` an old folder is replaced once the new one is whole, but
    only if all of its entries are named in ``replaces``: the user's own files are not ours to delete.
    """
    target = Path(path)
    refuse_existing(target, force, replaces)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield folder
            folder.chmod(0o777 & ~_umask())
            old = folder.with_name(f"{folder.name}.old")
            if target.exists():
                target.rename(old)
            try:
                folder.rename(target)
            except BaseException:
                if old.exists():
                    old.rename(target)
                raise
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def refuse_existing(path: str | Path, force: bool, replaces: Collection[str] = ()) -> None:
    """Raises ``UserError`` for a path that ``write_file`` or ``new_folder`` would refuse; call it before long work."""
    if os.path.lexists(path) and not force:
        raise UserError(f"{path} exists; choose another name, or give --force to replace it.")
    target = Path(path)
    others = sorted(p.name for p in target.iterdir() if p.name not in replaces) if target.is_dir() else []
    if others:
        raise UserError(f"{target} holds other files, such as {others[0]}; choose another folder, or move them away.")


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(f"there is no room left on the disk for {target}; free some and run this again.") from None
        raise UserError(f"{target} cannot be written ({error.strerror or error}); choose another place.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

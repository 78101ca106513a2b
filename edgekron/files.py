"""Writing files so that nothing is ever half-written: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
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
def new_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises ``UserError`` as ``write_file`` does. With ``force`` an old folder is replaced once the new one is whole.
    """
    target = Path(path)
    refuse_existing(target, force)
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield folder
            folder.chmod(0o777 & ~_umask())
            if target.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
                target.rename(old / "old")
                try:
                    folder.rename(target)
                except BaseException:
                    (old / "old").rename(target)
                    raise
                finally:
                    shutil.rmtree(old)
            else:
                folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def refuse_existing(path: str | Path, force: bool) -> None:
    """Raises ``UserError`` when ``path`` exists and ``force`` is not set: to be called before long work begins."""
    if os.path.lexists(path) and not force:
        raise UserError(f"{path} exists; choose another name, or give --force to replace it.")


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

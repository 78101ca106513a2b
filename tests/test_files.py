"""Files and folders appear whole or not at all."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgekron.errors import UserError
from edgekron.files import new_folder, refuse_existing, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("data", "bytes_"), [(b"\x00\xff", b"\x00\xff"), ("é\n", b"\xc3\xa9\n"), (b"", b"")])
def test_writes_bytes_and_text(tmp_path, data, bytes_):
    write_file(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == bytes_
    assert names(tmp_path) == ["a"]


def test_makes_missing_parents(tmp_path):
    write_file(tmp_path / "x" / "y" / "a", b"1")
    with new_folder(tmp_path / "p" / "q" / "out") as folder:
        (folder / "b").write_text("2")
    assert (tmp_path / "x" / "y" / "a").read_bytes() == b"1"
    assert (tmp_path / "p" / "q" / "out" / "b").read_text() == "2"


def test_gives_the_usual_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"1")
        with new_folder(tmp_path / "out"):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_an_existing_file_needs_force(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"a exists; .*--force"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    write_file(path, b"new", force=True)
    assert path.read_bytes() == b"new"


def test_an_existing_folder_needs_force(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(UserError, match="--force"), new_folder(path):
        pytest.fail("the block must not run")
    with new_folder(path, force=True, replaces={"old", "new"}) as folder:
        (folder / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_folder_with_the_user_s_own_files_is_never_replaced(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()
    (path / "thesis.txt").write_text("years")
    for call in (new_folder(path, True, replaces={"old"}).__enter__, lambda: refuse_existing(path, True, {"old"})):
        with pytest.raises(UserError, match="holds other files, such as thesis.txt"):
            call()
    assert (path / "thesis.txt").read_text() == "years"
    assert names(tmp_path) == ["out"]


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="--force"):
        refuse_existing(tmp_path / "link", force=False)


def test_a_failed_block_leaves_the_old_folder(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").touch()

    def fail() -> None:
        with new_folder(path, force=True, replaces={"old"}) as folder:
            (folder / "new").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("target", ["file/a", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, target):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"{target} cannot be written"):
        write_file(tmp_path / target, b"1", force=True)
    assert names(tmp_path) == ["file", "folder"]
    assert names(tmp_path / "folder") == []


FULL = textwrap.dedent("""
    import os, sys
    from edgekron.errors import UserError
    from edgekron.files import new_folder, write_file

    os.chdir(sys.argv[1])
    write_file("kept", b"1" * 1000)
    for force, name in ((False, "new"), (True, "kept")):
        try:
            write_file(name, b"2" * 1_000_000, force=force)
        except UserError as error:
            print(error)
        try:
            with new_folder("out") as folder:
                (folder / "a").write_bytes(b"3" * 1_000_000)
        except UserError as error:
            print(error)
    print(sorted(os.listdir()), open("kept", "rb").read() == b"1" * 1000)
""")
EXPECTED = [
    "there is no room left on the disk for new; free some and run this again.",
    "there is no room left on the disk for out; free some and run this again.",
    "there is no room left on the disk for kept; free some and run this again.",
    "there is no room left on the disk for out; free some and run this again.",
    "['kept'] True",
]


def test_a_file_larger_than_allowed_leaves_nothing(tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + FULL
    result = subprocess.run([sys.executable, "-c", limited, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == EXPECTED


def test_a_full_disk_leaves_nothing(tmp_path):
    """On a file system of 256 KiB, mounted in a namespace of its own: it is gone with the process."""
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1"'
    probe = [*private, "sh", "-c", 'mount -t tmpfs none "$1"', "sh", str(tmp_path)]
    try:
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            pytest.skip("this system lets nobody mount a file system")
    except FileNotFoundError:
        pytest.skip("this system has no unshare")
    command = [*private, "sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == EXPECTED

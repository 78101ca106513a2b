"""The emulated boards without an emulator: their descriptions, the packages they are made of, the installation."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from edgekron.runtimes import RuntimeFailure
from edgekron.runtimes.devices.emulation import BOARDS, Installation, build, find_board, wheels
from edgekron.runtimes.devices.emulation.build import compile_counter, link_boards, merge_usr, qemu_version
from edgekron.runtimes.devices.emulation.installation import key
from edgekron.runtimes.devices.emulation.packages import PackageSource, last_error, settings

PI4 = find_board("pi4")


@pytest.mark.parametrize(
    ("name", "cpu", "part", "feature"),
    [("pi3", "cortex-a53", 0xD03, None), ("pi4", "cortex-a72", 0xD08, None), ("pi5", "cortex-a76", 0xD0B, "asimddp")],
)
def test_a_board_describes_its_own_processor(name, cpu, part, feature):
    board = find_board(name)
    cores = [dict(re.findall(r"^(.+?)\s*: (.*)$", core, re.MULTILINE)) for core in board.cpuinfo().split("\n\n")]
    assert [core.get("processor") for core in cores] == ["0", "1", "2", "3", None]
    assert all(int(core["CPU part"], 16) == part and core["CPU implementer"] == "0x41" for core in cores[:4])
    assert ("asimddp" in cores[0]["Features"].split()) == (feature == "asimddp")
    assert cores[4]["Model"] == board.title
    assert board.cpu == cpu
    assert board.files()["sys/devices/system/cpu/possible"] == "0-3\n"


def test_an_unknown_board_is_refused_with_the_known_ones():
    with pytest.raises(RuntimeFailure, match=r"no emulated board 'pi6'; use one of pi3, pi4, pi5\."):
        find_board("pi6")


# Packages


def test_apt_keeps_its_hands_off_the_machine(tmp_path):
    text = settings(tmp_path, "arm64", None)
    assert f'Dir::State "{tmp_path}"' in text
    assert f'Dir::State::status "{tmp_path}/status"' in text
    assert 'APT::Architecture "arm64"' in text
    assert "SourceList" not in text
    own = settings(tmp_path, None, tmp_path / "mirror.list")
    assert "APT::Architecture" not in own
    assert 'status "/var/lib/dpkg/status"' in own
    assert f'Dir::Etc::SourceList "{tmp_path}/mirror.list"' in own


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """programs(name=script) puts Python scripts on an otherwise empty path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**scripts: str) -> None:
        for name, script in scripts.items():
            file = folder / name.replace("_", "-")
            file.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
            file.chmod(0o755)

    return put


def test_a_machine_without_apt_is_refused(tmp_path, programs):
    with pytest.raises(RuntimeFailure, match=r"apt-get is not on this machine.*use a Debian"):
        PackageSource(tmp_path / "apt")


def test_sources_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(RuntimeFailure, match=r"mirror\.list does not exist"):
        PackageSource(tmp_path / "apt", "arm64", tmp_path / "mirror.list")


def test_a_package_that_apt_does_not_have_is_refused(tmp_path, programs):
    programs(
        apt_get="print('E: Unable to locate package x', file=sys.stderr); sys.exit(100)", apt_cache="", dpkg_deb=""
    )
    source = PackageSource(tmp_path / "apt", "arm64")
    with pytest.raises(RuntimeFailure, match=r"provide x, y for arm64 \(E: Unable to locate package x\); check"):
        source.unpack(["x", "y"], tmp_path / "root")


def test_sources_that_cannot_be_reached_are_the_reason(tmp_path, programs):
    script = "print('E: No network' if 'update' in sys.argv else 'E: Unable to locate', file=sys.stderr); sys.exit(100)"
    programs(apt_get=script, apt_cache="", dpkg_deb="")
    source = PackageSource(tmp_path / "apt", "arm64")
    source.update()
    with pytest.raises(RuntimeFailure, match=r"\(E: No network\)"):
        source.unpack(["x"], tmp_path / "root")


def test_packages_are_unpacked_where_they_are_wanted(tmp_path, programs):
    download = (
        "import pathlib, os\n"
        "where = [w.partition('=')[2] for w in sys.argv if w.startswith('Dir::Cache::archives=')] or [os.getcwd()]\n"
        "pathlib.Path(where[0], 'a.deb').write_text(' '.join(sys.argv[3:]))"
    )
    unpack = "import shutil; shutil.copy(sys.argv[2], sys.argv[3])"
    programs(apt_get=download, apt_cache="print('x\\n  Depends: one\\n  Recommends: two')", dpkg_deb=unpack)
    source = PackageSource(tmp_path / "apt")
    source.unpack(["x"], tmp_path / "with")
    source.unpack(["x"], tmp_path / "without", dependencies=False)
    assert "install x" in (tmp_path / "with/a.deb").read_text()
    assert "download x" in (tmp_path / "without/a.deb").read_text()
    assert source.dependencies("x") == ["one"]
    assert not (tmp_path / "apt/archives").exists()


def test_the_last_error_is_the_one_that_is_told():
    assert last_error("E: first\nE: second\nW: a warning\n") == "E: second"
    assert last_error("one\ntwo\n\n") == "two"
    assert last_error("") == "no reason given"


def test_wheels_of_every_older_library_are_taken():
    names = wheels.platforms(36)
    assert names[0] == "manylinux_2_36_aarch64"
    assert names[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert len(names) == 21


def test_the_board_gets_the_versions_of_this_machine():
    wanted = wheels.requirements()
    assert f"numpy=={metadata.version('numpy')}" in wanted
    assert f"onnxruntime=={metadata.version('onnxruntime')}" in wanted


def test_the_version_of_a_c_library(tmp_path):
    folder = tmp_path / "lib/aarch64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libc.so.6").write_bytes(b"\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n\0")
    assert wheels.libc_minor(tmp_path) == 36
    with pytest.raises(RuntimeFailure, match="holds no C library"):
        wheels.libc_minor(tmp_path / "elsewhere")


# Building


def test_the_links_that_no_package_brings(tmp_path):
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "bin").mkdir()
    merge_usr(tmp_path)
    assert (tmp_path / "lib").readlink() == Path("usr/lib")
    assert not (tmp_path / "bin").is_symlink()
    assert not (tmp_path / "sbin").exists()


def test_a_board_is_the_system_with_its_own_files(tmp_path):
    (tmp_path / "root/usr/bin").mkdir(parents=True)
    (tmp_path / "root/usr/bin/python3.11").touch()
    (tmp_path / "root/proc").mkdir()
    link_boards(tmp_path)
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)  # links must not depend on the place
    for name, board in BOARDS.items():
        root = moved / "boards" / name
        assert (root / "usr/bin/python3.11").exists()
        assert (root / "proc/cpuinfo").read_text() == board.cpuinfo()
        assert list((root / "sys/class/thermal").glob("thermal_zone*")) == []


@pytest.mark.parametrize(
    ("compiler", "sentence"),
    [("/nowhere/cc", r"/nowhere/cc cannot be started \(No such file"), ("false", r"false cannot compile the")],
)
def test_a_compiler_that_does_not_work_is_named(compiler, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(RuntimeFailure, match=sentence):
        compile_counter(tmp_path / "counter.so")


def test_the_version_of_qemu(tmp_path, programs):
    programs(good="print('qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)')", bad="sys.exit('no such library')")
    assert qemu_version([str(tmp_path / "bin/good")], []) == "7.2.22"
    with pytest.raises(RuntimeFailure, match=r"bad does not start \(no such library\)"):
        qemu_version([str(tmp_path / "bin/bad")], [])


# The installation


def test_an_installation_comes_back_from_its_folder(installation):
    assert Installation.open(installation.folder.parent, "pi4") == installation
    assert build(PI4, installation.folder.parent) == installation  # nothing is built again


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        (None, r"emulated:pi4 has not been built on this machine; run `edgekron devices emulate pi4`\."),
        ("{", r"manifest\.json cannot be read"),
        ("{}", r"emulated:pi4 was built for other versions"),
    ],
)
def test_an_installation_that_does_not_serve_is_refused(manifest, sentence, tmp_path):
    if manifest is not None:
        (tmp_path / "arm64").mkdir()
        (tmp_path / "arm64/manifest.json").write_text(manifest)
    with pytest.raises(RuntimeFailure, match=sentence):
        Installation.open(tmp_path, "pi4")


def test_the_key_follows_the_versions(monkeypatch):
    before = key()
    monkeypatch.setattr(wheels, "requirements", lambda: ["numpy==1"])
    assert key() == before  # imported by name
    monkeypatch.setattr("edgekron.runtimes.devices.emulation.installation.requirements", lambda: ["numpy==1"])
    assert key() != before


def test_the_command_line_names_the_board(installation):
    folder = installation.folder
    words = installation.command(PI4, count_to=Path("/tmp/c,d"))
    assert words[:5] == [f"{folder}/host/usr/bin/qemu-aarch64", "-cpu", "cortex-a72", "-L", f"{folder}/boards/pi4"]
    doubled = str(folder).replace(",", ",,")
    assert words[5:7] == ["-plugin", f"{doubled}/counter.so,out=/tmp/c,,d"]
    assert words[7:] == [f"{folder}/boards/pi4/usr/bin/python3.11"]
    assert "-plugin" not in installation.command(PI4)
    absolute = replace(installation, qemu="/usr/bin/qemu-aarch64")
    assert absolute.command(PI4)[0] == "/usr/bin/qemu-aarch64"


def test_nothing_of_this_machine_leaks_into_the_board(installation, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    (installation.folder / "host/usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    environment = installation.environment(Path("/home/x"))
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["PYTHONPATH"] == f"{installation.folder}/site"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["LD_LIBRARY_PATH"].endswith("x86_64-linux-gnu")
    assert environment["QEMU_UNSET_ENV"] == "LD_LIBRARY_PATH"

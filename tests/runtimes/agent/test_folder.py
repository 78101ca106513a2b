"""The agent's folder is all that runs on a board: what it imports, the Python that it needs, and how it is packed."""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekron.runtimes import agent
from edgekron.runtimes.archive import archive

FOLDER = Path(agent.__file__).parent
FILES = {file.relative_to(FOLDER).as_posix(): file for file in sorted(FOLDER.rglob("*.py"))}
AGENT = "edgekron.runtimes.agent"
#: Younger than Python 3.9.
STANDARD = set(sys.stdlib_module_names) - {"tomllib"}
#: What these import on the machine that measures, when a file needs it.
RUNTIMES = {
    "backends/onnxruntime.py": {"onnxruntime"},
    "backends/litert.py": {"ai_edge_litert", "tflite_runtime"},
    "arena.py": {"tflite_micro"},
}


def imported(file: str) -> Iterator[str]:
    """Absolute names of the modules that a file imports, by statement or by ``importlib``."""
    package = ".".join([AGENT, *Path(file).parent.parts])
    for node in ast.walk(ast.parse(FILES[file].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            yield ".".join(part for part in (base, node.module) if part)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            # A name that is no constant is one of the file's own table of runtimes.
            (name,) = node.args
            yield from [name.value] if isinstance(name, ast.Constant) else RUNTIMES.get(file, ())


def test_the_folder_is_complete():
    assert len(FILES) >= 18
    assert set(RUNTIMES) <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_every_module_is_python_3_9(file):
    ast.parse(FILES[file].read_text(), file, feature_version=(3, 9))


@pytest.mark.parametrize("file", FILES)
def test_modules_import_the_agent_numpy_and_the_standard_library_alone(file):
    allowed = STANDARD | {"numpy"} | RUNTIMES.get(file, set())
    strangers = {
        name
        for name in imported(file)
        if name != AGENT and not name.startswith(f"{AGENT}.") and name.partition(".")[0] not in allowed
    }
    assert strangers == set()


def test_the_archive_is_reproducible_and_holds_the_folder_and_nothing_else():
    packed = archive()
    assert packed == archive()
    with zipfile.ZipFile(io.BytesIO(packed)) as file:
        held = {name: file.read(name).decode() for name in file.namelist()}
    place = AGENT.replace(".", "/")
    assert {held.pop(f"{place}/{name}") for name in FILES} == {path.read_text() for path in FILES.values()}
    assert held.pop("edgekron/__init__.py") == held.pop("edgekron/runtimes/__init__.py") == ""
    assert list(held) == ["__main__.py"]

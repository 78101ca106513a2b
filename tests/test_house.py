"""The house: imports point one way, the list of packages is complete, and light commands stay light."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PLACES = {
    "edgekron.exporters": ROOT / "exporters",
    "edgekron.models": ROOT / "models",
    "edgekron.runtimes": ROOT / "runtimes",
    "edgekron": ROOT / "edgekron",
}
HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "ai_edge_litert", "matplotlib", "scipy", "jinja2")


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module; a package's is that of its ``__init__``, ending in a dot."""
    for package, folder in PLACES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *parts]).removesuffix("__init__"), file


MODULES = dict(modules())


def imports(name: str) -> set[str]:
    """Absolute names of all that a module imports, ``TYPE_CHECKING`` blocks and function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(name.split(".")[: -node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            found |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return found


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


ROOMS = ("edgekron.cli", "edgekron.exporters", "edgekron.models", "edgekron.report", "edgekron.runtimes")

#: What the modules of a room must not import. The core is everything outside the other rooms.
FORBIDDEN = {
    "core": ROOMS,
    "edgekron.exporters": ("edgekron.cli", "edgekron.models", "edgekron.report"),
    "edgekron.models": ("edgekron.cli", "edgekron.exporters", "edgekron.report", "edgekron.runtimes"),
    "edgekron.report": ("edgekron.cli",),
    "edgekron.runtimes": ("torch", "onnx", "onnx_ir", "onnxscript", "matplotlib", "scipy", "safetensors"),
}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    room = next((room for room in ROOMS if inside(name, room)), "core")
    wrong = {found for found in imports(name) if inside(found, *FORBIDDEN.get(room, ()))}
    if room == "edgekron.runtimes":
        wrong |= {found for found in imports(name) if inside(found, "edgekron") and not inside(found, room)}
    assert wrong == set()


def test_the_list_of_packages_is_complete():
    packages = {name.removesuffix(".") for name, file in MODULES.items() if file.name == "__init__.py"}
    assert packages == set(PROJECT["tool"]["setuptools"]["packages"])
    folders = {file.parent for file in MODULES.values()}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_the_lock_satisfies_every_dependency():
    lock = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
    lock = {key.lower().replace("_", "-"): value for key, value in lock.items()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]:
        name, least, limit = re.fullmatch(r"([\w-]+)>=([\d.]+),<([\d.]+)", requirement).groups()
        version = [int(n) for n in re.findall(r"\d+", lock[name])]
        assert [int(n) for n in least.split(".")] <= version < [int(n) for n in limit.split(".")], requirement


def run(script: str, *words: str | Path) -> str:
    result = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


LIGHT = f"""
import contextlib, io, sys
from edgekron.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print([name for name in {HEAVY} if name in sys.modules])
"""


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"], ["bench", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(words):
    assert run(LIGHT, *words) == "[]\n"


#: A board: numpy, rich and a runtime; every package of the compressor is missing.
BOARD = """
import sys
for name in "torch onnx onnx_ir onnxscript onnxsim matplotlib scipy safetensors tomlkit jinja2 PIL".split():
    sys.modules[name] = None
from edgekron.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(np.zeros((784, 10), np.float32), "w")],
    )
    path = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["bench", "--rounds", "2", "--seconds", "0.1"], "reference"),
        # Zero weights call every image class 0, a tenth of the test images.
        (["evaluate", "--data", "fashion-mnist:test", "--threads", "1"], "10.00"),
    ],
)
def test_a_board_measures_without_the_compressor(words, shown, linear):
    assert shown in run(BOARD, *words, linear)


def test_a_board_says_what_a_heavy_command_needs():
    command = [sys.executable, "-c", BOARD, "inspect", "sixconv"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'edgekron[compress]'" in result.stderr
    assert result.stderr.count("\n") == 1

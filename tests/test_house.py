"""The house: imports point one way and in no circle, its parts stay small, and light commands stay light."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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


TREES = {name: ast.parse(file.read_text()) for name, file in MODULES.items()}


def imports(name: str) -> set[str]:
    """Absolute names of all that a module imports, ``TYPE_CHECKING`` blocks and function bodies included; of a name
    that is taken from a module, the module, unless the name is a module of its own.
    """
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(name.split(".")[: -node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            inner = {f"{source}.{alias.name}" for alias in node.names}
            found |= {one if one in NAMES else source for one in inner}
    return found


#: The modules as they are imported, a package by its own name.
NAMES = {name.removesuffix("."): name for name in MODULES}


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


FOLDERS = ("edgekron.cli", "edgekron.exporters", "edgekron.models", "edgekron.report", "edgekron.runtimes")
#: The rooms of the core, each uses only those before it.
FLOORS = (
    "edgekron.algebra",
    "edgekron.structures",
    "edgekron.graph",
    "edgekron.fitting",
    "edgekron.planning",
    "edgekron.pruning",
    "edgekron.modules",
    "edgekron.compression",
    "edgekron.training",
)

#: What the modules of a room must not import. The core is everything outside the other folders.
FORBIDDEN = {
    "core": FOLDERS,
    "edgekron.exporters": ("edgekron.cli", "edgekron.models", "edgekron.report"),
    "edgekron.models": ("edgekron.cli", "edgekron.exporters", "edgekron.report", "edgekron.runtimes"),
    "edgekron.report": ("edgekron.cli",),
    "edgekron.runtimes": ("torch", "onnx", "onnx_ir", "onnxscript", "matplotlib", "scipy", "safetensors"),
}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    folder = next((folder for folder in FOLDERS if inside(name, folder)), "core")
    forbidden = FORBIDDEN.get(folder, ())
    if name in ("edgekron.", "edgekron.__main__"):
        forbidden = ()  # the face hands on names of all rooms, when they are asked for
    floor = next((index for index, room in enumerate(FLOORS) if inside(name, room)), None)
    if floor is not None:
        forbidden += FLOORS[floor + 1 :]
    wrong = {found for found in imports(name) if inside(found, *forbidden)}
    if folder == "edgekron.runtimes":
        wrong |= {found for found in imports(name) if inside(found, "edgekron") and not inside(found, folder)}
    assert wrong == set()


def test_imports_go_in_no_circle():
    graph = {name: {NAMES[found] for found in imports(name) if found in NAMES} - {name} for name in MODULES}
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_the_command_line_alone_reads_its_arguments():
    readers = {name for name in MODULES if "argparse" in imports(name)}
    alone = {name for name in readers if not inside(name, "edgekron.cli")}
    # The worker on a board and the scripts of the models are programs of their own.
    assert alone <= {"edgekron.runtimes.agent.main", "edgekron.models.train", "edgekron.exporters.tflite.table"}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name}.{node.name}", node


def test_files_and_functions_are_small():
    assert {str(file): n for file in MODULES.values() if (n := file.read_text().count("\n")) > 400} == {}
    long, wide = {}, {}
    for name, node in functions():
        lines = node.end_lineno - node.lineno + 1
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([one for one in given if one.arg not in ("self", "cls")])
        long |= {name: lines} if lines > 60 else {}
        wide |= {name: count} if count > 8 else {}
    assert long == {}
    assert wide == {}


def test_no_two_public_classes_share_a_name():
    places: dict[str, list[str]] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_top_of_the_package_is_seen_at_one_look():
    top = {name.split(".")[1] for name in NAMES if name.count(".") >= 1}
    assert len(top | {"__init__"}) <= 20, sorted(top)


def test_types_are_said():
    """``Any`` in signatures, and lines on which a check is switched off, become fewer and never more."""
    names = 0
    for _, node in functions():
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        said = [one.annotation for one in given if one is not None] + [node.returns]
        names += sum(any(isinstance(x, ast.Name) and x.id == "Any" for x in ast.walk(one)) for one in said if one)
    assert names <= 80
    silenced = re.compile(r"#\s*(?:noqa|type:\s*ignore)")
    assert sum(len(silenced.findall(file.read_text())) for file in MODULES.values()) <= 60


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

"""The table of operators in the documentation, made from the translators themselves.

    python -m edgekron.exporters.tflite.table > docs/operators.md

The column "becomes" is the docstring of a translator. The column "refused where" has the sentences of all ``refuse``
calls in the translator and in the functions that the translator calls, with … for values that depend on the node.
Nothing is written down twice, so that nothing can go out of date.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from types import FunctionType

import onnx

from .folding import SHAPES
from .functions import has_body
from .operators import TRANSLATORS

_PACKAGE = "edgekron.exporters.tflite"
#: Operators of constants and shapes, which are computed at export.
_FOLDED = {*SHAPES, "Constant", "ConstantOfShape", "Range"}
#: Methods of ``Call`` that refuse an input that is not constant; their second argument is the word for the input.
_CONSTANT = {"constant", "numbers", "vector", "parameter"}
_COMPUTED = "computed: "

_HEAD = """\
# Operators in TFLite files

Made by `python -m edgekron.exporters.tflite.table`; a test fails while it is not up to date.

Each ONNX operator below becomes operators of TFLite that give the same values, for every attribute that is not named as
refused. A refusal names the node and is made before anything is written. Values are float32; comparisons give booleans
and ArgMax int32. Results have at most five axes, and none is empty. One-dimensional convolutions and pools, and
three-dimensional ones that look along one axis, are rewritten as two-dimensional ones when a network is loaded. Parts
that depend on constants and shapes alone are computed at export, whatever their operators are.

| ONNX operator | becomes | refused where |
|---|---|---|
"""

_BY_BODY = """
## By definition

The standard defines these operators by others, all of them above, and they are exported as those:
{whole}.

Of these the definition depends on the node; they are exported where it comes to operators above, and refused elsewhere
by the name of the operator that is missing:
{depending}.

## Not covered

{missing}.
"""


def table() -> str:
    """The whole document."""
    rows = [f"| {name} | {_becomes(function)} | {_refused(function)} |\n" for name, function in sorted(_translators())]
    schemas = {s.name: s for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated}
    version = onnx.defs.onnx_opset_version()
    others = [name for name in sorted(schemas) if name not in TRANSLATORS and name not in _FOLDED]
    bodies = [name for name in others if has_body(name, version)]
    whole = [name for name in bodies if _made_of_known(schemas, name)]
    return (
        _HEAD
        + "".join(rows)
        + _BY_BODY.format(
            whole=_listed(whole),
            depending=_listed([name for name in bodies if name not in whole]),
            missing=_listed([name for name in others if name not in bodies]),
        )
    )


def _translators() -> Iterator[tuple[str, FunctionType]]:
    for name, function in TRANSLATORS.items():
        if isinstance(function, FunctionType):
            yield name, function


def _becomes(function: FunctionType) -> str:
    """The first paragraph of a docstring on one line."""
    paragraph = (inspect.getdoc(function) or "").split("\n\n")[0]
    return _cell(" ".join(paragraph.split()))


def _refused(function: FunctionType) -> str:
    reasons = list(dict.fromkeys(_reasons(function, set())))
    computed = [reason.removeprefix(_COMPUTED) for reason in reasons if reason.startswith(_COMPUTED)]
    said = [reason for reason in reasons if not reason.startswith(_COMPUTED)]
    if computed:
        said.insert(0, f"not constant: {', '.join(computed)}")
    return _cell("; ".join(said)) or "-"


def _reasons(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    """The reasons of a function's refusals, in the order of the source, then those of the functions called."""
    seen.add(function)
    calls = [n for n in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))) if isinstance(n, ast.Call)]
    for call in sorted(calls, key=lambda c: (c.lineno, c.col_offset)):
        match call.func:
            case ast.Attribute(attr="refuse"):
                yield _text(call.args[0])
            case ast.Attribute(attr=name) if name in _CONSTANT and len(call.args) > 1:
                if isinstance(call.args[1], ast.Constant):
                    yield f"{_COMPUTED}{call.args[1].value!s}"
            case ast.Name(id=name):
                called = inspect.unwrap(function.__globals__.get(name, print))
                if isinstance(called, FunctionType) and called.__module__.startswith(_PACKAGE) and called not in seen:
                    yield from _reasons(called, seen)


def _text(node: ast.expr) -> str:
    """A string of the source, with … for every value that is formatted into the string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
        case ast.Call(func=ast.Name(id="str")):
            return "the window or the padding does not fit the input"
        case _:
            return "…"


def _made_of_known(schemas: dict[str, onnx.defs.OpSchema], name: str) -> bool:
    """Whether the operator has a translator, or a body that is the same for every node and of such operators alone."""
    if name in TRANSLATORS or name in _FOLDED:
        return True
    body = schemas[name].function_body.node
    return bool(body) and all(_made_of_known(schemas, node.op_type) for node in body)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").rstrip(".")


def _listed(names: list[str]) -> str:
    return textwrap.fill(", ".join(names), 118, break_long_words=False)


if __name__ == "__main__":
    sys.stdout.write(table())

"""The shape that all versions take, and the case that their layers are compared on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgekron.errors import UserError
from edgekron.exporters.verify import Named, cases, common_shape
from edgekron.exporters.verify.inputs import main_case


def versions(*shapes: tuple[int, ...]) -> list[Named]:
    return [Named(f"v{i}", SimpleNamespace(input_shape=shape)) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(3, 8, 9)], (3, 8, 9)),
        ([(3, 0, 0), (3, 8, 9)], (3, 8, 9)),
        ([(3, 8, 0), (3, 0, 0), (3, 0, 9)], (3, 8, 9)),
    ],
)
def test_an_open_size_is_that_of_another_version(shapes: list[tuple[int, ...]], expected: tuple[int, ...]) -> None:
    assert common_shape(versions(*shapes)) == expected


@pytest.mark.parametrize("shapes", [[(3, 0, 0), (3, 0, 0)], [(3, 0, 0), (3, 8, 9)], [(3, 8, 9), (3, 8, 9)]])
def test_an_open_size_is_the_one_that_is_given(shapes: list[tuple[int, ...]]) -> None:
    assert common_shape(versions(*shapes), (3, 8, 9)) == (3, 8, 9)


def test_a_given_size_that_the_versions_do_not_take_is_refused() -> None:
    with pytest.raises(UserError, match=r"v0 takes \[3, 8, 0\], not \[3, 9, 9\]"):
        common_shape(versions((3, 8, 0), (3, 0, 0)), (3, 9, 9))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(3, 0, 0), (3, 8, 9), (3, 8, 8)], r"v1 takes \[3, 8, 9\] and v2 \[3, 8, 8\]"),
        ([(3, 8, 9), (3,)], r"v0 takes \[3, 8, 9\] and v1 \[3\]"),
        ([(3, 0, 9), (3, 0, 9)], "the size of the input is open in every version; give --input-shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        common_shape(versions(*shapes))


def test_layers_are_compared_on_real_images_or_the_largest_batch() -> None:
    images = np.zeros((2, 3, 4, 4), np.float32)
    inputs = list(cases((3, 4, 4), None))
    assert [name for name, _ in inputs] == [
        "random, batch 1", "random, batch 2", "random, batch 3", "zeros", "large (x100)", "impulse",
    ]  # fmt: skip
    assert [len(x) for _, x in inputs] == [1, 2, 3, 1, 1, 1]
    assert inputs[main_case(inputs, images=False)][0] == "random, batch 3"
    inputs = list(cases((3, 4, 4), images))
    assert inputs[main_case(inputs, images=True)][0] == "2 images"

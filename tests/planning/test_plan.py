"""Plans survive a round trip through TOML, and bad ones are refused with the layer and the remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekron.errors import UserError
from edgekron.planning.plan import CompressionPlan, LayerPlan

names = st.text("abc.\"'[]_0 é", min_size=1, max_size=12)
lines = st.one_of(
    st.builds(LayerPlan, reason=st.text(max_size=20)),
    st.builds(
        LayerPlan,
        method=st.just("kronecker"),
        shape=st.just("f 4x2, c 1x8, h 3x1, w 1x3"),
        ranks=st.lists(st.integers(1, 64), min_size=1, max_size=3).map(tuple),
        order=st.sampled_from([(0, 1), (1, 0)]),
        forms=st.fixed_dictionaries({"onnx": st.just(("fold", "matmul"))}),
    ),
)


@given(st.text("abc-", max_size=8), st.dictionaries(names, lines, max_size=4))
def test_round_trip(model: str, layers: dict[str, LayerPlan]) -> None:
    plan = CompressionPlan(model, layers)
    assert CompressionPlan.from_toml(plan.to_toml()) == plan


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version = ", "not valid TOML"),
        ("version = 2", "reads version 1"),
        ("version = 1\nlayers = 3", "layers must be tables"),
        ("version = 1\n[layers]\nconv1 = 3", "layer conv1.*a table is needed"),
        ("version = 1\n[layers.conv1]\nranks = 3", "layer conv1 has unknown keys"),
        ('version = 1\n[layers.conv1]\nrank = "many"', "rank must be a number"),
        ("version = 1\n[layers.conv1]\nrank = [3, 2.5]", "rank must be a number"),
        ('version = 1\n[layers.conv1]\nforms = ["fold"]', "forms must be a table"),
        ('version = 1\n[layers.conv1.forms]\nonnx = ["origami"]', "forms must be lists of grouped"),
    ],
)
def test_bad_plans_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        CompressionPlan.from_toml(text, "plan.toml")


def test_the_plan_of_another_model_names_its_layers() -> None:
    plan = CompressionPlan("net", {name: LayerPlan() for name in ("conv1", "stem", "head")})
    with pytest.raises(UserError, match=r"another model \(net\): it names layers stem, head, which"):
        plan.check_layers(["conv1", "conv2"])


def test_unknown_layer_gets_the_nearest_name() -> None:
    plan = CompressionPlan("net", {"layer1.conv": LayerPlan()})
    with pytest.raises(UserError, match=r"'layer1\.conv', .* did you mean 'layer1\.conv1'\?"):
        plan.check_layers(["layer1.conv1", "layer2.conv1"])

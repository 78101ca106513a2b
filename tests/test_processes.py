"""Images that several processes share: the same sums, samples and errors as one process finds, and one decision."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekron.compression.compressor import Compression, apply_plan, compress
from edgekron.errors import UserError
from edgekron.fitting.calibration import Sample, Walk, sample
from edgekron.fitting.output_error import OutputError
from edgekron.graph import Factorized, Hub, load
from edgekron.planning.plan import CompressionPlan, LayerPlan
from edgekron.processes import ALONE, Processes
from tests import detectors
from tests.networks import chain, smooth

T = TypeVar("T")

#: No multiple of any number of processes here, nor of the images that are in memory at once.
IMAGES = 29


class Meeting:
    """Where threads that stand for processes wait for each other. One runs at a time, until it waits."""

    def __init__(self, count: int) -> None:
        self.turn, self._all_here, self._brought = threading.Lock(), threading.Barrier(count), [torch.empty(0)] * count

    def sum(self, rank: int, value: Tensor) -> Tensor:
        self._brought[rank] = value.clone()
        self._wait()
        value.copy_(torch.stack(self._brought).sum(0))
        self._wait()
        return value

    def _wait(self) -> None:
        self.turn.release()
        try:
            self._all_here.wait()
        finally:
            self.turn.acquire()

    def leave(self) -> None:
        """Nobody is to wait any longer."""
        self._all_here.abort()


@dataclass(frozen=True)
class Thread(Processes):
    meeting: Meeting

    def sum(self, value: Tensor) -> Tensor:
        return self.meeting.sum(self.rank, value)


def together(count: int, work: Callable[[Processes], T]) -> list[T]:
    """What each of ``count`` processes finds."""
    meeting = Meeting(count)

    def run(rank: int) -> T:
        with meeting.turn:
            try:
                return work(Thread(rank, count, torch.device("cpu"), meeting))
            except BaseException:
                meeting.leave()
                raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@pytest.fixture(scope="module")
def hub() -> Hub:
    return chain()


@pytest.fixture(scope="module")
def data() -> list[np.ndarray]:
    images = smooth(IMAGES)
    return [images[:10], images[10:20], images[20:]]


def sampled(hub: Hub, data: list[np.ndarray], name: str, processes: Processes) -> Sample:
    layer = hub.layer(name)
    with Walk(hub, data, processes) as walk:
        walk.advance(layer)
        return sample(layer, torch.from_numpy(np.array(layer.kernel)), walk, walk, seed=3)


@pytest.mark.parametrize("count", [2, 3, 8, IMAGES])
@pytest.mark.parametrize("name", ["2", "8"])
def test_samples_are_those_of_one_process(hub, data, count, name):
    one = sampled(hub, data, name, ALONE)
    wanted = one.moments
    x = float((wanted.xx.diagonal(dim1=1, dim2=2) + wanted.mean_x.square()).max()) ** 0.5
    y = float(wanted.yy + wanted.mean_y.square().sum()) ** 0.5
    order = sorted(range(7, IMAGES, 8), key=lambda image: (image % count, image))
    for got in together(count, lambda processes: sampled(hub, data, name, processes)):
        assert got.moments.count == wanted.count
        # Products of patches are summed in float32, some hundred at a time, and these sums in float64: what another
        # order of the first changes is a share of the moments before their centring.
        for part, scale in {"xx": x * x, "yx": x * y, "mean_x": x, "mean_y": y}.items():
            difference = getattr(got.moments, part) - getattr(wanted, part)
            assert float(difference.abs().max()) <= 1e-6 * scale, part
        assert got.moments.yy == pytest.approx(wanted.yy, abs=1e-6 * y * y)
        # The same patches are held out, those of the first process first.
        for ours, theirs in ((got.x, one.x), (got.y, one.y)):
            by_image = theirs.reshape(len(order), -1, *theirs.shape[1:])
            torch.testing.assert_close(ours, torch.cat([by_image[i // 8] for i in order]), atol=1e-5, rtol=1e-5)


class Rows(nn.Module):
    """Every pixel is a row of its own for the first fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.each, self.all = nn.Conv2d(3, 16, 3), nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.conv(x).flatten(2).transpose(1, 2).reshape(-1, 16)
        return self.all(self.each(rows).relu().reshape(-1, 80, 24).mean(1))


def test_rows_of_an_image_are_numbered_as_in_one_process(data):
    hub = load(Rows().eval(), input_shape=(3, 12, 10))
    layer = hub.layer("each")

    def rows(processes: Processes) -> dict[int, np.ndarray]:
        with Walk(hub, data, processes) as walk:
            walk.advance(layer)
            return dict(walk.images(layer.input))

    one, shares = rows(ALONE), together(3, rows)
    assert list(one) == list(range(80 * IMAGES))
    assert sorted(number for share in shares for number in share) == list(one)
    for share in shares:
        for number, row in share.items():
            np.testing.assert_allclose(row, one[number], atol=1e-5)


@pytest.fixture(scope="module")
def small(hub: Hub) -> Hub:
    return compress(hub, model="net", ratios={"macs": 3.0}, method="low-rank").hub


@pytest.mark.parametrize("images", [2, 21, 1000])
def test_the_error_at_the_output_is_that_of_one_process(hub, small, data, images):
    """Of 2 images, one of three processes has none."""

    def error(processes: Processes) -> float:
        with Walk(hub, data, processes) as walk:
            return OutputError(hub, walk, images)(small)

    one = error(ALONE)
    assert one > 1e-4
    assert together(3, error) == pytest.approx([one] * 3, rel=1e-5)


@pytest.mark.parametrize("images", [1, 2, 21])
def test_the_error_of_parts_is_that_of_one_process(images):
    """Of one image, two of three processes have none."""
    net, given = detectors.hub(detectors.Joined), detectors.images(21)
    trial = compress(net, model="net", ratios={"macs": 3.0}, method="low-rank").hub

    def error(processes: Processes) -> float:
        with Walk(net, [given], processes) as walk:
            return OutputError(net, walk, images)(trial)

    one = error(ALONE)
    assert one > 1e-4
    assert together(3, error) == pytest.approx([one] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        # A closed form is as far off as rounding of the moments, 1e-7, is magnified where images say little: 3e-5 here.
        ("channel-svd", 1e-3),
        # L-BFGS goes other ways after the least difference, and stops as well in other places.
        ("low-rank", None),
    ],
)
def test_all_get_one_network(hub, data, method, tolerance):
    def network(processes: Processes) -> Compression:
        return compress(hub, model="net", ratios={"macs": 2.5}, method=method, data=data, processes=processes)

    alone = network(ALONE)
    first, *others = together(3, network)
    assert first.plan == alone.plan
    layers = factorized(first.hub)
    assert len(layers) >= 2
    for one, wanted in zip(layers, factorized(alone.hub), strict=True):
        assert one.metadata() == wanted.metadata()
        errors = [made.report.layers[one.layer].error for made in (first, alone)]
        assert errors[0] == pytest.approx(errors[1], rel=0.01)
        # The kernel and not its factors: their signs are free.
        off = np.linalg.norm(one.kernel() - wanted.kernel()) / np.linalg.norm(wanted.kernel())
        assert tolerance is None or off <= tolerance
    for other in others:
        assert other.plan == first.plan
        for one, theirs in zip(layers, factorized(other.hub), strict=True):
            same(one, theirs)


def factorized(hub: Hub) -> list[Factorized]:
    return [layer.factorized for layer in hub.layers() if layer.factorized is not None]


def same(one: Factorized, other: Factorized) -> None:
    assert one.metadata() == other.metadata()
    assert all(np.array_equal(a, b) for a, b in zip(one.tensors, other.tensors, strict=True))
    assert (one.bias is None) == (other.bias is None)
    assert one.bias is None or np.array_equal(one.bias, other.bias)


def test_a_factorized_layer_arrives_as_it_is(small):
    made = factorized(small)
    for one in (*made, replace(made[0], bias=None), replace(made[0], forms={"onnx": ("expand",)})):
        same(Factorized.from_bytes(one.to_bytes()), one)


def test_what_the_first_process_finds_counts():
    found = together(3, lambda processes: processes.agreed(processes.rank + 7, lambda n: b"%d" % n, int))
    assert found == [7, 7, 7]
    assert together(2, lambda processes: processes.agreed("", str.encode, bytes.decode)) == ["", ""]


def test_rows_are_gathered_in_the_order_of_processes():
    for rows in together(3, lambda processes: processes.gather(torch.full((processes.rank, 2), processes.rank))):
        assert rows.tolist() == [[1, 1], [2, 2], [2, 2]]


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (30, {}, "30 processes cannot share 29 calibration images; give more images, or start fewer."),
        (2, {"data": []}, "2 processes cannot share 0 calibration images"),
        (2, {"method": "qsfm"}, "channels are pruned by one process, not by 2; leave torchrun out."),
    ],
)
def test_what_processes_cannot_share_is_refused(hub, data, count, options, words):
    processes = Processes(0, count, torch.device("cpu"))
    with pytest.raises(UserError, match=words):
        compress(hub, **{"model": "net", "ratios": {"macs": 2.0}, "data": data, "processes": processes} | options)


def test_a_plan_that_prunes_is_for_one_process(hub, data):
    plan = CompressionPlan("net", {"0": LayerPlan(channels=8, criterion="l1")})
    with pytest.raises(UserError, match="channels are pruned by one process"):
        apply_plan(hub, plan, data=data, processes=Processes(0, 2, torch.device("cpu")))

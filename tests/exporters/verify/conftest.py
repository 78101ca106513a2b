"""A small network in every version of its chain, dense and compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekron.compression import artifact
from edgekron.compression.compressor import compress
from edgekron.exporters import ExportSettings, export
from edgekron.exporters.onnx import export_onnx
from edgekron.exporters.quantize import Quantization
from edgekron.exporters.tflite import export_tflite
from edgekron.exporters.verify import Named, Names, TorchVersion
from edgekron.exporters.verify.versions import open_version
from edgekron.graph import Hub, load
from edgekron.modules.factorize import factorize_module

SHAPE = (3, 12, 12)


class Network(nn.Module):
    """Two convolutions with normalisation, an addition around the second, activations in place, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.last = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm1(self.first(x)))
        x = torch.relu_(x + self.norm2(self.second(x)))
        return self.last(x.mean((2, 3)))


@dataclass(frozen=True)
class Family:
    """The files of one network, its module and the hubs before and after compression."""

    module: nn.Module
    dense: Hub
    small: Hub
    folder: Path
    images: np.ndarray

    def named(self, *titles: str) -> list[Named]:
        """Versions by title: "torch", "factorized torch", "dense hub", "hub" and names of files."""
        special = {
            "torch": lambda: TorchVersion(self.module, self.dense),
            "factorized torch": lambda: TorchVersion(factorize_module(self.module, self.small), self.small),
            "dense hub": lambda: open_version(self.dense),
            "hub": lambda: open_version(self.small),
        }
        return [Named(t, special[t]() if t in special else open_version(self.folder / t)) for t in titles]

    def names(self) -> Names:
        """The values of the compressed hub."""
        graph = self.small.model.graph
        values = frozenset(str(value.name) for node in graph for value in node.outputs)
        return Names(values, {layer.output: layer.name for layer in self.small.layers()})


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Compressed to two thirds of its MACs, in float and in int8."""
    folder = tmp_path_factory.mktemp("family")
    torch.manual_seed(0)
    module = Network().eval()
    for norm in (module.norm1, module.norm2):
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.normal_(norm.running_mean)
    images = np.random.default_rng(0).standard_normal((16, *SHAPE)).astype(np.float32)
    dense = load(module, input_shape=SHAPE)
    result = compress(dense, model="net", ratios={"macs": 1.5})
    artifact.write(result, folder / "small")
    small = artifact.read_hub(folder / "small")
    export_onnx(small, folder / "out.onnx")
    export_tflite(small, folder / "out.tflite")
    export_onnx(dense, folder / "dense.onnx")
    for kind in ("onnx", "tflite"):
        export(small, folder / f"int8.{kind}", ExportSettings(Quantization("int8", images=(images,))))
    return Family(module, dense, small, folder, images)

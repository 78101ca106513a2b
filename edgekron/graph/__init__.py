"""The hub: one ONNX graph between every kind of input model and every exporter.

    hub = load("resnet.onnx")
    for layer in hub.layers(): ...
    hub.factorize("layer1.0.conv1", Factorized(...))
    hub.save("resnet.hub.onnx")

A hub file is an ordinary ONNX file, which ONNX Runtime runs and a viewer opens. ``layers`` describes the nodes with
weights, ``passes`` is what happens to every imported graph.
"""

from .factorized import Factorized
from .hub import Hub
from .inputs import NetworkInput
from .layers import Layer
from .load import load

__all__ = ["Factorized", "Hub", "Layer", "NetworkInput", "load"]

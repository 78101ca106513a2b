"""Three lines win a compressed network's accuracy back in a training loop of your own.

    edgekron compress resnet20 --ratio 2 --data fashion-mnist:calibration --images 512 -o small
    python docs/examples/own_loop.py small

A factorized layer is an ordinary module whose parameters are its factors, so nothing else in a loop changes.
"""

import sys

import torch

from edgekron import models
from edgekron.compression.artifact import read_hub
from edgekron.models import datasets
from edgekron.modules.factorize import factorize_module
from edgekron.training import KnowledgeTransfer


def main(folder, steps=100):
    teacher = models.load("resnet20")
    data = datasets.load("fashion-mnist:calibration")
    images, labels = torch.from_numpy(data.normalise(data.images)), torch.from_numpy(data.labels)

    # 1. Your own class, with factorized layers in place of what was compressed.
    student = factorize_module(teacher, read_hub(folder)).train()
    # 2. A teacher; layers are found by their names.
    transfer = KnowledgeTransfer(student, teacher, images)

    optimiser = torch.optim.SGD(student.parameters(), lr=0.002, momentum=0.9, nesterov=True)
    for step in range(steps):
        rows = torch.randint(len(images), (64,))
        # 3. The loss, in place of the cross-entropy.
        loss = transfer(images[rows], student(images[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        # Deep networks without normalisation need small, bounded steps.
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        if step % 10 == 0:
            sys.stdout.write(f"step {step}: loss {loss.item():.4f}\n")
    transfer.remove()
    return student


if __name__ == "__main__":
    main(sys.argv[1])

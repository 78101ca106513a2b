"""The pixels that a network was trained on: the numbers for black and white, and the order of the colours.

A word of ``RANGES``, or mean and standard deviation by channel in units of full scale, such as
``0.485,0.456,0.406/0.229,0.224,0.225``: a byte p becomes (p / 255 - mean) / std.
"""

from __future__ import annotations

import math

from edgekron.errors import DataError

#: Mean and standard deviation of the pixels, in [0, 1], of the Fashion-MNIST training images.
FASHION_MNIST = ((0.2860,), (0.3530,))
#: The same for CIFAR-10 and ImageNet, by channel.
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

RANGES: dict[str, Normalisation] = {
    "byte": ((0.0,), (1 / 255,)),
    "unit": ((0.0,), (1.0,)),
    "signed": ((0.5,), (0.5,)),
    "imagenet": IMAGENET,
    "cifar10": CIFAR10,
    "fashion-mnist": FASHION_MNIST,
}
ORDERS = ("rgb", "bgr")


def normalisation(text: str, channels: int) -> Normalisation:
    """(mean, std), one entry for each of ``channels``, in the order red, green, blue. Raises ``DataError``."""
    found = RANGES.get(text) or _numbers(text)
    mean, std = (values * channels if len(values) == 1 else values for values in found)
    if len(mean) != channels or len(std) != channels:
        raise DataError(
            f"pixels {text!r} are those of {max(len(mean), len(std))} channels; the images have {channels}."
        )
    return mean, std


def _numbers(text: str) -> Normalisation:
    try:
        mean, std = (tuple(float(n) for n in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean = std = ()
    if not mean or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise DataError(
            f"pixels {text!r} are none of {', '.join(RANGES)}, nor mean and standard deviation such as "
            "0.485,0.456,0.406/0.229,0.224,0.225."
        )
    return mean, std

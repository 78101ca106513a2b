"""Images for a detector of characters: letters and digits, turned and coloured, on backgrounds of smooth noise.

Every image has a seed of its own and is the same on every machine. ``boxes_in`` reads the output of a detector of the
YOLOX kind, and ``Count`` compares the boxes with the characters that were drawn.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CHARACTERS = list(string.ascii_uppercase + string.digits)
#: Cells of the noise along the width; each is as strong as it is wide.
_OCTAVES = (2, 4, 8, 16, 32)
#: Steps, in pixels, of the three grids whose cells the detector speaks about.
_STRIDES = (8, 16, 32)
#: A box counts from this score on, hides others of its kind that overlap it by more, and fits what was drawn.
_SCORE, _SAME, _FITS = 0.5, 0.45, 0.5


def scene(seed: int, size: tuple[int, int] | None = None) -> tuple[Image.Image, np.ndarray]:
    """An image of ``size`` (width, height), a random one unless given, and the boxes [n, 4] of its characters.

    A box is (left, top, right, bottom).
    """
    random = np.random.default_rng(seed)
    width, height = size or (int(random.integers(300, 421)), int(random.integers(180, 301)))
    image = _background(random, width, height)
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(int(random.integers(3, 7))):
        glyph = _glyph(random)
        for _ in range(50):
            left, top = (int(random.integers(0, n - g)) for n, g in zip(image.size, glyph.size, strict=True))
            box = (left, top, left + glyph.width, top + glyph.height)
            if all(_apart(box, other) for other in boxes):
                image.paste(Image.new("RGB", glyph.size, _colour(random, image.crop(box))), (left, top), glyph)
                boxes.append(box)
                break
    return image, np.array(boxes, np.float32)


def draw(folder: Path, count: int, first: int = 0) -> None:
    """``count`` scenes as files in ``folder``, of random sizes."""
    folder.mkdir(parents=True)
    for index in range(count):
        scene(first + index)[0].save(folder / f"{index:03}.png")


def _background(random: np.random.Generator, width: int, height: int) -> Image.Image:
    total = np.zeros((height, width, 3), np.float32)
    for cells in _OCTAVES:
        noise = random.uniform(0, 255, (cells * height // width + 2, cells + 2, 3)).astype(np.uint8)
        grown = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(grown, np.float32) / cells
    total -= total.min()
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


def _glyph(random: np.random.Generator) -> Image.Image:
    """A character as a mask, no larger than its ink."""
    size = int(random.integers(36, 70))
    tile = Image.new("L", (2 * size, 2 * size))
    ImageDraw.Draw(tile).text(
        (size, size), str(random.choice(CHARACTERS)), 255, ImageFont.load_default(size), anchor="mm", stroke_width=2
    )
    turned = tile.rotate(float(random.uniform(-40, 40)), Image.Resampling.BICUBIC)
    return turned.crop(turned.getbbox())


def _colour(random: np.random.Generator, behind: Image.Image) -> tuple[int, ...]:
    """The one of a few random colours that is farthest from the mean colour behind the character."""
    colours = random.integers(0, 256, (4, 3))
    far = np.abs(colours - np.asarray(behind).mean((0, 1))).sum(1)
    return tuple(int(c) for c in colours[far.argmax()])


def _apart(a: tuple[int, ...], b: tuple[int, ...], gap: int = 6) -> bool:
    return a[2] + gap < b[0] or b[2] + gap < a[0] or a[3] + gap < b[1] or b[3] + gap < a[1]


def boxes_in(output: np.ndarray, size: int) -> np.ndarray:
    """The boxes [n, 4] in one output [cells, 6] of a YOLOX detector of one class for square images of ``size``.

    Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021": centre and size relative to the cell, objectness, class.
    """
    cells = []
    for stride in _STRIDES:
        y, x = np.mgrid[: size // stride, : size // stride]
        cells.append(np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], 1))
    grid = np.concatenate(cells).astype(np.float32)
    centre = (output[:, :2] + grid[:, :2]) * grid[:, 2:]
    half = np.exp(output[:, 2:4]) * grid[:, 2:] / 2
    scores = output[:, 4] * output[:, 5]
    kept: list[np.ndarray] = []
    boxes = np.concatenate([centre - half, centre + half], 1)
    for index in np.argsort(-scores):
        if scores[index] < _SCORE:
            break
        if all(overlap(boxes[index], other) <= _SAME for other in kept):
            kept.append(boxes[index])
    return np.array(kept, np.float32).reshape(-1, 4)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if sides.min() <= 0:
        return 0.0
    shared = float(np.prod(sides))
    return shared / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@dataclass
class Count:
    """Characters that were drawn, characters that were found, and boxes around nothing."""

    drawn: int = 0
    found: int = 0
    false: int = 0

    def add(self, drawn: np.ndarray, given: np.ndarray) -> None:
        """Counts one image: a box fits one character at most."""
        left = list(given)
        for box in drawn:
            best = max(range(len(left)), key=lambda i: overlap(box, left[i]), default=None)
            if best is not None and overlap(box, left[best]) >= _FITS:
                left.pop(best)
                self.found += 1
        self.drawn += len(drawn)
        self.false += len(left)

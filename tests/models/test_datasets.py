"""Image sets: what a network is given for a file of the user's, byte for byte, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekron.errors import DataError
from edgekron.models import datasets


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of two sizes in one folder, with annotations beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, (h, w) in {"a": (8, 6), "b": (10, 20), "c": (8, 6)}.items():
        Image.fromarray(random.integers(0, 256, (h, w, 3), np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(random.integers(0, 256, (8, 6), np.uint8)).save(folder / "grey.png")
    (folder / "a.txt").write_text("0 0.5 0.5 1 1")
    (folder / ".hidden.png").write_text("no image")
    return folder


def test_a_folder_without_classes_fits_the_network(photos: Path) -> None:
    data = datasets.load(str(photos), shape=(3, 8, 6))
    assert data.images.shape == (4, 8, 6, 3)
    assert data.labels.tolist() == [-1] * 4
    np.testing.assert_array_equal(data.images[0], np.asarray(Image.open(photos / "a.png")))
    grey = np.asarray(Image.open(photos / "grey.png"))
    np.testing.assert_array_equal(data.images[3], np.stack([grey] * 3, axis=-1))
    assert datasets.load(str(photos), shape=(1, 4, 4)).images.shape == (4, 4, 4, 1)
    assert len(datasets.load(str(photos), shape=(3, 8, 6), limit=2)) == 2


def test_ways_to_fit(tmp_path: Path) -> None:
    """Left half black, right half white, 10 x 20, for an input of 10 x 10."""
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 10:] = 255
    (tmp_path / "d").mkdir()
    Image.fromarray(image).save(tmp_path / "d" / "i.png")
    by = {fit: datasets.load(str(tmp_path / "d"), shape=(3, 10, 10), fit=fit).images[0, ..., 0] for fit in
          ("crop", "stretch", "pad")}  # fmt: skip
    np.testing.assert_array_equal(by["crop"], image[:, 5:15, 0])
    assert (by["stretch"][:, :4] == 0).all()
    assert (by["stretch"][:, 6:] == 255).all()
    assert (by["pad"][[0, 1, 8, 9]] == 114).all()
    assert (by["pad"][4, :4] == 0).all()


@pytest.mark.parametrize(
    ("pixels", "order", "expected"),
    [
        ("byte", None, [0, 51, 255]),
        ("byte", "bgr", [255, 51, 0]),
        ("unit", "rgb", [0, 0.2, 1]),
        ("signed", None, [-1, -0.6, 1]),
        ("0.5/0.25", None, [-2, -1.2, 2]),
        ("0.1,0.2,0.3/1,1,2", None, [-0.1, 0, 0.35]),
        ("0.1,0.2,0.3/1,1,2", "bgr", [0.35, 0, -0.1]),
        (None, None, [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
    ],
)
def test_what_pixels_are_taken_for(tmp_path: Path, pixels: str, order: str, expected: list[float]) -> None:
    images = np.full((1, 2, 2, 3), (0, 51, 255), np.uint8)
    np.savez(tmp_path / "i.npz", images=images)
    data = datasets.load(str(tmp_path / "i.npz"), pixels=pixels, order=order)
    x, _ = next(data.batches(1))
    assert (x.shape, x.dtype) == ((1, 3, 2, 2), np.float32)
    np.testing.assert_allclose(x[0, :, 1, 1], expected, rtol=1e-5, atol=1e-6)


def test_inputs_are_taken_as_they_are(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).standard_normal((5, 2, 30)).astype(np.float32)
    np.savez(tmp_path / "i.npz", inputs=inputs)
    data = datasets.load(str(tmp_path / "i.npz"), shape=(2, 30), limit=4)
    batches = [x for x, _ in data.batches(3)]
    assert [len(x) for x in batches] == [3, 1]
    assert all(any(np.array_equal(x, y) for y in inputs) for x in np.concatenate(batches))


def test_what_is_refused(tmp_path: Path, photos: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "i.png").write_bytes((photos / "a.png").read_bytes()[:60])
    files: dict[str, dict[str, np.ndarray]] = {
        "int.npz": {"inputs": np.zeros((2, 3), np.int64)},
        "nan.npz": {"inputs": np.full((2, 3), np.nan, np.float32)},
        "float.npz": {"images": np.zeros((2, 4, 4), np.float32)},
        "neither.npz": {"x": np.zeros(3)},
        "inputs.npz": {"inputs": np.zeros((2, 3, 4, 4), np.float32)},
        "images.npz": {"images": np.zeros((2, 4, 4, 3), np.uint8)},
    }
    for name, arrays in files.items():
        np.savez(tmp_path / name, **arrays)
    shape = (3, 8, 6)
    for name, options, said in [
        ("empty", {}, "holds no image"),
        ("broken", {"shape": shape}, r"i\.png is not an image"),
        ("photos", {}, "shapes"),
        ("photos", {"shape": (5, 8, 6)}, "takes 5 channels"),
        ("int.npz", {}, "float32"),
        ("nan.npz", {}, "NaN"),
        ("float.npz", {}, "name the array inputs"),
        ("neither.npz", {}, "named images"),
        ("inputs.npz", {"pixels": "unit"}, "leave fit, pixels and order out"),
        ("images.npz", {"pixels": "bytes"}, "none of byte, unit"),
        ("images.npz", {"pixels": "1/0"}, "none of byte, unit"),
        ("images.npz", {"pixels": "1,2/1,1"}, "those of 2 channels"),
    ]:
        with pytest.raises(DataError, match=said):
            datasets.load(str(tmp_path / name), **options)


def _shard(path: Path, names: list[str], seed: int) -> np.ndarray:
    pictures = np.random.default_rng(seed).integers(0, 256, (len(names), 6, 5, 3), np.uint8)
    with tarfile.open(path, "w") as archive:
        for index, (name, picture) in enumerate(zip(names, pictures, strict=True)):
            data = io.BytesIO()
            Image.fromarray(picture).save(data, "png")
            for ending, content in (("png", data.getvalue()), ("cls", str(index + seed).encode())):
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return pictures


def test_shards_are_read_in_order_with_their_classes(tmp_path):
    pictures = [_shard(tmp_path / f"train-0{i}.tar", ["a/000", "a/001", "b/000"], i) for i in range(2)]
    data = datasets.load(str(tmp_path / "train-{00..01}.tar"))
    assert np.array_equal(data.images, np.concatenate(pictures))
    assert data.labels.tolist() == [0, 1, 2, 1, 2, 3]
    one = datasets.load(str(tmp_path / "train-01.tar"), shape=(1, 4, 4), limit=2)
    assert one.images.shape == (2, 4, 4, 1)
    with pytest.raises(DataError, match=r"no shard .*train-02.tar"):
        datasets.load(str(tmp_path / "train-{00..02}.tar"))
    (tmp_path / "empty.tar").write_bytes(b"no tar at all")
    with pytest.raises(DataError, match="cannot be read"):
        datasets.load(str(tmp_path / "empty.tar"))

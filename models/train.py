"""Trains a bundled network by its recipe: ``python -m edgekron.models.train resnet20``.

SGD with Nesterov momentum, a linear warm-up and a cosine to zero, label smoothing, random crops, flips and erasing, and
an exponential moving average of the weights, which is what is evaluated and saved. Runs on the GPU where there is one,
else on the CPU in channels_last with bfloat16 autocast. Every epoch leaves a state in ``runs/NAME``; the same command
takes it up again. Random numbers are seeded by (seed, epoch), so a resumed run sees the same batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import platform
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import datasets
from .catalog import CHECKPOINTS, RECIPES, build

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one checkpoint was made; read from ``recipes/NAME.toml``."""

    network: str
    data: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    crop_padding: int
    erase: int
    ema: float
    seed: int
    restart_epochs: int = 0
    restart_rate: float = 0.0

    def rate(self, epoch: float) -> float:
        """Learning rate after ``epoch`` epochs: warm-up and cosine to zero, then a second cosine where one is asked."""
        if epoch < self.epochs:
            warm = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
            return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.restart_rate * 0.5 * (1 + math.cos(math.pi * (epoch - self.epochs) / self.restart_epochs))

    @classmethod
    def read(cls, name: str) -> Recipe:
        return cls(**tomllib.loads((RECIPES / f"{name}.toml").read_text()))


def augment(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Random crop after zero padding, horizontal flip, and one erased square, each drawn per image. [N, C, H, W]."""
    n, _, h, w = images.shape
    device, p = images.device, recipe.crop_padding

    def draw(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (n, 1, 1), generator=generator).to(device)

    rows = torch.arange(h, device=device).view(1, h, 1)
    columns = torch.arange(w, device=device).view(1, 1, w)
    flip = draw(0, 2).bool()
    y = rows + draw(0, 2 * p + 1)
    x = torch.where(flip, w - 1 - columns, columns) + draw(0, 2 * p + 1)
    item = torch.arange(n, device=device).view(n, 1, 1)
    out = F.pad(images, (p, p, p, p))[item, :, y, x].permute(0, 3, 1, 2)
    if recipe.erase:
        top, left = draw(0, h) - recipe.erase // 2, draw(0, w) - recipe.erase // 2
        inside = (rows >= top) & (rows < top + recipe.erase) & (columns >= left) & (columns < left + recipe.erase)
        out = out.masked_fill(inside[:, None], 0.0)
    return out.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Top-1 accuracy in percent, in float32."""
    model.eval()
    parts = zip(images.split(batch), labels.split(batch), strict=True)
    return 100.0 * sum(int((model(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def train(name: str, runs: Path) -> dict[str, object]:
    """Runs the recipe ``name`` to its end and writes the checkpoint; returns what is written beside it."""
    recipe = Recipe.read(name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_set, test_set = datasets.load(f"{recipe.data}:train"), datasets.load(f"{recipe.data}:test")
    images, labels = (torch.from_numpy(a).to(device) for a in (train_set.normalise(train_set.images), train_set.labels))
    test_images, test_labels = (
        torch.from_numpy(a).to(device) for a in (test_set.normalise(test_set.images), test_set.labels)
    )
    torch.manual_seed(recipe.seed)
    model = build(recipe.network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
    )
    runs.mkdir(parents=True, exist_ok=True)
    state = runs / f"{name}.safetensors"
    start, seconds = _resume(state, model, average, optimiser)
    steps = len(images) // recipe.batch_size
    last = recipe.epochs + recipe.restart_epochs
    for epoch in range(start, last):
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(recipe.seed * 10_000 + epoch)
        order = torch.randperm(len(images), generator=generator).to(device)
        model.train()
        total = torch.zeros((), device=device)
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate(epoch + step / steps)
            pick = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = augment(images[pick], recipe, generator)
            with torch.autocast(device.type, torch.bfloat16):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), labels[pick], label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            # An average over the first steps would remember the random start: let its window grow.
            _follow(average, model, keep=min(recipe.ema, 1 - 1 / (epoch * steps + step + 2)))
            total += loss.detach()
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss of {name} became NaN in epoch {epoch + 1}; lower learning_rate")
        seconds += time.perf_counter() - began
        accuracy = top1(average, test_images, test_labels)
        log.info(
            "%s epoch %d/%d loss %.4f top-1 %.2f %% (%.0f s)",
            name, epoch + 1, last, total.item() / steps, accuracy, seconds,
        )  # fmt: skip
        _save_state(state, model, average, optimiser, epoch + 1, seconds)
    facts: dict[str, object] = {
        "network": recipe.network,
        "data": recipe.data,
        "top1": round(top1(average, test_images, test_labels), 2),
        "mean": list(train_set.mean),
        "std": list(train_set.std),
        "recipe": asdict(recipe),
        "seconds": round(seconds),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
    CHECKPOINTS.mkdir(exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in average.state_dict().items()}
    safetensors.torch.save_file(weights, CHECKPOINTS / f"{name}.safetensors")
    (CHECKPOINTS / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Moves the average towards the model; counters are copied."""
    for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


def _save_state(
    path: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.SGD, epoch: int, seconds: float
) -> None:
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v.contiguous() for k, v in average.state_dict().items()}
    for index, (_, value) in enumerate(sorted(optimiser.state_dict()["state"].items())):
        tensors[f"momentum.{index:04d}"] = value["momentum_buffer"].contiguous()
    part = path.with_suffix(".part")
    safetensors.torch.save_file(tensors, part, {"epoch": str(epoch), "seconds": str(seconds)})
    part.replace(path)


def _resume(path: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.SGD) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    device = next(model.parameters()).device
    with safetensors.safe_open(path, "pt", device=str(device)) as file:
        facts, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    for module, prefix in ((model, "model."), (average, "average.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    blank = optimiser.state_dict()
    buffers = [v for k, v in sorted(tensors.items()) if k.startswith("momentum.")]
    blank["state"] = {index: {"momentum_buffer": buffer} for index, buffer in enumerate(buffers)}
    optimiser.load_state_dict(blank)
    return int(facts["epoch"]), float(facts["seconds"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="+", help="recipes, such as resnet20")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the states of unfinished runs are")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for name in arguments.names:
        log.info("%s", json.dumps(train(name, arguments.runs)))


if __name__ == "__main__":
    main()

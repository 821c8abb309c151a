"""Benefit of initializing MSF-R3D from a pretrained R3D-18, in a short training on a task that requires motion.

    python benchmarks/pretrained.py

An R3D-18 is trained to classify moving squares. Then each network is trained on the same task for a few steps, once
initialized from that R3D-18 with a new last layer and once from scratch. The result is benchmarks/pretrained.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
WIDTH, CLASSES = 0.25, 8
SOURCE_STEPS, STEPS, LAST, SEEDS = 300, 30, 10, 3

NETWORKS: dict[str, dict[str, Any]] = {
    "`msf_r3d_18`": {},
    "with S = 3": {"num_splits": 3},
    "with FSAM": {"attention": "fsam"},
    "(a)": {"placement": "a"},
    "(c)": {"placement": "c"},
    "(d)": {"placement": "d"},
}


def batch(n: int, generator: torch.Generator, frames: int = 4, size: int = 24) -> tuple[Tensor, Tensor]:
    """Clips with noise of a plain or striped square that moves in one of four directions: N 3 T H W, and labels N."""
    labels = torch.randint(CLASSES, (n,), generator=generator)
    clips = torch.randn(n, 3, frames, size, size, generator=generator) / 2
    starts, speeds = torch.randint(size, (n, 2), generator=generator), torch.randint(2, 5, (n,), generator=generator)
    for clip, label, start, speed in zip(clips, labels, starts, speeds, strict=True):
        square = torch.full((7, 7), 2.0)
        if label >= 4:
            square[::2] = -2
        down, right = ((0, 1), (0, -1), (1, 0), (-1, 0))[int(label) % 4]
        for t in range(frames):
            rows = (start[0] + down * t * speed + torch.arange(7)) % size
            columns = (start[1] + right * t * speed + torch.arange(7)) % size
            clip[:, t, rows[:, None], columns] += square
    return clips, labels


def train(model: nn.Module, steps: int, seed: int) -> list[float]:
    """Train with Adam and return the loss of each step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        clips, labels = batch(16, generator)
        loss = F.cross_entropy(model.train()(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def start(arguments: dict[str, Any], seed: int, source: Path | None) -> nn.Module:
    """An MSF-R3D, initialized from `source` (an R3D-18) if given; the last layer is always new."""
    torch.manual_seed(seed)
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH, **arguments)
    if source:
        load_pretrained(model, str(source), "msf_r3d_18")
        nn.init.normal_(model.get_submodule("fc").weight, std=0.01)
    return model


def end(arguments: dict[str, Any], source: Path | None) -> list[float]:
    """Mean loss of the last steps for each seed."""
    return [mean(train(start(arguments, seed, source), STEPS, seed=10 + seed)[-LAST:]) for seed in range(SEEDS)]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.manual_seed(0)
    dense = create_model("r3d_18", CLASSES, width_mult=WIDTH)
    train(dense, SOURCE_STEPS, seed=1)
    lines = [
        "# Initializing MSF-R3D from a pretrained R3D-18",
        "",
        f"Printed by `python benchmarks/pretrained.py`: training loss of steps {STEPS - LAST + 1} to {STEPS} on moving",
        f"squares of {CLASSES} classes, for networks of width {WIDTH}, initialized from an R3D-18 trained for",
        f"{SOURCE_STEPS} steps (with a new last layer) and from scratch. Mean ± standard deviation over {SEEDS} seeds;",
        "the loss of chance is 2.08.",
        "",
        "| network | pretrained | from scratch |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "r3d_18.pth"
        torch.save(dense.state_dict(), source)
        for name, arguments in NETWORKS.items():
            cells = [f"{mean(v):.2f} ± {stdev(v):.2f}" for v in (end(arguments, source), end(arguments, None))]
            lines.append(f"| {name} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    lines += ["", provenance("torch")]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

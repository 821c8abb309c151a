"""What a warm start of MSF-R3D from R3D-18 is worth in a short training, on a task that takes motion to solve.

    python benchmarks/warm.py

An R3D-18 learns to tell moving squares apart. Then each network learns the same for a few steps, once from that R3D-18
with a fresh last layer and once from scratch. The result is benchmarks/warm.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msfnet.models.pretrained import init_weights
from msfnet.models.registry import create_model

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
WIDTH, CLASSES = 0.25, 8
SOURCE_STEPS, STEPS, LAST, SEEDS = 300, 30, 10, 3

NETWORKS: dict[str, dict[str, Any]] = {
    "`msf_r3d18`": {},
    "with 3 groups": {"groups": 3},
    "with FSAM": {"attention": "fsam"},
    "(a)": {"placement": "a"},
    "(c)": {"placement": "c"},
    "(d)": {"placement": "d"},
}


def batch(n: int, generator: torch.Generator, frames: int = 4, size: int = 24) -> tuple[Tensor, Tensor]:
    """Clips of a square that moves in one of four directions, plain or striped, in noise: N 3 T H W, and labels N."""
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
    """Losses of so many steps of Adam."""
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
    """An MSF-R3D, from the file of an R3D-18 if there is one; what the last layer knows is not counted."""
    torch.manual_seed(seed)
    model = create_model("msf_r3d18", CLASSES, width=WIDTH, **arguments)
    if source:
        init_weights(model, str(source), "msf_r3d18")
        nn.init.normal_(model.get_submodule("fc").weight, std=0.01)
    return model


def end(arguments: dict[str, Any], source: Path | None) -> list[float]:
    """The mean loss of the last steps, for each seed."""
    return [mean(train(start(arguments, seed, source), STEPS, seed=10 + seed)[-LAST:]) for seed in range(SEEDS)]


def main() -> None:
    torch.manual_seed(0)
    dense = create_model("r3d18", CLASSES, width=WIDTH)
    train(dense, SOURCE_STEPS, seed=1)
    lines = [
        "# Warm starts of MSF-R3D from R3D-18",
        "",
        f"Printed by `python benchmarks/warm.py`: the training loss of steps {STEPS - LAST + 1} to {STEPS} on moving "
        f"squares of {CLASSES} classes,",
        f"networks of width {WIDTH}, from an R3D-18 of {SOURCE_STEPS} steps with a fresh last layer and from scratch. "
        f"Mean ± standard",
        f"deviation of {SEEDS} seeds; guessing has 2.08.",
        "",
        "| network | warm | random |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "r3d18.pth"
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

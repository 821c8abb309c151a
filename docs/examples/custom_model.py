"""Train, evaluate and export networks of your own: any nn.Module, and MSF-R3D with another attention.

    python custom_model.py VIDEOS OUT [EPOCHS]

A network maps clips, float N C T H W, to logits, N K. Registered under a name, it is saved and loaded like those of
msfnet; a program that loads its weights registers it first.
"""

import logging
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

import msfnet


@msfnet.register_model("tiny_net")
class TinyNet(nn.Module):
    """Three convolutions over space and time, and a linear layer on their average."""

    def __init__(self, num_classes: int, channels: int = 16) -> None:
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        self.convs = nn.ModuleList(
            nn.Conv3d(before, after, 3, stride=(1, 2, 2), padding=1) for before, after in pairwise(widths)
        )
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = torch.relu(conv(x))
        return self.fc(x.mean((2, 3, 4)))  # N C T H W -> N C -> N K


class ChannelGate(nn.Module):
    """A gate for each channel from its average over the clip; the shape stays N C T H W."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3, 4))))[:, :, None, None, None]  # N C -> N C 1 1 1


@msfnet.register_model("msf_r3d_18_gate")
def msf_r3d_18_gate(num_classes: int, **kwargs: object) -> nn.Module:
    """MSF-R3D with `ChannelGate` where FSAM is in the paper; `attention` takes any callable channels -> module."""
    return msfnet.create_model("msf_r3d_18", num_classes, attention=ChannelGate, **kwargs)


NETWORKS = {
    "tiny_net": {"model.width_mult": 1, "model.kwargs.channels": 8},  # it takes no width_mult
    "msf_r3d_18_gate": {"model.width_mult": 0.125},
}


def main(videos: Path, out: Path, epochs: int = 20) -> None:
    """Train each network, evaluate it, and export it for PyTorch without msfnet."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = msfnet.read_dataset(videos)
    for name, settings in NETWORKS.items():
        run = msfnet.train(dataset, model=name, set={"train.epochs": epochs, **settings}, out=out / name)
        result = msfnet.evaluate(run, dataset)
        parity = msfnet.export(run, "torch", out / f"{name}.pt2", data=dataset)
        prediction = msfnet.predict(out / f"{name}.pt2", dataset.items[0].path)
        print(f"{name}: top-1 {result.video.top1:.1%}; exported: {parity}; {prediction.path}: {prediction.labels[0]}")


if __name__ == "__main__":  # worker processes import this file
    if len(sys.argv) not in (3, 4):
        print("usage: python custom_model.py VIDEOS OUT [EPOCHS]", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))

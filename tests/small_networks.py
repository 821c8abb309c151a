"""Small networks with statistics and gates as training leaves them, for tests of inference and export."""

import torch
from torch import nn

from msfnet.models.checkpoint import Checkpoint
from msfnet.models.registry import create_model
from msfnet.types import Preprocessing, Views

PREPROCESSING = Preprocessing(4, 16, (22, 16), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), "uniform", 1, Views(2, 1))
CLASSES = ("GoLeft", "GoRight")


def randomize(model):
    """Random norms and gates: as initialized, some of them would have no effect on the outputs."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.2)
    return model.eval()


def small_network(name, frames=4, size=16, **kwargs):
    width_mult = 0.25 if "fsam" in name else 0.125
    return randomize(create_model(name, 2, width_mult=width_mult, num_frames=frames, img_size=size, **kwargs))


def small_checkpoint(name, preprocessing=PREPROCESSING):
    """A small network for clips as the preprocessing makes them."""
    channels, frames, size, _ = preprocessing.input_shape
    model = small_network(name, frames, size, in_chans=channels)
    width_mult = 0.25 if "fsam" in name else 0.125
    kwargs = {"width_mult": width_mult, "num_frames": frames, "img_size": size, "in_chans": channels}
    return Checkpoint(model, name, kwargs, CLASSES, preprocessing, {"seed": 3})


class Foreign(nn.Module):
    """A network of somebody else: nothing in it is of msfnet."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool3d(2)
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.GELU(), self.pool)
        self.body = nn.Sequential(nn.Conv3d(8, 8, 3, padding=1, groups=4), nn.BatchNorm3d(8), nn.SiLU(), self.pool)
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x):
        return self.head(self.body(self.stem(x))).mean((2, 3, 4))


def foreign_checkpoint():
    torch.manual_seed(0)
    return Checkpoint(randomize(Foreign()), "foreign", {}, CLASSES, PREPROCESSING, {})

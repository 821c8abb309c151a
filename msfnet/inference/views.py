"""From frames to probabilities: what scoring and prediction share. Knows no file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msfnet.data.transforms import crop_views, normalize
from msfnet.types import Preprocessing


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def score_views(model: nn.Module, clips: Tensor, preprocessing: Preprocessing, crops: int) -> Tensor:
    """Class probabilities of every view: uint8 N V T H W 3 -> float N V*crops K, on the network's device."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))  # other runtimes have none
    videos, views = clips.shape[:2]
    cropped = crop_views(clips.to(device).flatten(0, 1), preprocessing.crop_size, crops)  # N*V crops T h w 3
    probabilities = model(normalize(cropped.flatten(0, 1), preprocessing)).float().softmax(-1)
    return probabilities.reshape(videos, views * crops, -1)

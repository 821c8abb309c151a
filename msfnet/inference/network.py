"""A network for inference: loaded from any kind of weights, on a device, applied to the views of clips.

Evaluation and prediction share these functions. This module is independent of video files.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from msfnet.data.transforms import crop_views, normalize
from msfnet.exporting.load import CPU_ONLY, is_exported, load_exported
from msfnet.inference.fused import fuse
from msfnet.models.checkpoint import Checkpoint, load_weights
from msfnet.run_folder import Run, resolve_weights
from msfnet.types import Preprocessing, UserError

log = logging.getLogger(__name__)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device to compute on.

    Args:
        device: cpu, cuda, cuda:N or mps; None is the first GPU of CUDA where there is one, else the CPU.

    Raises:
        UserError: There is no device of this name, or PyTorch cannot use it on this machine.
    """
    if device is None:
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        log.debug("device %s, by default", found)
        return found
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"expected a device of cpu, cuda, cuda:N or mps, found {device!r}") from error
    n_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (found.index or 0) >= n_devices.get(found.type, 0):
        raise UserError(
            f"expected cpu, or another device that PyTorch can use here, found {found}; leave --device out to use the "
            "best one"
        )
    log.debug("device %s", found)
    return found


def load_network(weights: str | Path | Run | Checkpoint, device: str | torch.device | None = None) -> Checkpoint:
    """Return a network that is ready for inference: fused and on its device. It can no longer be trained.

    Args:
        weights: A .safetensors file, a run or its folder (its best weights), an exported file, the name of bundled
            weights, or a `Checkpoint`, whose network is copied and may be any module N C T H W -> N K.
        device: See `choose_device`. ONNX and OpenVINO files run on the CPU.

    Raises:
        UserError: The weights do not exist or msfnet did not write them, the library that runs them is not installed,
            or the device cannot be used.
    """
    if isinstance(weights, Checkpoint):
        checkpoint = replace(weights, model=fuse(weights.model))
    elif not isinstance(weights, str | os.PathLike | Run):
        raise UserError(f"expected weights as a path, a name, a Run or a Checkpoint, found {type(weights).__name__}")
    elif is_exported(path := weights.folder if isinstance(weights, Run) else Path(weights)):
        checkpoint = load_exported(path)
        log.debug("weights %s", path)
        if path.suffix.lower() in CPU_ONLY:
            if device is not None and choose_device(device).type != "cpu":
                raise UserError(f"{path} runs on the CPU: expected the device cpu or none, found {device}")
            return checkpoint
    else:
        checkpoint = load_weights(path)
        log.debug("weights %s", resolve_weights(path))
        checkpoint = replace(checkpoint, model=fuse(checkpoint.model))
    return replace(checkpoint, model=checkpoint.model.to(choose_device(device)))


def device_of(model: nn.Module) -> torch.device:
    """Return where a network's tensors are; the CPU for one without any, such as an exported network."""
    return next((tensor.device for tensor in chain(model.parameters(), model.buffers())), torch.device("cpu"))


@torch.inference_mode()
def score_views(model: nn.Module, clips: Tensor, preprocessing: Preprocessing, crops: int) -> Tensor:
    """Return the class probabilities of every view.

    Args:
        model: N C T H W -> logits N K.
        clips: uint8 N V T H W 3, V clips of each of N videos, resized.
        preprocessing: The network's preprocessing.
        crops: 1 for the center of each clip, 3 for both ends of its longer side as well.

    Returns:
        Probabilities N V*crops K, on the device of the network.
    """
    n_videos, n_clips = clips.shape[:2]
    clips = clips.to(device_of(model)).flatten(0, 1)  # N V T H W 3 -> N*V T H W 3
    views = crop_views(clips, preprocessing.crop_size, crops).flatten(0, 1)  # N*V*crops T h w 3
    probabilities = model(normalize(views, preprocessing)).float().softmax(-1)
    return probabilities.reshape(n_videos, n_clips * crops, -1)

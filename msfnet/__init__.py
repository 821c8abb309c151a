"""Video action recognition: MSF-Net (Yan et al., 2023) and the 3D convolutional networks that it is compared with.

The names below are imported when they are first used, so that `import msfnet` is fast. msfnet logs to the logger
`msfnet` and prints nothing itself: `logging.basicConfig(level=logging.INFO)` shows progress and warnings.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "train": "msfnet.api",
    "resume": "msfnet.api",
    "evaluate": "msfnet.api",
    "predict": "msfnet.api",
    "export": "msfnet.exporting.export",
    "read_clips": "msfnet.api",
    "read_dataset": "msfnet.data.annotations.readers",
    "create_model": "msfnet.models.registry",
    "list_models": "msfnet.models.registry",
    "register_model": "msfnet.models.registry",
    "Recipe": "msfnet.recipe",
    "load_recipe": "msfnet.recipe",
    "Recognizer": "msfnet.inference.recognizer",
    "Checkpoint": "msfnet.models.checkpoint",
    "Run": "msfnet.run_folder",
    "Dataset": "msfnet.data.dataset",
    "VideoDataset": "msfnet.data.dataset",
    "VideoItem": "msfnet.types",
    "Clip": "msfnet.types",
    "Prediction": "msfnet.types",
    "EvalResult": "msfnet.types",
    "Preprocessing": "msfnet.types",
    "Views": "msfnet.types",
    "UserError": "msfnet.types",
    "VideoError": "msfnet.types",
}

__all__ = ["__version__", *_MODULES]

if TYPE_CHECKING:
    from msfnet.api import evaluate as evaluate
    from msfnet.api import predict as predict
    from msfnet.api import read_clips as read_clips
    from msfnet.api import resume as resume
    from msfnet.api import train as train
    from msfnet.data.annotations.readers import read_dataset as read_dataset
    from msfnet.data.dataset import Dataset as Dataset
    from msfnet.data.dataset import VideoDataset as VideoDataset
    from msfnet.exporting.export import export as export
    from msfnet.inference.recognizer import Recognizer as Recognizer
    from msfnet.models.checkpoint import Checkpoint as Checkpoint
    from msfnet.models.registry import create_model as create_model
    from msfnet.models.registry import list_models as list_models
    from msfnet.models.registry import register_model as register_model
    from msfnet.recipe import Recipe as Recipe
    from msfnet.recipe import load_recipe as load_recipe
    from msfnet.run_folder import Run as Run
    from msfnet.types import Clip as Clip
    from msfnet.types import EvalResult as EvalResult
    from msfnet.types import Prediction as Prediction
    from msfnet.types import Preprocessing as Preprocessing
    from msfnet.types import UserError as UserError
    from msfnet.types import VideoError as VideoError
    from msfnet.types import VideoItem as VideoItem
    from msfnet.types import Views as Views

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'msfnet' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

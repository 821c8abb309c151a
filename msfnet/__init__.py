"""Recognize actions in videos: MSF-Net (Yan et al., 2023), its rivals and ablations, from raw files to predictions.

Names are loaded when they are first used, so that `import msfnet` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "create_model": "msfnet.models.registry",
    "list_models": "msfnet.models.registry",
    "Recognizer": "msfnet.inference.recognizer",
    "Recipe": "msfnet.recipe",
    "load_recipe": "msfnet.recipe",
    "Prediction": "msfnet.types",
    "Preprocessing": "msfnet.types",
    "EvalResult": "msfnet.types",
    "UserError": "msfnet.types",
    "Views": "msfnet.types",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from msfnet.inference.recognizer import Recognizer as Recognizer
    from msfnet.models.registry import create_model as create_model
    from msfnet.models.registry import list_models as list_models
    from msfnet.recipe import Recipe as Recipe
    from msfnet.recipe import load_recipe as load_recipe
    from msfnet.types import EvalResult as EvalResult
    from msfnet.types import Prediction as Prediction
    from msfnet.types import Preprocessing as Preprocessing
    from msfnet.types import UserError as UserError
    from msfnet.types import Views as Views


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'msfnet' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

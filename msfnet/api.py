"""The public functions of the package: keyword functions over the packages below them.

`data` is what the commands take as DATA (a path or URL) or a `Dataset`; `weights` is what they take as WEIGHTS (a path
or a name), a `Run` or a `Checkpoint`.
"""

from __future__ import annotations

import copy
import glob
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from msfnet.recipe import Overrides, Recipe, change, load_recipe
from msfnet.run_folder import Run
from msfnet.types import Clip, EvalResult, FrameFormat, Prediction, UserError, VideoError, Views

if TYPE_CHECKING:
    import torch
    from torch import nn

    from msfnet.data.augment.augmentation import Transform
    from msfnet.data.dataset import Dataset
    from msfnet.inference.recognizer import Source
    from msfnet.models.checkpoint import Checkpoint


def train(
    data: str | Path | Dataset,
    *,
    recipe: str | Path | Recipe = "small",
    model: str | nn.Module | Callable[..., nn.Module] | None = None,
    pretrained: str | Path | Run | None = None,
    set: Overrides = (),  # noqa: A002, as --set
    annotations: str | Path | None = None,
    split: int = 1,
    groups: str | None = None,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    transform: Transform | None = None,
) -> Run:
    """Train a network on labeled videos and evaluate its best weights on the test videos.

    Args:
        data: Folder, manifest, shards or URL (see DATA in the page on commands), or a `Dataset`.
        recipe: Name of a bundled recipe, a TOML file, or a `Recipe`.
        model: Name of a network, in place of that of the recipe; or a network of your own: an `nn.Module` with as many
            outputs as there are classes, or a function or class that takes the number of classes and returns one. It
            is registered under its class's or function's name, as by `register_model`, and the recipe's
            `model.width_mult` and `model.kwargs` do not apply to it.
        pretrained: Weights to start from, in place of those of the recipe: a weights file, a run, the name of bundled
            weights, a PyTorch state dict, or `kinetics400`, which is downloaded.
        set: Recipe keys to change, such as `{"optim.lr": 0.1}`.
        annotations: Folder of official annotations, for a folder of videos.
        split: Number of the official split, where there are several.
        groups: Regular expression that is searched in each path: its first parenthesis, or the whole match, names the
            group of the video. Videos of one group are kept in one split.
        out: Run folder; by default `runs/MODEL`, numbered if it exists.
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one. Not yet run on a GPU.
        transform: Your own transform of training clips, applied before the augmentation of the recipe: uint8 clips
            N T H W 3 on the device to clips of the same type and number of frames.

    Returns:
        The run: `folder`, `weights` (path of the best ones), `result` (the scores on the test videos), `history` (a row
        for each epoch).

    Raises:
        UserError: The data, recipe, network or device cannot be used, or the folder already holds a run.
        Interrupted: Ctrl-C or SIGTERM. `resume` continues the run.
    """
    from msfnet.models.registry import find_variant
    from msfnet.training import trainer

    settings = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if isinstance(model, str):
        settings = change(settings, {"model.name": model})
    elif model is not None:
        settings = change(settings, {"model.name": _register(model), "model.width_mult": 1, "model.kwargs": {}})
    if pretrained is not None:
        source = pretrained.folder if isinstance(pretrained, Run) else pretrained
        settings = change(settings, {"model.pretrained": str(source)})
    settings = change(settings, set)
    find_variant(settings.model.name)  # a wrong name is an error before videos are looked for
    dataset = _dataset(data, annotations, split, groups)
    folder = trainer.new_run_folder(settings.model.name) if out is None else Path(out)
    return trainer.train(dataset, settings, folder, transform=transform, device=device)


def resume(
    run: str | Path | Run,
    data: str | Path | Dataset | None = None,
    *,
    annotations: str | Path | None = None,
    split: int = 1,
    device: str | torch.device | None = None,
    transform: Transform | None = None,
) -> Run:
    """Resume an interrupted run from its last checkpoint, with its own recipe and split.

    Args:
        run: The run or its folder.
        data: The dataset, if it was moved or is a `Dataset` in Python; its videos must be those of the run.
        annotations: Folder of official annotations, for a folder of videos.
        split: Number of the official split, where there are several.
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one. Not yet run on a GPU.
        transform: The transform that the run was started with.

    Returns:
        The run; see `train`.

    Raises:
        UserError: There is no checkpoint, or the data or transform are not those of the run.
        Interrupted: Ctrl-C or SIGTERM. The run can be resumed again.
    """
    from msfnet.training import trainer

    folder = run.folder if isinstance(run, Run) else Path(run)
    dataset = _dataset(data, annotations, split) if data is not None else None
    return trainer.resume(folder, dataset, transform=transform, device=device)


def evaluate(
    weights: str | Path | Run | Checkpoint,
    data: str | Path | Dataset,
    *,
    views: Views | str | None = None,
    annotations: str | Path | None = None,
    split: int = 1,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
) -> EvalResult:
    """Evaluate a network on the held-out videos of a dataset.

    These are the test split of the data, or without one its validation split, or without either all videos. Videos that
    the run behind the weights was trained on are left out.

    Args:
        weights: Weights file, run, exported file, name of bundled weights, or a `Checkpoint`.
        data: Folder, manifest, shards or URL (see DATA in the page on commands), or a `Dataset`.
        views: CLIPSxCROPS whose scores are averaged for each video, such as `4x1`; by default those of the weights.
        annotations: Folder of official annotations, for a folder of videos.
        split: Number of the official split, where there are several.
        out: Folder to write `report.html`, `scores.json` and `scores.md` to.
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one. Not yet run on a GPU.

    Returns:
        Clip and video accuracy, results per class, the confusion matrix, and the prediction for each video.

    Raises:
        UserError: The weights, data or device cannot be used, or there is nothing to evaluate.
    """
    from msfnet import distributed
    from msfnet.inference.evaluation import evaluate_dataset

    views = Views.parse(views) if isinstance(views, str) else views
    dataset = _dataset(data, annotations, split)
    result = evaluate_dataset(weights, dataset, views=views, device=device)
    if out is not None and distributed.rank() == 0:
        title = f"{_name(weights)} on {data if isinstance(data, str | Path) else dataset.source}"
        _write_evaluation(Path(out), title, result, dataset)
    return result


@overload
def predict(
    weights: str | Path | Run | Checkpoint,
    sources: Source,
    *,
    fps: float | None = None,
    top_k: int = 5,
    views: Views | str | None = None,
    device: str | torch.device | None = None,
) -> Prediction: ...
@overload
def predict(
    weights: str | Path | Run | Checkpoint,
    sources: list[Any] | tuple[Any, ...],
    *,
    fps: float | None = None,
    top_k: int = 5,
    views: Views | str | None = None,
    device: str | torch.device | None = None,
) -> list[Prediction]: ...
def predict(
    weights: str | Path | Run | Checkpoint,
    sources: Any,
    *,
    fps: float | None = None,
    top_k: int = 5,
    views: Views | str | None = None,
    device: str | torch.device | None = None,
) -> Prediction | list[Prediction]:
    """Recognize the action in a video, or in each video of a list.

    `Recognizer` loads the weights once for many calls and yields predictions in a stream.

    Args:
        weights: Weights file, run, exported file, name of bundled weights, or a `Checkpoint`.
        sources: A video: a path (of a file, or of a folder with one image per frame), the content of a file, a file
            opened in binary mode, or frames uint8 T H W 3. In a list, paths may also be folders of videos and globs.
        fps: Frames per second of arrays. Needed where the network was trained at a frame rate.
        top_k: Number of classes in each prediction.
        views: CLIPSxCROPS whose scores are averaged for each video, such as `4x1`; by default those of the weights.
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one. Not yet run on a GPU.

    Returns:
        A prediction, or a list of predictions for a list. A video that cannot be read has the reason in `error`.

    Raises:
        UserError: The weights or device cannot be used, or a folder or glob in the list names no video.
    """
    from msfnet.inference.recognizer import Recognizer

    recognizer = Recognizer.load(weights, device)
    if isinstance(sources, list | tuple):
        sources = [video for source in sources for video in _expand(source)]
    return recognizer(sources, fps=fps, top_k=top_k, views=views)


def read_clips(
    path: str | Path,
    num_frames: int = 16,
    num_clips: int = 1,
    size: int | tuple[int, int] | None = None,
    frame_interval: int | None = None,
    fps: float | None = None,
) -> Clip:
    """Read clips of a video file, or of a folder with one image per frame.

    Only the frames that are needed are decoded. Rotation is applied, and a variable frame rate is made constant.

    Args:
        path: The video.
        num_frames: T, frames of each clip. A video with fewer frames is padded with its last one.
        num_clips: V, clips spread evenly over the video.
        size: Width and height in pixels that frames are resized to, or one number for the shorter side at the video's
            aspect ratio; None keeps the size of the file.
        frame_interval: Distance between consecutive frames of a clip, or the largest one that fits into the video; None
            spreads each clip over the whole video.
        fps: Frames per second that the video is resampled to; None reads every frame of the file.

    Returns:
        A clip with `frames` (uint8 RGB, V T H W 3), their `times` in seconds (V T) and a `warning` for a damaged file.

    Raises:
        VideoError: No frame of the video can be decoded. The message starts with the path.
        UserError: An argument is out of range.
    """
    from msfnet.data.sampling import dense_clips, uniform_clips
    from msfnet.data.video import decode

    if min(num_frames, num_clips, 1 if frame_interval is None else frame_interval) < 1:
        raise UserError(
            "expected num_frames, num_clips and frame_interval of 1 or more, found "
            f"{num_frames}, {num_clips} and {frame_interval}"
        )
    if fps is not None and not 0.01 <= fps <= 1000:
        raise UserError(f"expected fps of 0.01 to 1000, or None for every frame of the file, found {fps:g}")
    if frame_interval is None:
        plan = partial(uniform_clips, frames=num_frames, clips=num_clips)
    else:
        plan = partial(dense_clips, frames=num_frames, clips=num_clips, interval_frames=frame_interval)
    path = Path(path)
    try:
        if size is None or isinstance(size, int):
            width, height = decode.frame_size(path)
            scale = 1 if size is None else size / min(width, height)
            size = round(width * scale), round(height * scale)
        if min(size) < 1:
            raise UserError(f"expected a size of 1 pixel or more, found {size[0]}x{size[1]}")
        return decode.read_clips(path, plan, FrameFormat(size, fps or 0.0))
    except VideoError as error:
        raise VideoError(f"{path}: {error}") from error


def _dataset(
    data: str | Path | Dataset, annotations: str | Path | None, split: int, groups: str | None = None
) -> Dataset:
    """Read a dataset, unless it is one already, and regroup its videos by a regular expression."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.data.dataset import VideoDataset
    from msfnet.data.splits import group_by_path

    if isinstance(data, str | Path):
        data = read_dataset(data, Path(annotations) if annotations else None, split)
    elif not hasattr(data, "in_split"):  # isinstance of a protocol would read every property, and so the files
        raise UserError(f"expected data as a path, a URL or a Dataset, found {type(data).__name__}")
    if groups is None:
        return data
    if not isinstance(data, VideoDataset):
        raise UserError(f"expected video files for groups by path, found {data.source}, whose split is fixed")
    return data.with_items(group_by_path(data.items, groups))


def _expand(source: Source) -> Sequence[Source]:
    """Return the videos in a folder, or those that a glob matches; anything else is a video itself."""
    from msfnet.inference.sources import find_sources

    if isinstance(source, str | Path) and (Path(source).is_dir() or glob.has_magic(str(source))):
        return find_sources([str(source)])
    return [source]


def _register(model: nn.Module | Callable[..., nn.Module]) -> str:
    """Register a network, or what makes one, under the name of its class or function, and return the name."""
    from torch import nn

    from msfnet.models.registry import register_model

    if isinstance(model, nn.Module):
        name = type(model).__name__
        register_model(name, lambda num_classes: copy.deepcopy(model))
    elif callable(model) and hasattr(model, "__name__"):
        name = model.__name__
        register_model(name, model)
    else:
        raise UserError(
            "expected model as a name, an nn.Module, or a named function or class that takes the number of classes, "
            f"found {type(model).__name__}"
        )
    return name


def _name(weights: str | Path | Run | Checkpoint) -> str:
    """Return the name of weights for a page."""
    if isinstance(weights, Run):
        return str(weights.folder)
    return str(weights) if isinstance(weights, str | Path) else weights.name


def _write_evaluation(folder: Path, title: str, result: EvalResult, dataset: Dataset) -> None:
    from msfnet.atomic_io import write_text
    from msfnet.report import evaluation_markdown, write_evaluation_report

    folder.mkdir(parents=True, exist_ok=True)
    write_evaluation_report(folder / "report.html", title, result, dataset.thumbnails)
    write_text(folder / "scores.json", json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    write_text(folder / "scores.md", evaluation_markdown(result))

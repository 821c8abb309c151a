"""Train on a dataset and with a transform of your own: here, videos that are NumPy arrays in one file.

    python custom_dataset.py ARRAYS.npz OUT [EPOCHS]

ARRAYS.npz has arrays uint8 T H W 3, each named LABEL/NAME. Only `read_clips` has to be written; worker processes, the
order of an epoch, batches, splits and resuming come from msfnet.
"""

import logging
import sys
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import msfnet
from msfnet.types import FrameFormat


class ArrayVideos(msfnet.VideoDataset):
    """The arrays of an .npz file as videos. Their items are named as the arrays are."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as arrays:
            items = [msfnet.VideoItem(Path(name), label=name.partition("/")[0]) for name in arrays.files]
        super().__init__(items, source=file.name)
        self.file = file

    @cached_property
    def arrays(self):
        """The opened file; each worker process opens its own."""
        return np.load(self.file)

    def __getstate__(self):
        """What is sent to worker processes: everything but the opened file."""
        return {key: value for key, value in vars(self).items() if key != "arrays"}

    def read_clips(self, item: msfnet.VideoItem, plan, frame_format: FrameFormat) -> msfnet.Clip:
        """Read the frames that `plan` chooses, V T, of one video. msfnet resizes them to `frame_format`."""
        video = self.arrays[item.path.as_posix()]  # T H W 3
        return msfnet.Clip(video[plan(len(video))], video_frames=len(video))


def random_gray(clips: Tensor) -> Tensor:
    """Turn half of the training clips gray: uint8 N T H W 3, before the augmentation of the recipe."""
    gray = clips.float().mean(-1, keepdim=True).to(torch.uint8).expand_as(clips)
    chosen = torch.rand(len(clips), device=clips.device) < 0.5
    return torch.where(chosen[:, None, None, None, None], gray, clips)


def main(file: Path, out: Path, epochs: int = 20) -> None:
    """Train on the arrays, evaluate on those that were held out, and predict one."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    dataset = ArrayVideos(file)
    run = msfnet.train(dataset, set={"train.epochs": epochs}, transform=random_gray, out=out / "run")
    result = msfnet.evaluate(run, dataset)
    print(f"top-1 of {result.n_videos} held-out videos: {result.video.top1:.1%}")
    item = dataset.items[0]
    prediction = msfnet.predict(run, dataset.arrays[item.path.as_posix()])  # an array in place of a file
    print(f"{item.path}: {prediction.labels[0]}")


if __name__ == "__main__":  # worker processes import this file
    if len(sys.argv) not in (3, 4):
        print("usage: python custom_dataset.py ARRAYS.npz OUT [EPOCHS]", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))

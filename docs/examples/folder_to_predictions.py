"""From a folder of videos to a fine-tuned network and its predictions, in Python alone.

    python folder_to_predictions.py VIDEOS OUT [EPOCHS]

VIDEOS has one folder of videos per class: VIDEOS/jump/*.mp4, VIDEOS/run/*.mp4, ... The run folder and the scores are
written to OUT. In a notebook, the lines of `main` can be run one after the other.
"""

import logging
import sys
from pathlib import Path

import msfnet


def main(videos: Path, out: Path, epochs: int = 20) -> None:
    """Look at the videos, fine-tune the bundled weights on them, evaluate and predict."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # progress and warnings

    # What is there: videos with labels and, if the names or folders tell them, groups and splits.
    dataset = msfnet.read_dataset(videos)
    print(dataset.describe())
    clip = msfnet.read_clips(dataset.items[0].path, num_frames=8, size=112)
    print(f"{dataset.items[0].path.name}: frames {clip.frames.shape} at {clip.times[0].round(2)} seconds")

    # Fine-tune: recipe `best` has the input and width of the bundled weights; only the last layer is new.
    settings = {"train.epochs": epochs, "optim.lr": 0.01}
    run = msfnet.train(dataset, recipe="best", pretrained="msfnet_ucf101_18", set=settings, out=out / "run")
    print(
        f"loss of each epoch: {[round(row['train_loss'], 2) for row in run.history]}; report: {run.folder}/report.html"
    )

    # Evaluate on the videos that the run held out. Accuracy has a confidence interval, which says how far to trust it.
    result = msfnet.evaluate(run, dataset, out=out / "scores")
    low, high = result.video.ci95
    print(f"top-1 of {result.n_videos} held-out videos: {result.video.top1:.1%}, 95 % interval {low:.1%} to {high:.1%}")
    for video in result.videos:
        if not video.correct:
            print(f"  {video.path}: {video.label} predicted as {video.predicted}")

    # Predict. A list can hold files, folders and globs; a file that cannot be read has a reason in place of labels.
    for prediction in msfnet.predict(run, [videos / dataset.classes[0]], top_k=2):
        print(prediction.path, prediction.error or prediction.predictions)


if __name__ == "__main__":  # worker processes import this file
    if len(sys.argv) not in (3, 4):
        print("usage: python folder_to_predictions.py VIDEOS OUT [EPOCHS]", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))

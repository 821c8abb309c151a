"""What pages say about histories and evaluation results that are written by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import page_in_browser

from msfnet.report import evaluation_markdown, evaluation_sections, evaluation_tiles
from msfnet.report.evaluation import confused_examples, most_confident, write_evaluation_report
from msfnet.report.run_report import (
    cost_sections,
    curve_sections,
    data_bottleneck,
    step_time_sections,
    time_shares,
    write_run_report,
)
from msfnet.types import Accuracy, EvalResult, ScoredVideo, UserError, Views


def row(data, h2d, augment, forward, worker=1.0):
    parts = {"data": data, "h2d": h2d, "augment": augment, "forward": forward, "worker": worker}
    return {f"{part}_seconds": seconds for part, seconds in parts.items()}


# Run report


def test_time_shares_cover_all_epochs():
    shares = time_shares([row(30, 0, 10, 60), row(0, 0, 20, 80)])
    assert shares == pytest.approx({"forward": 0.7, "data": 0.15, "augment": 0.15, "h2d": 0.0})


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (row(1, 0.5, 0.2, 98.3), "Data is no bottleneck: data loading took 1.0% of the step time."),
        (row(30, 1, 1, 68), "Data loading took 30% of the step time: raise data.num_workers"),
        (row(1, 1, 20, 78), "Augmentation took 20% of the step time: use less augmentation"),
        (row(1, 9, 2, 88), "Host-to-device copy took 9% of the step time: use fewer frames"),
    ],
)
def test_bottleneck_is_named_with_a_remedy(times, expected):
    assert data_bottleneck(time_shares([times])).startswith(expected)


def test_history_without_times_has_no_section():
    assert step_time_sections([{"epoch": 1, "seconds": 3.0}]) == []
    assert time_shares([row(0, 0, 0, 0)]) == {}


def test_step_time_is_divided_into_parts():
    times = {"forward_seconds": 20.0, "backward_seconds": 60.0, "data_seconds": 15.0, "augment_seconds": 5.0}
    history = [{"epoch": 1, **times}, {"epoch": 2, **times}]
    assert time_shares(history) == pytest.approx({"forward": 0.2, "backward": 0.6, "data": 0.15, "augment": 0.05})
    (section,) = step_time_sections(history, steps_per_epoch=100)
    assert "An epoch has 100 steps of 1.00 s each." in section.lead
    assert section.bars["forward"] == ("20.0%, 200 ms per step", pytest.approx(0.2))
    assert section.bars["backward and optimizer"][0] == "60.0%, 600 ms per step"
    assert "host-to-device copy" not in section.bars


def test_peak_memory_is_shown_where_it_is_known():
    history = [
        {"epoch": 1, "seconds": 2.0, "peak_memory_mib": 512.0},
        {"epoch": 2, "seconds": 2.0, "peak_memory_mib": 1536.0},
    ]
    (section,) = cost_sections(history)
    assert section.lead == "Peak memory was 1,536 MiB."
    (section,) = cost_sections([{"epoch": 1, "seconds": 2.0}])
    assert section.lead == ""
    assert cost_sections([{"epoch": 1}]) == []


def test_best_epoch_is_the_last_of_equals():
    """The run keeps the weights of that epoch."""
    history = [{"epoch": e, "val_top1": top1} for e, top1 in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.4))]
    assert curve_sections(history)[0].lead == "Best validation top-1: 50.0%, after epoch 3."
    assert curve_sections([]) == []


# Evaluation results


def video(name, label, predicted, score):
    return ScoredVideo(f"/videos/{label}/{name}.mp4", label, predicted, score)


VIDEOS = (
    video("1", "Archery", "Archery", 0.9),
    video("2", "Archery", "Bowling", 0.8),
    video("3", "Archery", "Bowling", 0.7),
    video("4", "Archery", "Bowling", 0.6),
    video("5", "Bowling", "Archery", 0.95),
    video("6", "Bowling", "Bowling", 0.4),
    video("7", "Cricket", "Cricket", 0.5),
    video("8", "Cricket", None, 0.0),
)
RESULT = EvalResult(
    classes=("Archery", "Bowling", "Cricket"),
    views=Views(2, 1),
    clip=Accuracy(0.4, 1.0),
    video=Accuracy(3 / 8, 7 / 8, (0.137, 0.694)),
    per_class={"Archery": {"n": 4, "top1": 0.25}, "Bowling": {"n": 2, "top1": 0.5}, "Cricket": {"n": 2, "top1": 0.5}},
    confusion=np.array([[1, 3, 0], [1, 1, 0], [0, 0, 1]]),
    n_videos=8,
    unreadable={"/videos/Cricket/8.mp4": "no video stream"},
    padded=("/videos/Archery/1.mp4",),
    videos=VIDEOS,
    protocol="test split",
)


def test_mean_class_accuracy_weights_classes_equally():
    per_class = {"often": {"n": 9, "top1": 1.0}, "rare": {"n": 1, "top1": 0.0}, "half": {"n": 2, "top1": 0.5}}
    result = replace(RESULT, per_class=per_class)
    assert result.mean_class_accuracy == result.to_dict()["mean_class_accuracy"] == 0.5
    assert "| video, mean over classes | 50.0% | |\n" in evaluation_markdown(result)
    assert evaluation_tiles(result)["mean class accuracy"] == "50.0%"


def test_result_survives_a_round_trip_through_json():
    back = EvalResult.from_dict(json.loads(json.dumps(RESULT.to_dict())))
    assert back.to_dict() == RESULT.to_dict()
    assert replace(back, confusion=RESULT.confusion) == RESULT
    assert RESULT.to_dict()["chance"] == pytest.approx(1 / 3)
    assert RESULT.to_dict()["clip"] == {"top1": 0.4, "top5": 1.0}
    assert RESULT.to_dict()["video"]["ci95"] == (0.137, 0.694)


@pytest.mark.parametrize("change", [{"classes": None}, {"confusion": [[1]]}, {"views": "4"}, {"videos": [{"path": 1}]}])
def test_other_json_is_refused_in_one_line(change):
    with pytest.raises(UserError) as error:
        EvalResult.from_dict(RESULT.to_dict() | change)
    assert "\n" not in str(error.value)


def test_most_confident_predictions():
    assert [v.score for v in most_confident(RESULT, correct=False, most=9, per_pair=2)] == [0.95, 0.8, 0.7]
    assert [v.score for v in most_confident(RESULT, correct=False, most=1, per_pair=2)] == [0.95]
    assert [v.score for v in most_confident(RESULT, correct=True, most=9, per_pair=1)] == [0.9, 0.5, 0.4]


def test_confused_examples_are_the_most_confident_videos():
    """A wrong prediction of each pair of classes, and a correct one of the predicted class if there is any."""
    assert confused_examples(RESULT, 9) == [(VIDEOS[1], VIDEOS[5]), (VIDEOS[4], VIDEOS[0])]
    without = replace(RESULT, videos=VIDEOS[:5])
    assert confused_examples(without, 1) == [(VIDEOS[1], None)]
    assert confused_examples(replace(RESULT, videos=()), 9) == []


def test_class_table_starts_with_the_lowest_accuracy():
    section = evaluation_sections(RESULT, n_train={"Archery": 7, "Bowling": 5})[0]
    assert section.table.columns == ("class", "training videos", "videos", "top-1 (recall)", "precision", "F1")
    assert section.table.rows[0] == ("Archery", "7", "4", "25.0%", "50.0%", "33.3%")
    assert section.table.rows[2] == ("Cricket", "0", "2", "50.0%", "100.0%", "66.7%")
    assert "8 videos (test split)" in section.lead
    assert "3 videos are correct; the 95% confidence interval" in section.lead
    assert "13.7% to 69.4%" in section.lead


def test_calibration_leaves_out_unreadable_videos():
    sections = {section.title: section for section in evaluation_sections(RESULT)}
    lead = sections["Calibration"].lead
    assert "over 7 videos" in lead
    assert "mean confidence is 69.3% and the accuracy 42.9%: the network is overconfident" in lead


@pytest.mark.parametrize(
    ("scores", "verdict"), [((0.4, 0.6), "neither over- nor underconfident"), ((0.4, 0.5), "underconfident")]
)
def test_calibration_of_a_network_that_is_half_correct(scores, verdict):
    videos = tuple(replace(own, score=score) for own, score in zip(VIDEOS, scores, strict=False))
    sections = {section.title: section for section in evaluation_sections(replace(RESULT, videos=videos))}
    assert sections["Calibration"].lead.endswith(f"the accuracy 50.0%: the network is {verdict}.")


def thumbnails(paths):
    """Pictures of all videos but the most confident error."""
    return {path: np.full((72, 576, 3), 9, np.uint8) for path in paths if not path.endswith("5.mp4")}


def test_videos_without_a_thumbnail_are_listed():
    sections = {section.title: section for section in evaluation_sections(RESULT, thumbnails=thumbnails)}
    errors = sections["Most confident errors"]
    assert errors.rows == {"/videos/Bowling/5.mp4": "predicted Archery (95.0%), true Bowling"}
    assert list(errors.pictures) == [
        "2.mp4, predicted Bowling (80.0%), true Archery",
        "3.mp4, predicted Bowling (70.0%), true Archery",
    ]
    ((caption, picture),) = sections["Examples of confused classes"].pictures.items()
    assert caption == (
        "Top: 2.mp4, predicted Bowling (80.0%), true Archery. Bottom: 6.mp4, a correct prediction of Bowling"
    )
    assert picture.shape == (72 + 4 + 72, 576, 3)


def test_confused_classes_are_shown_by_at_most_four_examples():
    labels = [f"class{i}" for i in range(6)]
    videos = tuple(video(str(i), label, labels[(i + 1) % 6], 0.5) for i, label in enumerate(labels))
    result = replace(
        RESULT, classes=tuple(labels), per_class={}, confusion=np.roll(np.eye(6, dtype=int), 1, 1), videos=videos
    )
    sections = {section.title: section for section in evaluation_sections(result, thumbnails=thumbnails)}
    assert len(sections["Examples of confused classes"].pictures) == 4
    assert len(sections["Most confused classes"].table.rows) == 6


# Pages


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        replace(RESULT, videos=()),
        replace(RESULT, confusion=np.zeros((3, 3), int), videos=(VIDEOS[7],)),
    ],
)
def test_pages_of_incomplete_results_are_written(result, tmp_path):
    write_evaluation_report(tmp_path / "evaluation.html", "evaluation", result, thumbnails)
    history = [{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "seconds": 3.0, "data_seconds": 1.0}]
    write_run_report(tmp_path / "run.html", title="run", facts={}, history=history, result=None, unreadable={})
    for name in ("evaluation.html", "run.html"):
        assert "<html" in (tmp_path / name).read_text("utf-8")


def test_run_page_in_a_browser(tmp_path):
    """A page with every section, long paths and many epochs fits the window and loads nothing."""
    times = {
        "forward_seconds": 2.0,
        "backward_seconds": 5.0,
        "data_seconds": 1.0,
        "seconds": 9.0,
        "peak_memory_mib": 900.0,
    }
    history = [
        {"epoch": e, "lr": 0.1, "train_loss": 2 / e, "train_top1": 0.2, "val_loss": 2.0, "val_top1": 0.1, **times}
        for e in range(1, 61)
    ]
    unreadable = {f"/a/very/long/path/{'without-a-space-' * 12}{i}.mp4": "no video stream" for i in range(3)}
    write_run_report(
        tmp_path / "run.html",
        title="msf_r3d_18_fsam on 3 classes",
        facts={"network": "msf_r3d_18_fsam, width 0.25"},
        history=history,
        result=RESULT,
        unreadable=unreadable,
        n_train={"Archery": 7},
        steps_per_epoch=10,
        thumbnails=thumbnails,
    )
    with page_in_browser(tmp_path / "run.html") as page:
        titles = page.locator("h2").all_inner_texts()
        broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        images = page.locator("img").count()
    expected = ["Run", "Training curves", "Accuracy per class", "Confusion matrix", "Most confused classes"]
    expected += ["Examples of confused classes", "Calibration", "Most confident errors"]
    expected += ["Most confident correct predictions", "Step time", "Time and memory per epoch", "Unreadable files"]
    assert titles == expected
    assert broken == 0
    assert images == 4 + 1 + 2 + 3

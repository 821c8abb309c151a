"""What pages say of histories and scores, by hand-written ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import page_in_browser

from msfnet.report import (
    bottleneck,
    score_sections,
    score_tiles,
    scores_markdown,
    time_sections,
    time_shares,
    write_run_report,
    write_scores_report,
)
from msfnet.report.run_report import cost_sections, learning_sections
from msfnet.report.scores import confused_examples, most_sure
from msfnet.types import EvalResult, ScoredVideo, UserError, Views


def row(wait, transfer, augment, network, read=1.0):
    parts = {"wait": wait, "transfer": transfer, "augment": augment, "network": network, "read": read}
    return {f"{part}_seconds": seconds for part, seconds in parts.items()}


def test_shares_are_those_of_all_epochs():
    shares = time_shares([row(30, 0, 10, 60), row(0, 0, 20, 80)])
    assert shares == pytest.approx({"network": 0.7, "wait": 0.15, "augment": 0.15, "transfer": 0.0})


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (row(1, 0.5, 0.2, 98.3), "hardly waited: most for reading and decoding videos, 1.0% of the time"),
        (row(30, 1, 1, 68), "most for reading and decoding videos, 30% of the time: raise data.num_workers"),
        (row(1, 1, 20, 78), "most for augmentation, 20% of the time"),
        (row(1, 9, 2, 88), "most for moving batches to the device, 9% of the time"),
    ],
)
def test_the_bottleneck_is_named_with_its_remedy(times, said):
    assert said in bottleneck(time_shares([times]))


def test_a_history_without_times_has_no_section():
    assert time_sections([{"epoch": 1, "seconds": 3.0}]) == []
    assert time_shares([row(0, 0, 0, 0)]) == {}


def test_every_class_counts_alike_in_the_mean_of_classes():
    per_class = {"often": {"n": 9, "top1": 1.0}, "rare": {"n": 1, "top1": 0.0}, "half": {"n": 2, "top1": 0.5}}
    video = {"top1": 10 / 12, "top5": 1.0}
    scores = EvalResult(
        tuple(per_class), Views(), video, video, per_class, np.zeros((3, 3), np.int64), 12, failed={}, padded=()
    )
    assert scores.mean_class_accuracy == scores.to_dict()["mean_class_accuracy"] == 0.5
    assert "| video, mean of classes | 50.0% | |\n" in scores_markdown(scores)
    assert score_tiles(scores)["balanced over classes"] == "50.0%"


def test_forward_and_backward_are_told_apart_and_each_step_is_timed():
    times = {"forward_seconds": 20.0, "backward_seconds": 60.0, "wait_seconds": 15.0, "augment_seconds": 5.0}
    history = [{"epoch": 1, **times}, {"epoch": 2, **times}]
    assert time_shares(history) == pytest.approx({"forward": 0.2, "backward": 0.6, "wait": 0.15, "augment": 0.05})
    (section,) = time_sections(history, steps=100)
    assert "An epoch has 100 steps, each of 1.00 s." in section.lead
    assert section.bars["forward"] == ("20.0%, 200 ms a step", pytest.approx(0.2))
    assert section.bars["backward and optimizer"][0] == "60.0%, 600 ms a step"
    assert "the network" not in section.bars


def test_memory_is_told_where_it_is_known():
    history = [
        {"epoch": 1, "seconds": 2.0, "peak_memory_mib": 512.0},
        {"epoch": 2, "seconds": 2.0, "peak_memory_mib": 1536.0},
    ]
    (section,) = cost_sections(history)
    assert "1.50 GB" in section.lead
    (section,) = cost_sections([{"epoch": 1, "seconds": 2.0}])
    assert section.lead == ""
    assert cost_sections([{"epoch": 1}]) == []


def test_the_best_epoch_is_the_one_whose_weights_are_kept():
    history = [{"epoch": e, "val_top1": top1} for e, top1 in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.4))]
    assert learning_sections(history)[0].lead == "Best on validation: 50.0% after epoch 3."
    assert learning_sections([]) == []


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
SCORES = EvalResult(
    classes=("Archery", "Bowling", "Cricket"),
    views=Views(2, 1),
    clip={"top1": 0.4, "top5": 1.0},
    video={"top1": 3 / 8, "top5": 7 / 8},
    per_class={"Archery": {"n": 4, "top1": 0.25}, "Bowling": {"n": 2, "top1": 0.5}, "Cricket": {"n": 2, "top1": 0.5}},
    confusion=np.array([[1, 3, 0], [1, 1, 0], [0, 0, 1]]),
    n_videos=8,
    failed={"/videos/Cricket/8.mp4": "no video stream"},
    padded=("/videos/Archery/1.mp4",),
    videos=VIDEOS,
)


def test_scores_come_back_from_json_as_they_were():
    back = EvalResult.from_dict(json.loads(json.dumps(SCORES.to_dict())))
    assert back.to_dict() == SCORES.to_dict()
    assert replace(back, confusion=SCORES.confusion) == SCORES
    older = {key: value for key, value in SCORES.to_dict().items() if key not in ("videos", "padded")}
    assert EvalResult.from_dict(older).videos == ()


@pytest.mark.parametrize("change", [{"classes": None}, {"confusion": [[1]]}, {"views": "4"}, {"videos": [{"path": 1}]}])
def test_what_are_no_scores_is_refused(change):
    with pytest.raises(UserError) as error:
        EvalResult.from_dict(SCORES.to_dict() | change)
    assert "\n" not in str(error.value)


def test_most_sure_of_each_kind():
    assert [v.score for v in most_sure(SCORES, right=False, most=9, each=2)] == [0.95, 0.8, 0.7]
    assert [v.score for v in most_sure(SCORES, right=False, most=1, each=2)] == [0.95]
    assert [v.score for v in most_sure(SCORES, right=True, most=9, each=1)] == [0.9, 0.5, 0.4]


def test_examples_of_confusion_are_the_surest_wrong_answer_and_a_right_one():
    assert confused_examples(SCORES, 9) == [(VIDEOS[1], VIDEOS[5]), (VIDEOS[4], VIDEOS[0])]
    without = replace(SCORES, videos=VIDEOS[:5])
    assert confused_examples(without, 1) == [(VIDEOS[1], None)]
    assert confused_examples(replace(SCORES, videos=()), 9) == []


def test_classes_are_a_table_with_the_worst_first():
    section = score_sections(SCORES, trained={"Archery": 7, "Bowling": 5})[0]
    assert section.table.columns == ("class", "trained on", "scored", "top-1 (recall)", "precision", "F1")
    assert section.table.rows[0] == ("Archery", "7", "4", "25.0%", "50.0%", "33.3%")
    assert section.table.rows[2] == ("Cricket", "0", "2", "50.0%", "100.0%", "66.7%")
    assert "Of 8 videos 3 are right" in section.lead


def test_calibration_leaves_out_what_could_not_be_read():
    sections = {section.title: section for section in score_sections(SCORES)}
    lead = sections["Can its confidence be believed?"].lead
    assert "over 7 videos" in lead
    assert "claims 69.3% on average and reaches 42.9%: it is too sure of itself" in lead
    modest = replace(SCORES, videos=(replace(VIDEOS[0], score=0.4), replace(VIDEOS[1], score=0.6)))
    assert "it is as sure as it should be" in score_sections(modest)[3].lead


def strips(paths):
    """Pictures of all videos but the surest wrong one."""
    return {path: np.full((72, 576, 3), 9, np.uint8) for path in paths if not path.endswith("5.mp4")}


def test_videos_that_cannot_be_pictured_are_named():
    sections = {section.title: section for section in score_sections(SCORES, strips=strips)}
    wrong = sections["Most sure, and wrong"]
    assert wrong.rows == {"5.mp4": "Archery (95.0%), is Bowling"}
    assert list(wrong.pictures) == ["2.mp4: Bowling (80.0%), is Archery", "3.mp4: Bowling (70.0%), is Archery"]
    (caption, picture), *others = sections["What was confused"].pictures.items()
    assert caption.startswith("above, 2.mp4: Archery, taken for Bowling (80%); below, what it knew as Bowling: 6.mp4")
    assert picture.shape == (72 + 4 + 72, 576, 3)
    assert not others


@pytest.mark.parametrize(
    "scores",
    [
        SCORES,
        replace(SCORES, videos=()),
        replace(SCORES, confusion=np.zeros((3, 3), int), videos=(VIDEOS[7],)),
    ],
)
def test_a_page_stands_with_whatever_there_is(scores, tmp_path):
    write_scores_report(tmp_path / "scores.html", "scores", scores, strips)
    history = [{"epoch": 1, "lr": 0.1, "train_loss": 1.0, "seconds": 3.0, "wait_seconds": 1.0}]
    write_run_report(
        tmp_path / "run.html", title="run", facts={}, history=history, scores=None, problems={}, trained=None
    )
    for name in ("scores.html", "run.html"):
        assert "<html" in (tmp_path / name).read_text("utf-8")


def test_a_run_page_in_a_browser(tmp_path):
    """Long names, many classes and every section: nothing sticks out, nothing is fetched."""
    times = {
        "forward_seconds": 2.0,
        "backward_seconds": 5.0,
        "wait_seconds": 1.0,
        "seconds": 9.0,
        "peak_memory_mib": 900.0,
    }
    history = [
        {"epoch": e, "lr": 0.1, "train_loss": 2 / e, "train_top1": 0.2, "val_loss": 2.0, "val_top1": 0.1, **times}
        for e in range(1, 61)
    ]
    problems = {f"/a/very/long/path/{'without-a-space-' * 12}{i}.mp4": "no video stream" for i in range(3)}
    write_run_report(
        tmp_path / "run.html",
        title="msf_r3d_18_fsam on 3 classes",
        facts={"network": "msf_r3d_18_fsam, width 0.25"},
        history=history,
        scores=SCORES,
        problems=problems,
        trained={"Archery": 7},
        steps=10,
        strips=strips,
    )
    with page_in_browser(tmp_path / "run.html") as page:
        titles = page.locator("h2").all_inner_texts()
        broken = page.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
        images = page.locator("img").count()
    expected = ["The run", "Learning", "Classes", "Confusion", "Most confused", "What was confused"]
    expected += ["Can its confidence be believed?", "Most sure, and wrong", "Most sure, and right"]
    expected += ["Where the time went", "Time and memory of each epoch", "Files that could not be read"]
    assert titles == expected
    assert broken == 0
    assert images == 4 + 1 + 2 + 3

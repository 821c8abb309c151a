"""Which files and folders are videos, and the order of frames in a folder."""

import pytest
from annotation_files import touch
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.video.frame_folders import find_videos, frame_files, is_frame_folder, is_hidden, is_video


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["img_00001.jpg"], True),
        (["a.JPEG", "notes.txt", "sub/c.mp4"], True),
        (["1.png", "2.bmp", "3.webp", "4.tif", "5.tiff"], True),
        ([], False),
        (["notes.txt"], False),
        (["cover.jpg", "a.mp4"], False),
        (["._img_00001.jpg", "sub/img_00001.jpg"], False),
        (["flow_x_00001.jpg", "flow_y_00001.jpg"], False),
    ],
)
def test_is_frame_folder(tmp_path, names, expected):
    touch(tmp_path, *names)
    assert is_frame_folder(tmp_path) == expected


def test_files_and_missing_paths_are_not_frame_folders(tmp_path):
    touch(tmp_path, "a.jpg")
    assert not is_frame_folder(tmp_path / "a.jpg")
    assert not is_frame_folder(tmp_path / "nowhere")


def test_frames_are_in_natural_order(tmp_path):
    names = ["frame1.png", "frame2.png", "frame02b.png", "frame10.png", "frame10-1.png", "Frame11.PNG", "x.jpg"]
    touch(
        tmp_path, *reversed(names), "._frame1.png", ".frame3.png", "notes.txt", "flow_x_00001.jpg", "flow_y_00001.jpg"
    )
    touch(tmp_path, "__MACOSX/frame1.png", "masks/frame1.png")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in frame_files(tmp_path)] == names


@settings(max_examples=30, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 10**12), min_size=1, max_size=20, unique=True),
    prefix=st.sampled_from(["", "img_", "v2_frame", "é ", "10."]),
    width=st.integers(0, 8),
)
def test_frames_are_sorted_by_their_numbers(tmp_path_factory, numbers, prefix, width):
    root = tmp_path_factory.mktemp("frames")
    touch(root, *(f"{prefix}{number:0{width}d}.jpg" for number in numbers))
    assert [int(p.stem.removeprefix(prefix)) for p in frame_files(root)] == sorted(numbers)


def test_find_videos(tmp_path):
    touch(tmp_path, "b.mp4", "a/clip/img_1.jpg", "a/clip/img_2.jpg", "a/clip/masks/img_1.png", "a/c.AVI", "notes.txt")
    touch(tmp_path, "season/cover.jpg", "season/part/d.mkv", "__x-9_k/1.jpg")  # an id may begin with two underscores
    touch(tmp_path, "__MACOSX/a/e.mp4", ".git/f.mp4", "@eaDir/b.mp4/thumb.jpg", ".hidden.mp4", "empty.mp4/notes.txt")
    assert [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path)] == [
        "__x-9_k",
        "a/c.AVI",
        "a/clip",
        "b.mp4",
        "season/part/d.mkv",
    ]


def test_links_are_followed_but_not_around_a_loop(tmp_path):
    touch(tmp_path, "frames/1.jpg", "data/Run/a.mp4")
    try:
        (tmp_path / "data/Run/clip").symlink_to(tmp_path / "frames", target_is_directory=True)
        (tmp_path / "data/Run/up").symlink_to(tmp_path / "data", target_is_directory=True)
    except OSError:
        pytest.skip("this system lets only administrators make links")
    found = [path.relative_to(tmp_path / "data").as_posix() for path in find_videos(tmp_path / "data")]
    assert found[:2] == ["Run/a.mp4", "Run/clip"]
    assert len(found) == 4  # again below the link to the parent, where the loop ends


@pytest.mark.parametrize(
    ("name", "video", "hidden"),
    [
        ("a.mp4", True, False),
        ("A.AVI", True, False),
        (".a.mp4", False, True),
        ("__a.mp4", True, False),
        ("a", False, False),
    ],
)
def test_is_video_and_is_hidden(tmp_path, name, video, hidden):
    assert is_video(tmp_path / name) == video
    assert is_hidden(name) == hidden

"""Packed frames: they are read back, only the wanted ones are read, and any damage is detected."""

import mmap

import numpy as np
import pytest
from conftest import moving_square
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msfnet.data.cache import packed
from msfnet.data.cache.packed import DamagedEntryError, pack_frames, read_header, unpack_frames
from msfnet.data.video.decode import read_video
from msfnet.types import FrameFormat


def entry(frames, codec="raw", **notes):
    return b"".join(pack_frames(frames, codec, **notes))


def psnr(found, expected):
    return 10 * np.log10(255**2 / max(1e-9, ((found.astype(float) - expected) ** 2).mean()))


ANY_FRAMES = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.uint8, (*shape, 3))
)
NOTES = st.none() | st.text(min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(frames=ANY_FRAMES, warning=NOTES, data=st.data())
def test_raw_frames_are_lossless(frames, warning, data):
    whole = entry(frames, warning=warning)
    indices = data.draw(arrays(np.int64, (2, 3), elements=st.integers(0, len(frames) - 1)))
    assert np.array_equal(unpack_frames(whole, indices), frames[indices])
    header = read_header(whole)
    assert (header.shape, header.codec, header.warning, header.error) == (frames.shape, "raw", warning, None)
    assert read_header(whole).shape[0] == len(frames)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70)),
    colors=arrays(np.uint8, (2, 3)),
)
def test_jpeg_frames_are_close(shape, colors):
    """Gradients between any two colors, at odd sizes too, some of one pixel."""
    blend = np.linspace(0, 1, int(np.prod(shape))).reshape(*shape, 1)
    frames = (colors[0] * (1 - blend) + colors[1] * blend).astype(np.uint8)
    whole = entry(frames, "jpeg")
    assert read_header(whole).codec == "jpeg"
    assert psnr(unpack_frames(whole, np.arange(shape[0])), frames) > 36


def test_jpeg_of_a_real_clip(real_data):
    frames = read_video(real_data / "ucf101-18" / "Archery" / "v_Archery_g01_c01.mp4", FrameFormat((171, 128))).frames[
        0
    ]
    whole = entry(frames, "jpeg")
    assert len(whole) < frames.nbytes / 6
    assert all(
        psnr(found, frame) > 39
        for found, frame in zip(unpack_frames(whole, np.arange(len(frames))), frames, strict=True)
    )


def test_jpeg_images_are_independent():
    frames = moving_square(9)
    whole = entry(frames, "jpeg")
    alone = [unpack_frames(whole, np.array([i]))[0] for i in (7, 2)]
    assert np.array_equal(unpack_frames(whole, np.array([2, 7])), np.stack(alone[::-1]))


def test_frames_need_not_be_contiguous():
    """A video that is rotated upright has frames that are a view."""
    frames = np.rot90(moving_square(3), axes=(1, 2))
    assert np.array_equal(unpack_frames(entry(frames), np.arange(3)), frames)
    assert psnr(unpack_frames(entry(frames, "jpeg"), np.arange(3)), frames) > 36


def test_unreadable_video_is_an_entry_without_frames():
    whole = entry(np.empty((0, 48, 64, 3), np.uint8), error="the file is empty")
    assert read_header(whole).error == "the file is empty"
    assert read_header(whole).shape[0] == 0
    with pytest.raises(IndexError):
        unpack_frames(whole, np.array([0]))


def test_any_buffer_is_read(tmp_path):
    frames = moving_square(4)
    whole = entry(frames)
    (tmp_path / "a").write_bytes(b"before" + whole + b"after")
    with (tmp_path / "a").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        part = memoryview(mapped)[6 : 6 + len(whole)]
        assert np.array_equal(unpack_frames(part, np.array([3, 0])), frames[[3, 0]])
        part.release()
    for kind in (bytes, bytearray, memoryview):
        assert np.array_equal(unpack_frames(kind(whole), np.array([3, 0])), frames[[3, 0]])


def test_mapped_file_can_be_closed_after_damage(tmp_path):
    """Nothing holds the map, so that the file can be removed at once, on Windows too."""
    (tmp_path / "a").write_bytes(entry(moving_square(4))[:-1])
    with (tmp_path / "a").open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with pytest.raises(DamagedEntryError, match="expected an entry of"), mapped:
        unpack_frames(mapped, np.array([0]))
    assert mapped.closed


@pytest.mark.parametrize("index", [-1, 4])
def test_missing_frames_are_refused(index):
    with pytest.raises(IndexError, match="expected frames 0 to 3"):
        unpack_frames(entry(moving_square(4)), np.array([0, index]))


# Damage


@pytest.mark.parametrize("codec", packed.CODECS)
def test_any_changed_byte_is_detected(codec):
    frames = moving_square(2, height=6, width=16)[:, :, :12]
    whole = entry(frames, codec, warning="the file is damaged: ü")
    for position in range(0, len(whole), 1 if codec == "raw" else 3):
        broken = bytearray(whole)
        broken[position] ^= 1 << (position % 8)
        with pytest.raises(DamagedEntryError):
            unpack_frames(broken, np.arange(2))


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, 10**6), extra=st.binary(max_size=3))
def test_another_length_is_detected(length, extra):
    whole = entry(moving_square(3), "jpeg", warning="short")
    broken = whole[: length % len(whole)] if not extra else whole + extra
    with pytest.raises(DamagedEntryError):
        read_header(broken)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_other_bytes_are_refused(data):
    for start in (b"", packed.MAGIC):
        with pytest.raises(DamagedEntryError):
            read_header(start + data)


def test_other_frames_are_not_read():
    """Damage in a frame that is not wanted does not matter."""
    frames = moving_square(5)
    broken = bytearray(entry(frames))
    broken[int(read_header(broken).offsets[2])] ^= 255
    assert np.array_equal(unpack_frames(broken, np.array([1, 3])), frames[[1, 3]])
    with pytest.raises(DamagedEntryError, match="frame 2"):
        unpack_frames(broken, np.array([1, 2]))

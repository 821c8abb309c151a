"""Frames to JPEG images and back, each image on its own. Knows no video and no file.

Color is kept at full resolution (4:4:4): on real clips that is closer to the frames, in fewer bytes, than 4:2:0.


Frames to the bytes of one entry and back: what the cache and the shards keep of a decoded video.

A header (shape, codec, where each frame lies, the checksum of each, notes on the video, its own checksum), then the
frames. Every read is checked against the checksums. Knows bytes only: no file, no key, no budget.

Layout, little-endian: MAGIC, `_FIXED` (T, H, W, codec, bytes of the notes), T+1 offsets u64 from the entry's start,
T checksums u32, notes as UTF-8 JSON, checksum u32 of all of that; then the frames end to end. Checksums are CRC-32.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from mmap import mmap

import av
import numpy as np
import numpy.typing as npt
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from msfnet.types import Frames, Indices

PIXELS = "yuvj444p"
QUANTIZER = 2  # FFmpeg's scale: 1 is best; 2 is about 40 dB on real clips, six to nine times smaller than the frames


def encode_jpeg(frames: Frames) -> Iterator[bytes]:
    """One image for each frame of T H W 3."""
    context = VideoCodecContext.create("mjpeg", "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base, context.thread_count = PIXELS, Fraction(1, 25), 1
    context.qmin = context.qmax = QUANTIZER
    for frame in frames:
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=PIXELS)
        yield from (bytes(packet) for packet in context.encode(picture))
    yield from (bytes(packet) for packet in context.encode(None))


def jpeg_decoder() -> Callable[[bytes | memoryview], Frames]:
    """A function from one image to its frame H W 3. It raises av.FFmpegError for bytes that are no image."""
    context = VideoCodecContext.create("mjpeg", "r")
    context.thread_count = 1

    def decode(image: bytes | memoryview) -> Frames:
        (picture,) = context.decode(av.Packet(bytes(image)))
        # One thread: to start others for each image costs far more than they save.
        frame: Frames = picture.reformat(format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
        return frame

    return decode


Buffer = bytes | bytearray | memoryview | mmap

MAGIC = b"MSFrame\x01"  # the last byte is the version of the layout
_FIXED = struct.Struct("<8sIIIII")
_CHECKSUM = struct.Struct("<I")


class DamagedEntry(Exception):  # noqa: N818
    """The bytes are not those that were written: the caller drops the entry and decodes the video anew."""


@dataclass(frozen=True)
class Header:
    """What an entry says of itself. An entry of no frames is a video that cannot be read: `error` says why."""

    shape: tuple[int, int, int, int]  # T H W 3
    codec: str
    offsets: npt.NDArray[np.uint64]  # T+1, from the entry's start
    checksums: npt.NDArray[np.uint32]  # T
    warning: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Codec:
    number: int
    encode: Callable[[Frames], Iterable[bytes]]  # T H W 3 -> T items
    decoder: Callable[[tuple[int, ...]], Callable[[memoryview], Frames]]  # H W 3 -> (item -> frame of that shape)


def _raw_decoder(shape: tuple[int, ...]) -> Callable[[memoryview], Frames]:
    return lambda item: np.frombuffer(item, np.uint8).reshape(shape)


CODECS = {
    "raw": _Codec(0, lambda frames: (frame.tobytes() for frame in frames), _raw_decoder),
    "jpeg": _Codec(1, encode_jpeg, lambda shape: jpeg_decoder()),
}
_CODEC_NAMES = {codec.number: name for name, codec in CODECS.items()}


def pack(frames: Frames, codec: str, *, warning: str | None = None, error: str | None = None) -> Iterator[bytes]:
    """The pieces of an entry, in order: the header, then each frame of T H W 3. `codec` is a key of CODECS."""
    items = list(CODECS[codec].encode(frames))
    notes = {name: text for name, text in (("warning", warning), ("error", error)) if text}
    text = json.dumps(notes, ensure_ascii=False).encode("utf-8", "replace")
    start = _header_bytes(len(items), len(text))
    offsets = start + np.cumsum([0, *map(len, items)], dtype=np.uint64)
    checksums = np.array([zlib.crc32(item) for item in items], "<u4")
    n_frames, height, width, _ = frames.shape
    header = _FIXED.pack(MAGIC, n_frames, height, width, CODECS[codec].number, len(text))
    header += offsets.astype("<u8").tobytes() + checksums.tobytes() + text
    yield header + _CHECKSUM.pack(zlib.crc32(header))
    yield from items


def read_header(buffer: Buffer) -> Header:
    """What an entry holds. Raises DamagedEntry where the header, or the length of the whole, is not as written."""
    with memoryview(buffer) as view:
        whole_bytes = len(view)
        fixed = view[: _FIXED.size].tobytes()
        if len(fixed) < _FIXED.size or not fixed.startswith(MAGIC):
            raise DamagedEntry(f"expected an entry that begins with {MAGIC!r}, found {fixed[: len(MAGIC)]!r}")
        _, n_frames, height, width, number, text_bytes = _FIXED.unpack(fixed)
        head = view[: _header_bytes(n_frames, text_bytes)].tobytes()
    body, checksum = head[: -_CHECKSUM.size], head[-_CHECKSUM.size :]
    if len(head) != _header_bytes(n_frames, text_bytes) or _CHECKSUM.pack(zlib.crc32(body)) != checksum:
        raise DamagedEntry("the entry's header is damaged")
    if number not in _CODEC_NAMES:
        raise DamagedEntry(f"the entry's codec {number} is not known")
    offsets = np.frombuffer(body, "<u8", n_frames + 1, _FIXED.size)
    checksums = np.frombuffer(body, "<u4", n_frames, _FIXED.size + offsets.nbytes)
    if whole_bytes != offsets[-1]:
        raise DamagedEntry(f"expected an entry of {offsets[-1]} bytes, found {whole_bytes}")
    notes = json.loads(body[len(body) - text_bytes :])
    return Header((n_frames, height, width, 3), _CODEC_NAMES[number], offsets, checksums, **notes)


def unpack(buffer: Buffer, indices: Indices, header: Header | None = None) -> Frames:
    """The frames at `indices` V T (or of any shape) of an entry: V T H W 3. Only their bytes are read, and checked.

    `header` saves reading it a second time. Raises DamagedEntry, and IndexError for a frame that the entry has not.
    """
    header = header or read_header(buffer)
    n_frames, *shape = header.shape
    if indices.size and not 0 <= indices.min() <= indices.max() < n_frames:
        raise IndexError(f"expected frames 0 to {n_frames - 1}, found {indices.min()} to {indices.max()}")
    frames = np.empty((*indices.shape, *shape), np.uint8)
    decode = CODECS[header.codec].decoder(tuple(shape))
    with memoryview(buffer) as view:
        for index in np.unique(indices).tolist():
            with view[int(header.offsets[index]) : int(header.offsets[index + 1])] as item:
                if zlib.crc32(item) != header.checksums[index]:
                    raise DamagedEntry(f"frame {index} of the entry is damaged")
                frames[indices == index] = decode(item)
    return frames


def _header_bytes(n_frames: int, text_bytes: int) -> int:
    return _FIXED.size + 8 * (n_frames + 1) + 4 * n_frames + text_bytes + _CHECKSUM.size

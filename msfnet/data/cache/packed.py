"""Packs the frames of one video into the bytes of an entry, which the cache and the shards store, and unpacks them.

An entry is a header, then the frames. The header has the shape, the codec, the offset and checksum of each frame, notes
on the video, and a checksum of its own; every read is verified. Bytes only: no file, no key, no budget.

Layout, little-endian: MAGIC, `_FIXED` (T, H, W, codec, bytes of the notes), T+1 offsets u64 from the entry's start,
T checksums u32, notes as UTF-8 JSON, checksum u32 of all of that; then the frames. Checksums are CRC-32.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from mmap import mmap

import numpy as np
import numpy.typing as npt

from msfnet.data.cache.jpeg import encode_jpeg, jpeg_decoder
from msfnet.types import Frames, Indices

Buffer = bytes | bytearray | memoryview | mmap

MAGIC = b"MSFrame\x01"  # the last byte is the version of the layout
_FIXED = struct.Struct("<8sIIIII")
_CHECKSUM = struct.Struct("<I")


class DamagedEntryError(Exception):
    """The bytes are not those that were written: the caller drops the entry and decodes the video again."""


@dataclass(frozen=True)
class Header:
    """What an entry holds.

    Args:
        shape: T H W 3. An entry of no frames is a video that cannot be read.
        codec: A key of CODECS.
        offsets: Where each frame starts and the last one ends, in bytes from the start of the entry: T+1.
        checksums: CRC-32 of the bytes of each frame: T.
        warning: What is wrong with a video that was read in part.
        error: Why a video cannot be read.
    """

    shape: tuple[int, int, int, int]
    codec: str
    offsets: npt.NDArray[np.uint64]
    checksums: npt.NDArray[np.uint32]
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


def pack_frames(frames: Frames, codec: str, *, warning: str | None = None, error: str | None = None) -> Iterator[bytes]:
    """Encode frames T H W 3 as an entry.

    Args:
        frames: All frames of a video; none of a video that cannot be read.
        codec: A key of CODECS.
        warning: What is wrong with a video that was read in part.
        error: Why the video cannot be read.

    Yields:
        The pieces of the entry in order: the header, then each frame.
    """
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
    """Read what an entry holds.

    Raises:
        DamagedEntryError: The header, or the length of the entry, is not as it was written.
    """
    with memoryview(buffer) as view:
        whole_bytes = len(view)
        fixed = view[: _FIXED.size].tobytes()
        if len(fixed) < _FIXED.size or not fixed.startswith(MAGIC):
            raise DamagedEntryError(f"expected an entry that begins with {MAGIC!r}, found {fixed[: len(MAGIC)]!r}")
        _, n_frames, height, width, number, text_bytes = _FIXED.unpack(fixed)
        head = view[: _header_bytes(n_frames, text_bytes)].tobytes()
    body, checksum = head[: -_CHECKSUM.size], head[-_CHECKSUM.size :]
    if len(head) != _header_bytes(n_frames, text_bytes) or _CHECKSUM.pack(zlib.crc32(body)) != checksum:
        raise DamagedEntryError("the entry's header is damaged")
    if number not in _CODEC_NAMES:
        raise DamagedEntryError(f"the codec {number} of the entry is unknown")
    offsets = np.frombuffer(body, "<u8", n_frames + 1, _FIXED.size)
    checksums = np.frombuffer(body, "<u4", n_frames, _FIXED.size + offsets.nbytes)
    if whole_bytes != offsets[-1]:
        raise DamagedEntryError(f"expected an entry of {offsets[-1]} bytes, found {whole_bytes}")
    notes = json.loads(body[len(body) - text_bytes :])
    return Header((n_frames, height, width, 3), _CODEC_NAMES[number], offsets, checksums, **notes)


def unpack_frames(buffer: Buffer, indices: Indices, header: Header | None = None) -> Frames:
    """Decode some frames of an entry. Only their bytes are read and verified.

    Args:
        buffer: The entry.
        indices: Frame indices V T, or of any other shape.
        header: The header of the entry, where it has been read already.

    Returns:
        The frames V T H W 3.

    Raises:
        DamagedEntryError: The header or one of the frames is not as it was written.
        IndexError: The entry does not have one of the frames.
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
                    raise DamagedEntryError(f"frame {index} of the entry is damaged")
                frames[indices == index] = decode(item)
    return frames


def _header_bytes(n_frames: int, text_bytes: int) -> int:
    return _FIXED.size + 8 * (n_frames + 1) + 4 * n_frames + text_bytes + _CHECKSUM.size

"""An index of the packets of a video, by which chosen frames are decoded from few packets.

Packets come in decode order and frames in presentation order; B-frames make the two differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from msfnet.data.video.container import (
    VideoSource,
    decode_packet,
    demux,
    describe_damage,
    open_video,
    stream_timing,
)
from msfnet.data.video.timestamps import StreamTiming
from msfnet.types import Indices

# Codecs whose decoders skip frames that no other frame refers to, if told so before each packet.
SKIP_NONREF_CODECS = frozenset({"h264", "hevc", "mpeg2video", "mpeg4"})
MAX_PACKET_BYTES = 256 * 2**20  # packets of a larger file are not kept in memory but read again to be decoded


@dataclass
class PacketIndex:
    """What the packets of a video state before anything is decoded, in decode order."""

    header_frames: int  # number of frames by the header; 0 if it states none
    timing: StreamTiming
    packet_pts: list[int] = field(default_factory=list)
    keyframes: list[bool] = field(default_factory=list)  # decoding can start at these packets
    displayed: list[bool] = field(default_factory=list)  # other packets hold frames that are only referred to
    packets: list[Packet[VideoStream]] | None = field(default_factory=list)  # None: too large to keep
    errors: list[str] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)  # timestamps of displayed frames, sorted; empty if the file lacks them

    def resample(self, fps: float) -> Indices:
        """Return the frame indices at a constant frame rate."""
        return self.timing.resample(self.pts, sum(self.displayed), fps)

    def damage(self) -> str | None:
        """Return the damage of the file in one line; None for an undamaged file."""
        return describe_damage(len(self.packet_pts), self.header_frames, self.errors)

    @contextmanager
    def reread(self, source: VideoSource, threads: int) -> Iterator[tuple[VideoStream, Iterable[Packet[VideoStream]]]]:
        """Yield the packets again, from memory or from the file, with the stream that decodes them."""
        if self.packets:
            yield self.packets[0].stream, self.packets
        else:
            with open_video(source, threads) as (container, stream):
                yield stream, demux(container, stream, [])

    def decode_ranges(self, chosen_pts: Collection[int]) -> list[tuple[int, int]]:
        """Return the ranges (first, last) of packets to decode for the frames with these timestamps.

        A frame needs all packets from the last keyframe before it that is not displayed later than the frame itself:
        in an open GOP, a keyframe precedes B-frames that are displayed before it and refer to the previous GOP.
        """
        ranges: list[tuple[int, int]] = []
        keyframes = [0]
        for number, pts in enumerate(self.packet_pts):
            if self.keyframes[number]:
                keyframes.append(number)
            if pts in chosen_pts:
                first = next(key for key in reversed(keyframes) if not key or self.packet_pts[key] <= pts)
                while ranges and ranges[-1][1] >= first:
                    first = min(first, ranges.pop()[0])
                ranges.append((first, number))
        return ranges


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Read all packets. The index has no `pts` if a packet lacks a timestamp or is not exactly one frame."""
    index, kept_bytes, has_pts = PacketIndex(stream.frames, stream_timing(stream)), 0, True
    codec = stream.codec_context.name
    for packet in demux(container, stream, index.errors):
        hidden = packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & 0x10)  # the show_frame flag of VP8
        placeholder = codec == "mpeg4" and packet.size < 8  # stands for a B-frame that is packed into another packet
        has_pts &= packet.pts is not None and not placeholder
        index.packet_pts.append(packet.pts or 0)
        index.keyframes.append(packet.is_keyframe)
        index.displayed.append(not hidden)
        kept_bytes += packet.size
        if index.packets is not None:
            index.packets.append(packet)
            if kept_bytes > MAX_PACKET_BYTES:
                index.packets = None
    pts = {pts for pts, displayed in zip(index.packet_pts, index.displayed, strict=True) if displayed}
    if has_pts and len(pts) == sum(index.displayed):
        index.pts = sorted(pts)
    return index


def decode_chosen(
    stream: VideoStream, packets: Iterable[Packet[VideoStream]], index: PacketIndex, chosen_pts: Collection[int]
) -> Iterator[VideoFrame]:
    """Yield the frames with these timestamps and the frames they depend on; fewer if decoding cannot start there."""
    context, numbered = stream.codec_context, enumerate(packets)
    can_skip = context.name in SKIP_NONREF_CODECS
    for first, last in index.decode_ranges(chosen_pts):
        started = first == 0
        for number, packet in numbered:
            if number < first or (first and index.packet_pts[number] < index.packet_pts[first]):
                continue  # not needed, or it refers to frames before the keyframe
            if can_skip:
                context.skip_frame = "DEFAULT" if index.packet_pts[number] in chosen_pts else "NONREF"
            frames = decode_packet(stream, packet, index.errors)
            if number == last:
                frames += decode_packet(stream, None, index.errors)
            if frames and not started:
                if frames[0].pts != index.packet_pts[first] or frames[0].pict_type != PictureType.I:
                    return
                started = True
            yield from frames
            if number == last:
                break
        context.flush_buffers()

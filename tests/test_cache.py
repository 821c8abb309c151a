"""The cache of decoded frames: the same frames without the video, within its budget, and never a damaged one."""

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import logged, moving_square, write_lossless

from msfnet.cli import main
from msfnet.data.cache import content, counters, disk_cache
from msfnet.data.cache import frame_cache as cache_module
from msfnet.data.cache.disk_cache import DiskCache
from msfnet.data.cache.frame_cache import FrameCache, choose_codec, describe, estimate_raw_bytes
from msfnet.data.cache.packed import read_header
from msfnet.data.sampling import uniform_clips
from msfnet.data.video.decode import read_clips, read_video
from msfnet.data.video.decoders import DECODERS, Decoder, DirectReader
from msfnet.data.video_files import open_reader
from msfnet.data.video_loader import TrainClips, TrainSampler, make_batches
from msfnet.inference.evaluation import evaluate_dataset
from msfnet.procedural.dataset import write_video
from msfnet.recipe import Data, Recipe, load_recipe
from msfnet.types import FrameFormat, UserError, VideoError, VideoItem

NATIVE = FrameFormat((64, 48))  # width, height of the videos made here
ENTRY_BYTES = 64 * 48 * 3 * 20 + 1000  # of a video of 20 frames, about


def every(step):
    return lambda n: np.arange(0, n, step)[None]


def entries(folder):
    return sorted(Path(folder).glob("[0-9a-f]*.frames"))


def make_old(folder, seconds=1000):
    """Make the folder look as if earlier runs had used it."""
    for path in Path(folder).iterdir():
        stamp = path.stat().st_mtime - seconds
        os.utime(path, (stamp, stamp))


def past_the_tick():
    """What is used in the same tick of the file system's clock in which a run starts counts as used before it."""
    time.sleep(0.02)


def size_bytes(folder):
    return sum(path.stat().st_size for path in Path(folder).iterdir())


def read_by(monkeypatch, read_video):
    """Read videos by this function from here on."""
    monkeypatch.setitem(DECODERS, "pyav", Decoder(read_clips=read_video, read_video=read_video))


@pytest.fixture
def video(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(20))
    return tmp_path / "a.mkv"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


# The same frames


@pytest.mark.parametrize("codec", ["raw", "jpeg"])
def test_frames_are_those_of_the_decoder(video, folder, codec):
    def plan(n):
        return uniform_clips(n, 8, 2)

    direct = read_clips(video, plan, NATIVE)
    first = FrameCache(folder, NATIVE, 2**30, codec).read_clips(video, plan)
    again = FrameCache(folder, NATIVE, 2**30, codec).read_clips(video, plan)
    assert np.array_equal(first.frames, again.frames)
    assert np.abs(first.frames.astype(int) - direct.frames).mean() <= (0 if codec == "raw" else 3)
    assert (again.video_frames, again.padded, again.warning) == (20, False, None)
    assert len(entries(folder)) == 1


def test_short_videos_are_padded(tmp_path, folder):
    write_lossless(tmp_path / "a.mkv", moving_square(3))
    for _ in range(2):
        assert FrameCache(folder, NATIVE, 2**30).read_clips(tmp_path / "a.mkv", lambda n: uniform_clips(n, 8, 1)).padded


def test_entries_depend_on_content_and_settings(video, folder, monkeypatch):
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    assert FrameCache(folder, FrameFormat((32, 32)), 2**30).read_clips(video, every(1)).frames.shape[2:4] == (32, 32)
    FrameCache(folder, NATIVE, 2**30, codec="jpeg").read_clips(video, every(1))
    monkeypatch.setitem(DECODERS, "other", DECODERS["pyav"])
    FrameCache(folder, NATIVE, 2**30, decoder="other").read_clips(video, every(1))
    assert FrameCache(folder, replace(NATIVE, fps=5.0), 2**30).read_clips(video, every(1)).video_frames == 10
    assert FrameCache(folder, replace(NATIVE, fps=20.0), 2**30).read_clips(video, every(1)).video_frames == 40
    monkeypatch.setattr(cache_module, "DECODE_VERSION", cache_module.DECODE_VERSION + 1)
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    write_lossless(video, moving_square(9))
    assert FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1)).video_frames == 9
    assert len(entries(folder)) == 8


def test_clips_at_a_frame_rate_are_the_same_with_a_cache(tmp_path, folder):
    """For files of a higher, the same and a lower frame rate."""
    items = [VideoItem(tmp_path / f"{fps}.mkv", "a") for fps in (30, 10, 4)]
    for item, fps in zip(items, (30, 10, 4), strict=True):
        write_lossless(item.path, moving_square(3 * fps), fps)
    preprocessing = replace(
        load_recipe("paper", ["clip.crop_size=32", "clip.num_frames=8", "clip.fps=10"]).preprocessing(),
        frame_interval=1,
    )
    cached = FrameCache(folder, preprocessing.frame_format, 2**30)
    direct, first, again = (
        [train_clips(items, preprocessing, reader, "dense")[i, seed] for i in range(3) for seed in (1, 2)]
        for reader in (DirectReader(preprocessing.frame_format), cached, cached)
    )
    assert len(entries(folder)) == 3
    for samples in (first, again):
        assert all(torch.equal(a.frames, b.frames) for a, b in zip(direct, samples, strict=True))
    assert [cached.read_clips(item.path, every(1)).video_frames for item in items] == [30, 30, 30]
    assert len({sample.frames.numpy().tobytes() for sample in direct}) == 6


def test_renamed_and_copied_videos_share_an_entry(video, folder, tmp_path, monkeypatch):
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    shutil.copy(video, tmp_path / "copy.mkv")
    video.rename(tmp_path / "renamed.mkv")
    read_by(monkeypatch, lambda *a: pytest.fail("decoded again"))
    for name in ("copy.mkv", "renamed.mkv"):
        FrameCache(folder, NATIVE, 2**30).read_clips(tmp_path / name, every(1))
    assert len(entries(folder)) == 1


def test_digest_of_a_folder_of_images(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "img_1.jpg").write_bytes(b"one")
        (tmp_path / name / "img_2.jpg").write_bytes(b"two")
    before = content.stamp(tmp_path / "a")
    assert content.digest(tmp_path / "a") == content.digest(tmp_path / "b")
    (tmp_path / "a" / "img_2.jpg").write_bytes(b"three")
    assert content.digest(tmp_path / "a") != content.digest(tmp_path / "b")
    assert content.stamp(tmp_path / "a") != before
    assert content.digest(tmp_path / "a" / "img_1.jpg") != content.digest(tmp_path / "b" / "img_2.jpg")


def test_cache_can_be_pickled(video, folder):
    cache = FrameCache(folder, NATIVE, 2**30)
    past_the_tick()
    cache.read_clips(video, every(1))
    video.unlink()
    assert pickle.loads(pickle.dumps(cache)).read_clips(video, every(1)).video_frames == 20


# No video is read twice


def train_clips(items, preprocessing, reader, sampling):
    return TrainClips(
        items, ["a"], lambda item, sampler: reader.read_clips(item.path, sampler), preprocessing, sampling
    )


def hide(root):
    root.rename(root.with_name("hidden"))


@pytest.mark.parametrize("workers", [0, 2])
def test_second_epoch_reads_no_video(tmp_path, folder, workers):
    """This includes one that another worker has read, a damaged one, and one that is no video."""
    root = tmp_path / "videos"
    root.mkdir()
    for i in range(5):
        write_video(root / f"{i}.avi", moving_square(10 + i), 10, codec="mpeg4")
    write_video(root / "0.avi", moving_square(60), 10, codec="mpeg4")
    whole = (root / "0.avi").read_bytes()
    (root / "0.avi").write_bytes(whole[: len(whole) * 4 // 5])
    (root / "1.avi").write_bytes(b"no video")
    items = [VideoItem(root / f"{i}.avi", "a") for i in range(5)]
    preprocessing = load_recipe("paper", ["clip.crop_size=32", "clip.num_frames=4"]).preprocessing()
    cache = FrameCache(folder, preprocessing.frame_format, 2**30)
    videos = train_clips(items, preprocessing, cache, "random_interval")
    loader = make_batches(videos, TrainSampler(len(items), 2, seed=0), workers)
    past_the_tick()
    first = list(loader.epoch(0))
    hide(root)
    for epoch in (1, 2):
        batches = list(loader.epoch(epoch))
        assert sorted(i for b in batches for i in b.indices) == [0, 2, 3, 4]
        assert [b.unreadable for b in batches if b.unreadable] == [b.unreadable for b in first if b.unreadable]
        assert [i for b in batches for i, text in b.warnings.items() if "damaged" in text] == [0]


def test_new_run_checks_that_videos_exist(video, folder, tmp_path):
    write_lossless(tmp_path / "b.mkv", moving_square(5))
    for path in (video, tmp_path / "b.mkv"):
        FrameCache(folder, NATIVE, 2**30).read_clips(path, every(1))
    make_old(folder)
    video.unlink()
    stat = (tmp_path / "b.mkv").stat()
    (tmp_path / "b.mkv").write_bytes(bytes(stat.st_size))
    os.utime(tmp_path / "b.mkv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    cache = FrameCache(folder, NATIVE, 2**30)
    with pytest.raises(VideoError, match="No such file"):
        cache.read_clips(video, every(1))
    assert np.array_equal(cache.read_clips(tmp_path / "b.mkv", every(1)).frames[0], moving_square(5))


def test_unreadable_videos_are_tried_once_a_run(tmp_path, folder, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    tried = []
    count = cache_module.count_frames
    monkeypatch.setattr(cache_module, "count_frames", lambda path, fps: tried.append(path) or count(path, fps))
    for run in (1, 2):
        cache = FrameCache(folder, NATIVE, 2**30)
        past_the_tick()
        for _ in range(3):
            with pytest.raises(VideoError, match="cannot be read as a video"):
                pickle.loads(pickle.dumps(cache)).read_clips(tmp_path / "a.mp4", every(1))
        assert len(tried) == run
        make_old(folder)


def test_damaged_videos_are_cached_with_their_warning(real_data, folder):
    path = real_data / "robustness" / "truncated.avi"
    direct = read_clips(path, every(1), FrameFormat((86, 64)))
    for _ in range(2):
        clip = FrameCache(folder, FrameFormat((86, 64)), 2**30).read_clips(path, every(1))
        assert clip.warning == direct.warning
        assert np.array_equal(clip.frames, direct.frames)
    assert [read_header(entry.read_bytes()).warning for entry in entries(folder)] == [direct.warning]


def test_long_videos_are_not_cached(video, folder, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_ENTRY_BYTES", ENTRY_BYTES - 10_000)
    cache = FrameCache(folder, NATIVE, 2**30)
    for _ in range(2):
        assert np.array_equal(cache.read_clips(video, every(3)).frames[0], moving_square(20)[::3])
    assert entries(folder) == []


def test_video_that_changes_during_decoding_is_not_cached(video, folder, monkeypatch):
    def change_and_read(path, frame_format):
        write_lossless(path, moving_square(7))
        return read_video(path, frame_format)

    read_by(monkeypatch, change_and_read)
    assert FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1)).video_frames == 7
    assert entries(folder) == []


# Damage


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damaged_entries_are_replaced_and_counted(video, folder, share, harm):
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    (entry,) = entries(folder)
    whole = bytearray(entry.read_bytes())
    position = int(share * (len(whole) - 1))
    if harm == "flip":
        whole[position] ^= 1
    entry.write_bytes(whole if harm == "flip" else whole[:position])
    cache = FrameCache(folder, NATIVE, 2**30)
    for _ in range(2):
        assert np.array_equal(cache.read_clips(video, every(1)).frames[0], moving_square(20))
    assert len(entries(folder)) == 1
    if position or harm == "flip":  # an empty file is as good as none
        assert cache.problems() == ["cache: 1 damaged entries were dropped and decoded again"]
        assert disk_cache.usage(folder).damaged == 1
    assert FrameCache(folder, NATIVE, 2**30).problems() == []


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"stamp": 1}', b"\xff\xfe"])
def test_damaged_records_and_counters_are_replaced(video, folder, text):
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    for path in [*folder.glob("*.path"), folder / counters.COUNTERS]:
        path.write_bytes(text)
    cache = FrameCache(folder, NATIVE, 2**30)
    assert cache.read_clips(video, every(1)).video_frames == 20
    with counters.locked(folder) as found:
        assert found.used_bytes == counters.measure(folder)


@pytest.mark.parametrize(("event", "nth"), [("open", 1), ("open", 2), ("os.rename", 1)])
def test_killed_writer_leaves_no_partial_entry_and_no_lock(folder, event, nth):
    """Killed outright before it reserves room, before it fills the file, and before the file gets its name."""
    code = """
import os, signal, sys
from pathlib import Path
from msfnet.data.cache.disk_cache import DiskCache
cache = DiskCache(Path(sys.argv[1]), 10**6)
cache.put("0" * 40 + ".frames", b"before")
times = 0
def kill(event, arguments):
    global times
    if event == sys.argv[2] and ".part-" in str(arguments[0]):
        times += 1
        if times == int(sys.argv[3]):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
sys.addaudithook(kill)
cache.put("0" * 40 + ".frames", bytes(100_000))
print("not killed")
"""
    writer = subprocess.run([sys.executable, "-c", code, str(folder), event, str(nth)], stdout=subprocess.PIPE)
    assert (writer.returncode != 0, writer.stdout) == (True, b"")
    assert [entry.read_bytes() for entry in entries(folder)] == [b"before"]
    left = [path for path in folder.iterdir() if counters.is_temporary(path)]
    assert len(left) == (0 if (event, nth) == ("open", 1) else 1)
    run = DiskCache(folder, 10**6)
    assert run.put(names(1)[0], b"after")
    with counters.locked(folder) as found:
        assert found.used_bytes == counters.measure(folder) >= 100_000 * len(left)
    make_old(folder, counters.STALE_SECONDS + 10)
    DiskCache(folder, 10**6)
    assert not any(path.exists() for path in left)


# Room


def names(n):
    return [f"{i:040x}.frames" for i in range(n)]


def test_eviction_is_least_recently_used_first(folder):
    before = DiskCache(folder, 10**6)
    for i, name in enumerate(names(4)):
        before.put(name, bytes(1000))
        os.utime(folder / name, (1e9 + i, 1e9 + i))
    os.utime(folder / names(4)[0], (2e9 - 1e8, 1.7e9))
    run = DiskCache(folder, 4000 + counters.COUNTERS_BYTES)
    past_the_tick()
    run.touch(names(4)[2])
    evicted = []
    for i in range(5):
        kept = run.put(f"{100 + i:040x}.frames", bytes(1000))
        there = {path.name for path in entries(folder)}
        evicted.append((kept, [k for k, name in enumerate(names(4)) if name not in there]))
        assert size_bytes(folder) <= run.budget_bytes
    assert evicted == [(True, [1]), (True, [1, 3]), (True, [0, 1, 3]), (False, [0, 1, 3]), (False, [0, 1, 3])]


def test_nothing_is_evicted_for_what_cannot_fit(folder):
    DiskCache(folder, 10**6).put(names(1)[0], bytes(1000))
    make_old(folder)
    small = DiskCache(folder, 2000)
    assert not small.has_room(2001)
    assert not small.put(names(2)[1], bytes(2001))
    assert len(entries(folder)) == 1


def test_videos_that_do_not_fit_are_decoded_each_time(video, tmp_path, folder):
    write_lossless(tmp_path / "b.mkv", moving_square(20, step=5))
    cache = FrameCache(folder, NATIVE, ENTRY_BYTES + 3000)
    for _ in range(2):
        for path, step in ((video, 2), (tmp_path / "b.mkv", 5)):
            assert np.array_equal(cache.read_clips(path, every(1)).frames[0], moving_square(20, step=step))
    assert len(entries(folder)) == 1
    assert size_bytes(folder) <= ENTRY_BYTES + 3000
    assert FrameCache(folder, NATIVE, 0).read_clips(video, every(1)).video_frames == 20
    assert len(entries(folder)) == 1


WRITE_MANY = """
start.wait()
for i in range(first, first + 40):
    if store.put(f"{i:040x}.frames", bytes(500 + 13 * (i % 50))):
        with kept.get_lock():
            kept.value += 1
"""


def test_processes_share_the_budget(folder):
    """They are spawned, as workers are on Windows and macOS; the folder is measured while they write."""
    context = multiprocessing.get_context("spawn")
    shared = DiskCache(folder, 30_000)
    kept, start = context.Value("i", 0), context.Event()
    given = {"kept": kept, "start": start, "store": shared}
    jobs = [context.Process(target=exec, args=(WRITE_MANY, given | {"first": 40 * k})) for k in range(3)]
    for job in jobs:
        job.start()
    start.set()
    largest_bytes = 0
    while any(job.is_alive() for job in jobs):
        with counters.locked(folder):
            largest_bytes = max(largest_bytes, size_bytes(folder))
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    assert 25_000 < largest_bytes <= 30_000
    assert kept.value == len(entries(folder)) > 20
    with counters.locked(folder) as found:
        assert found.used_bytes == counters.measure(folder)
    assert {path.suffix or path.name for path in folder.iterdir()} == {".frames", ".json", ".lock"}


def test_two_processes_may_decode_the_same_video(video, folder):
    copies = [FrameCache(folder, NATIVE, 2**30) for _ in range(2)]
    names_ = {copy._entry_name(video) for copy in copies}
    clips = [copy._decode(*names_, video, every(1)) for copy in copies]
    assert np.array_equal(clips[0].frames, clips[1].frames)
    with counters.locked(folder) as found:
        assert found.used_bytes == counters.measure(folder)
    assert len(entries(folder)) == 1


# Folders that cannot be used


def test_lost_folder_does_not_end_the_run(video, tmp_path, folder):
    cache = FrameCache(folder, NATIVE, 2**30)
    shutil.rmtree(folder)
    folder.write_text("a file")
    write_lossless(tmp_path / "b.mkv", moving_square(9))
    for path, n_frames in ((video, 20), (tmp_path / "b.mkv", 9), (video, 20)):
        assert cache.read_clips(path, every(1)).video_frames == n_frames
    (line,) = cache.problems()
    assert line.startswith(f"cache: {folder} cannot be written")


def test_full_disk_does_not_end_the_run(video, folder):
    """The system itself refuses to write: no file may be larger than 10,000 bytes."""
    pytest.importorskip("resource")
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from msfnet.data.cache.frame_cache import FrameCache
from msfnet.types import FrameFormat
cache = FrameCache(Path(sys.argv[1]), FrameFormat((64, 48)), 2**30)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for _ in range(2):
    assert cache.read_clips(Path(sys.argv[2]), lambda n: np.arange(n)[None]).video_frames == 20
print(*cache.problems(), sep="\\n")
"""
    said = subprocess.check_output([sys.executable, "-c", code, str(folder), str(video)], text=True).splitlines()
    assert said == [
        f"cache: 1 entries could not be written to {folder}",
        f"cache: {folder} cannot be written (File too large)",
    ]
    assert entries(folder) == []
    assert not any(counters.is_temporary(path) for path in folder.iterdir())
    with counters.locked(folder) as found:
        assert found.used_bytes == counters.measure(folder)


def test_read_only_folder_is_read(video, folder, monkeypatch):
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    (folder / counters.COUNTERS).unlink()
    (folder / counters.COUNTERS).mkdir()  # refuses as a read-only folder does, also to an administrator
    read_by(monkeypatch, lambda *a: pytest.fail("decoded again"))
    cache = FrameCache(folder, NATIVE, 2**30)
    assert np.array_equal(cache.read_clips(video, every(1)).frames[0], moving_square(20))
    assert "cannot be written" in cache.problems()[0]


# Codec and messages


@pytest.mark.parametrize(
    ("asked", "raw_bytes", "budget_bytes", "codec"),
    [
        ("auto", 0, 0, "raw"),
        ("auto", 100, 100, "raw"),
        ("auto", 101, 100, "jpeg"),
        ("auto", 10**15, 100, "jpeg"),
        ("raw", 101, 100, "raw"),
        ("jpeg", 1, 100, "jpeg"),
    ],
)
def test_codec_depends_on_the_budget(asked, raw_bytes, budget_bytes, codec):
    assert choose_codec(asked, raw_bytes, budget_bytes) == codec


@pytest.mark.parametrize(
    ("raw_gib", "codec", "line"),
    [
        (1.3, "raw", "cache: 1,293 videos, about 1.3 GiB raw of 8 GiB"),
        (12, "jpeg", "cache: 1,293 videos, about 12.0 GiB raw, about 2.0 GiB as JPEG, of 8 GiB"),
        (12, "raw", "cache: 1,293 videos, about 12.0 GiB raw of 8 GiB; what does not fit is decoded each time"),
    ],
)
def test_describe(raw_gib, codec, line):
    assert describe(1293, int(raw_gib * 2**30), codec, 8 * 2**30) == line


def test_raw_size_is_estimated_from_a_sample(tmp_path, monkeypatch):
    for i in range(4):
        write_lossless(tmp_path / f"{i}.mkv", moving_square(10 + i))
    paths = sorted(tmp_path.iterdir())
    frame_bytes = 64 * 48 * 3
    assert estimate_raw_bytes(paths, NATIVE) == (10 + 11 + 12 + 13) * frame_bytes
    assert estimate_raw_bytes(paths * 100, NATIVE) == pytest.approx(100 * 46 * frame_bytes, rel=0.1)
    assert estimate_raw_bytes([*paths, tmp_path / "gone.mkv"], NATIVE) == 46 * frame_bytes
    assert estimate_raw_bytes([], NATIVE) == 0
    assert estimate_raw_bytes(paths, replace(NATIVE, fps=20.0)) == 2 * 46 * frame_bytes  # they have ten a second
    monkeypatch.setattr(cache_module, "MAX_ENTRY_BYTES", 12 * frame_bytes)
    assert estimate_raw_bytes(paths, NATIVE) == (10 + 11 + 12) * frame_bytes


def test_open_reader(video, folder, tmp_path):
    items, preprocessing, said = [VideoItem(video, "a")], Recipe().preprocessing(), []
    assert open_reader(Data(cache="off"), preprocessing, items) == DirectReader(FrameFormat((171, 128)))
    with logged(said.append):
        cache = open_reader(Data(cache=str(folder), cache_gib=0.5), preprocessing, items)
    assert (cache.disk.folder, cache.disk.budget_bytes, cache.codec) == (folder, 2**29, "raw")
    assert said == ["cache: 1 videos, about 0.0 GiB raw of 0.5 GiB"]
    assert open_reader(Data(cache=str(folder), cache_gib=0.001), preprocessing, items).codec == "jpeg"
    with pytest.raises(UserError, match="expected a folder for the cache, found the file"):
        open_reader(Data(cache=str(video)), preprocessing, items)


def test_evaluate_uses_the_cache(tiny_run, video_folder, folder, monkeypatch):
    monkeypatch.setenv("MSFNET_CACHE", str(folder))
    said = []
    with logged(said.append):
        first = evaluate_dataset(tiny_run, video_folder)
    assert any(line.startswith("cache: 20 videos") for line in said)  # also those that are not scored: as in training
    assert len(entries(folder)) == first.n_videos
    read_by(monkeypatch, lambda *a: pytest.fail("decoded again"))
    with logged(said.append):
        again = evaluate_dataset(tiny_run, video_folder)
    assert again.to_dict() == first.to_dict()


# The command


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 0
    return capsys.readouterr().out


def test_cache_command_shows_and_clears(video, folder, capsys, monkeypatch):
    monkeypatch.setenv("MSFNET_CACHE", str(folder))
    empty = json.loads(run(capsys, "cache", "--json"))
    assert (empty["entries"], empty["bytes"], empty["oldest_use"]) == (0, 0, None)
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    (folder / f"{'b' * 40}.frames").write_bytes(bytes(100))
    (folder / f".part-77-{'0' * 40}.frames").write_bytes(bytes(100))
    (folder / "notes.txt").write_text("the user's own")
    os.utime(folder / f"{'b' * 40}.frames", (1e9, 1e9))
    shown = json.loads(run(capsys, "cache", "--json"))
    assert shown["folder"] == str(folder)
    assert (shown["entries"], shown["budget_bytes"], shown["damaged"]) == (2, 8 * 2**30, 0)
    assert shown["oldest_use"].startswith("2001-09-")
    assert "entries     2," in run(capsys, "cache")
    freed = json.loads(run(capsys, "cache", "clear", "--json"))["freed_bytes"]
    assert freed == shown["bytes"] > 20 * 64 * 48 * 3
    assert {path.name for path in folder.iterdir()} == {"notes.txt", counters.COUNTERS, counters.LOCK}
    assert run(capsys, "cache", "clear").startswith("freed 0.00 GiB")


def test_cache_can_be_cleared_during_a_run(video, folder):
    cache = FrameCache(folder, NATIVE, 2**30)
    for _ in range(2):
        assert cache.read_clips(video, every(1)).video_frames == 20
        assert len(entries(folder)) == 1
        disk_cache.clear(folder)
    assert cache.problems() == []

"""Recognise a video with a file of `msfnet export --to onnx`: python predict_onnx.py NETWORK.onnx VIDEO"""

import json
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
header = json.loads(session.get_modelmeta().custom_metadata_map["msfnet"])
p = header["preprocessing"]
with av.open(sys.argv[2]) as video:  # all frames, resized: T H W 3
    read = [(f.time, f.reformat(*p["resize_px"], "gbrp").to_ndarray(format="gbrp")) for f in video.decode(video=0)]
times, frames = (np.array(part) for part in zip(*read, strict=True))
if fps := p.get("fps"):  # the frames on screen so many times a second, whatever the video's own rate
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    moments = (np.arange(max(1, round(len(times) * mean * fps))) + 0.5) / fps + min(mean, 1 / fps) / 10
    frames = frames[np.searchsorted(times - times[0], moments, side="right") - 1]
n, clips, size = len(frames), int(p["views"].split("x")[0]), p["size_px"]
i = np.arange(p["frames"] + (p["input"] != "rgb"))  # a difference needs the frame after the last
part = (np.arange(clips)[:, None] + 0.5) / clips  # the middle of as many equal parts of the video as there are clips
if n < len(i) or p["sampling"] == "even":  # each clip spreads over the whole video; all of a video that is too short
    places = (i + part) * n / len(i) if n >= len(i) else np.minimum(i, n - 1) + 0 * part
else:  # "centred": every so many frames
    step = min(p["interval_frames"], max(1, (n - 1) // max(1, len(i) - 1)))
    places = np.clip(part * n - (i[-1] * step) / 2, 0, n - 1 - i[-1] * step) // 1 + step * i
y, x = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
clip = (frames[places.astype(int), y : y + size, x : x + size] / 255 - p["mean"]) / p["std"]  # V T h w 3
before, change = clip[:, :-1], clip[:, 1:] - clip[:, :-1]
shown = {"rgb": clip, "difference": change, "rgb+difference": np.concatenate((before, change), -1)}[p["input"]]
(logits,) = session.run(["logits"], {"clips": shown.transpose(0, 4, 1, 2, 3).astype(np.float32)})
scores = np.exp(logits - np.logaddexp.reduce(logits, 1, keepdims=True)).mean(0)  # softmax, averaged over the views
for score, label in sorted(zip(scores, header["classes"], strict=True), reverse=True)[:5]:
    print(f"{score:.4f} {label}")

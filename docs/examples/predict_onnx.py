"""Recognize a video with a file of `msfnet export --to onnx`: python predict_onnx.py NETWORK.onnx VIDEO"""

import json
import sys

import av
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
header = json.loads(session.get_modelmeta().custom_metadata_map["msfnet"])
p = header["preprocessing"]
with av.open(sys.argv[2]) as video:  # decode and resize all frames: T H W 3
    read = [(f.time, f.reformat(*p["resize"], "gbrp").to_ndarray(format="gbrp")) for f in video.decode(video=0)]
times, frames = (np.array(part) for part in zip(*read, strict=True))
if fps := p.get("fps"):  # resample to this frame rate, whatever the frame rate of the file
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    moments = (np.arange(max(1, round(len(times) * mean * fps))) + 0.5) / fps + min(mean, 1 / fps) / 10
    frames = frames[np.searchsorted(times - times[0], moments, side="right") - 1]
n, clips, size = len(frames), int(p["views"].split("x")[0]), p["crop_size"]
i = np.arange(p["num_frames"] + (p["input"] != "rgb"))  # residual frames need one frame more
part = (np.arange(clips)[:, None] + 0.5) / clips  # the centers of equal parts of the video, one for each clip
if n < len(i) or p["eval_sampling"] == "uniform":  # spread each clip over the video; repeat the last frame if too short
    places = (i + part) * n / len(i) if n >= len(i) else np.minimum(i, n - 1) + 0 * part
else:  # "dense": every frame_interval-th frame, or the widest interval that fits
    step = min(p["frame_interval"], max(1, (n - 1) // max(1, len(i) - 1)))
    places = np.clip(part * n - (i[-1] * step) / 2, 0, n - 1 - i[-1] * step) // 1 + step * i
y, x = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
clip = (frames[places.astype(int), y : y + size, x : x + size] / 255 - p["mean"]) / p["std"]  # V T h w 3
before, change = clip[:, :-1], clip[:, 1:] - clip[:, :-1]
inputs = {"rgb": clip, "rgb_diff": change, "rgb+rgb_diff": np.concatenate((before, change), -1)}[p["input"]]
(logits,) = session.run(["logits"], {"clips": inputs.transpose(0, 4, 1, 2, 3).astype(np.float32)})
scores = np.exp(logits - np.logaddexp.reduce(logits, 1, keepdims=True)).mean(0)  # softmax, averaged over the views
for score, label in sorted(zip(scores, header["classes"], strict=True), reverse=True)[:5]:
    print(f"{score:.4f} {label}")

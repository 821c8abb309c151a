"""Ablation of FSAM in preset `ucf101-18-small` of `msfnet reproduce`: accuracy and saturation of its gates.

    python benchmarks/attention.py ../shared/data/ucf101-18 --out /tmp/attention

Each row trains with the preset's settings on three quarters of the training groups and is evaluated on the others. No
test video is read. The command can be stopped and started again: finished runs are kept, and interrupted ones resume.
The result is benchmarks/attention.md; rows whose runs are not in the folder keep their published numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from msfnet.data.annotations.readers import read_dataset
from msfnet.experiments.paper import read_preset
from msfnet.inference.recognizer import Recognizer
from msfnet.layers.fsam import BASIS_SIZE, FAM, FSAM, SAM, FrequencyPool, channel_summary
from msfnet.models.registry import register_model
from msfnet.models.zoo import msf_r3d_18
from msfnet.recipe import load_recipe
from msfnet.training.trainer import resume, train

RESULT = Path(__file__).with_suffix(".md")
PRESET = "ucf101-18-small"
HELD_OUT = "data.val_fraction=0.25"
N_GATED = 60  # number of held-out videos on which the gates are recorded
SHUT, OPEN = 0.01, 0.99

LARGE = (
    "clip.crop_size=112",
    "clip.resize=[171, 128]",
)  # the paper's size: FSAM's maps are 14x14 and 7x7, not 7x7 and 4x4
FAST = ("optim.lr=2e-3",)


# Variants of FSAM, each a function channels -> module


class MeanPool(FrequencyPool):
    """Frequency (0, 0) is the mean, not 7 times the mean."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / BASIS_SIZE


class DoubledFAM(FAM):
    """The gates are 2 x sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 * self.gate(self.pool(x)))


class DoubledSAM(SAM):
    """The gates are 2 x sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (2 * self.gate(channel_summary(x)))


class NormedSAM(SAM):
    """A batch norm precedes the sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(1)

    def gate(self, summary: Tensor) -> Tensor:
        return self.norm(self.conv(summary)).sigmoid()


def he(channels: int) -> FSAM:
    """FSAM with He's initialization: fan-out for the convolution, fan-in for the linear layers."""
    fsam = FSAM(channels)
    for layer in fsam.modules():
        if isinstance(layer, nn.Conv3d | nn.Linear):
            is_conv = isinstance(layer, nn.Conv3d)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out" if is_conv else "fan_in", nonlinearity="relu")
    return fsam


def he_mean(channels: int) -> FSAM:
    fsam = he(channels)
    fsam.get_submodule("0").pool = MeanPool(channels)
    return fsam


def doubled(channels: int) -> nn.Module:
    return nn.Sequential(DoubledFAM(channels), DoubledSAM())


def normed(channels: int) -> nn.Module:
    return nn.Sequential(FAM(channels), NormedSAM())


def no_attention(channels: int) -> nn.Module:
    return nn.Identity()


@dataclass(frozen=True)
class Row:
    """One network: its description in the table, its attention and recipe keys."""

    about: str
    attention: Callable[[int], nn.Module] = FSAM
    sets: tuple[str, ...] = ()


ROWS = {
    "none": Row("no attention", no_attention),
    "fsam": Row("FSAM"),
    "he": Row("FSAM with He's initialization, as for convolutions", he),
    "he-mean": Row("as `he`, with the mean as frequency (0, 0), not 7 times the mean", he_mean),
    "doubled": Row("FSAM with gates 2 x sigmoid, which start at 1", doubled),
    "sam-only": Row("SAM alone", lambda channels: SAM()),
    "fam-only": Row("FAM alone", FAM),
    "sam-norm": Row("FSAM with a batch norm before each SAM's sigmoid, as CBAM was published", normed),
    "none-112": Row("no attention, at 112 pixels", no_attention, LARGE),
    "fsam-112": Row("FSAM, at 112 pixels", sets=LARGE),
    "none-rate": Row("no attention, at twice the learning rate", no_attention, FAST),
    "fsam-rate": Row("FSAM, at twice the learning rate", sets=FAST),
}


def model_name(row: str) -> str:
    """The name by which the network of a row is registered."""
    return f"attention_{row}"


for _name, _row in ROWS.items():  # at import: the processes of the runs need them too
    register_model(model_name(_name), msf_r3d_18, attention=_row.attention)


def run(data: Path, name: str, folder: Path) -> None:
    """One training run, resumed if it was interrupted."""
    if (folder / "scores.json").exists():
        return
    torch.set_num_threads(1)
    preset = read_preset(PRESET)
    own = [f"model.name={model_name(name)}", HELD_OUT, *ROWS[name].sets]
    if (folder / "last").exists():
        resume(folder)
    else:
        train(
            read_dataset(data), load_recipe(preset.recipe, [*preset.overrides, *preset.recipe_overrides, *own]), folder
        )


def saturation(folder: Path) -> dict[str, str]:
    """The percentages of gates below SHUT and above OPEN in each attention module, on held-out videos."""
    held = [line["path"] for line in csv.DictReader((folder / "split.csv").open()) if line["split"] == "val"]
    gates: dict[str, list[Tensor]] = defaultdict(list)

    def record(place: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, FAM):
            gates[place].append(module.gate(module.pool(*inputs)).flatten())
        elif isinstance(module, SAM):
            gates[place].append(module.gate(channel_summary(*inputs)).flatten())

    recognizer = Recognizer.load(folder / "weights.safetensors")
    for kind in (FAM, SAM):
        modules = [module for module in recognizer.model.modules() if isinstance(module, kind)]
        for number, module in enumerate(modules, 1):
            module.register_forward_pre_hook(partial(record, f"{kind.__name__} {number}"))
    for _ in recognizer.predict_many([Path(path) for path in held[:: len(held) // N_GATED]]):
        pass
    values = {place: torch.cat(seen) for place, seen in gates.items()}
    return {
        place: f"{100 * (value < SHUT).float().mean():.0f} / {100 * (value > OPEN).float().mean():.0f}"
        for place, value in values.items()
    }


def summarize(out: Path, page: str) -> str:
    """The page: a line for each row that has a finished run or is already on the page."""
    places = ("FAM 1", "FAM 2", "SAM 1", "SAM 2")
    done = [name for name in ROWS if (out / name / "scores.json").exists()]
    environments = [json.loads((out / name / "environment.json").read_text()) for name in done]
    stand = {match[1]: match[0] for match in re.finditer(r"^\| `(.+?)` \|.*$", page, re.MULTILINE)}
    commits = re.findall(r"\b[0-9a-f]{12}\b(?:-dirty)?", page)
    lines = [
        f"# Attention in preset `{PRESET}`",
        "",
        "Printed by `python benchmarks/attention.py DATA --out DIR`: MSF-R3D on 18 classes of UCF101, trained with the",
        f"settings of `msfnet reproduce --preset {PRESET}` on three quarters of the training groups and evaluated on",
        "the held-out quarter. One seed per row, top-1 in % after the last epoch. The columns of FAM and SAM (1: after",
        "stage 3, 2: after stage 4) show the percentages of gates below 0.01 and above 0.99 on held-out videos.",
        "",
        f"| row | network | training | held out | {' | '.join(places)} |",
        "|---|---|---|---|" + "---|" * len(places),
    ]
    for name in ROWS:
        if name not in done:
            lines += [stand[name]] if name in stand else []
            continue
        last = list(csv.DictReader((out / name / "metrics.csv").open()))[-1]
        gates = saturation(out / name)
        cells = [f"{100 * float(last[key]):.1f}" for key in ("train_top1", "val_top1")]
        cells += [gates.get(place, "") for place in places]
        lines.append(f"| `{name}` | {ROWS[name].about} | {' | '.join(cells)} |")
    first = environments[0]
    lines += [
        "",
        f"{first['cpus']} CPU cores ({first['processor']}), one thread per run, torch {first['torch']}, "
        f"commits {', '.join(sorted({*commits, *(e['commit'] for e in environments)}))}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS), help="rows to run; default: all")
    parser.add_argument("--parallel", type=int, default=1, help="number of concurrent runs")
    a = parser.parse_args()
    with ProcessPoolExecutor(a.parallel, mp_context=get_context("spawn")) as pool:
        for running in [pool.submit(run, a.data, name, a.out / name) for name in a.only]:
            running.result()
    RESULT.write_text(summarize(a.out, RESULT.read_text(encoding="utf-8")), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

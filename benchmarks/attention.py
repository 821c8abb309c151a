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
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from msfnet.data.annotations.readers import read_dataset
from msfnet.experiments.paper import read_scale
from msfnet.inference.recognizer import Recognizer
from msfnet.layers.fsam import FAM, SAM, FrequencyPool, channel_summary
from msfnet.models import zoo
from msfnet.recipe import load_recipe
from msfnet.training.trainer import resume, train

RESULT = Path(__file__).with_suffix(".md")
SCALE = "ucf101-18-small"
HELD_OUT = "data.val_fraction=0.25"
N_GATED = 60  # number of held-out videos on which the gates are recorded
SHUT, OPEN = 0.01, 0.99

Patches = dict[tuple[Any, str], Any]  # (owner, attribute) -> replacement

frequency_pool = FrequencyPool.forward


def fam_gate(fam: FAM, x: Tensor) -> Tensor:
    return fam.fc(fam.pool(x)).sigmoid()[:, :, None, None, None]


def sam_gate(sam: SAM, x: Tensor) -> Tensor:
    return sam.gate(channel_summary(x))


def passes(module: nn.Module, x: Tensor) -> Tensor:
    return x


DOUBLED: Patches = {
    (FAM, "forward"): lambda fam, x: x * (2 * fam_gate(fam, x)),
    (SAM, "forward"): lambda sam, x: x * (2 * sam_gate(sam, x)),
}
LARGE = (
    "clip.crop_size=112",
    "clip.resize=[171, 128]",
)  # the paper's size: FSAM's maps are 14x14 and 7x7 instead of 7x7 and 4x4
FAST = ("optim.lr=2e-3",)
MEAN: Patches = {(FrequencyPool, "forward"): lambda pool, x: frequency_pool(pool, x) / 7}
HE: Patches = {(zoo, "GATES"): ()}

sam_init = SAM.__init__


def normed_init(sam: SAM) -> None:
    sam_init(sam)
    sam.norm = nn.BatchNorm3d(1)


NORMED: Patches = {
    (SAM, "__init__"): normed_init,
    (SAM, "gate"): lambda sam, summary: sam.norm(sam.conv(summary)).sigmoid(),
}


@dataclass(frozen=True)
class Row:
    """One network: its description in the table, its name, recipe keys, and patches to the package."""

    about: str
    model: str = "msf_r3d_18_fsam"
    sets: tuple[str, ...] = ()
    instead: Patches = field(default_factory=dict)


ROWS = {
    "none": Row("no attention", "msf_r3d_18"),
    "fsam": Row("FSAM"),
    "he": Row("FSAM with He's initialization, as for convolutions", instead=HE),
    "he-mean": Row("as `he`, with the mean as frequency (0, 0), not 7 times the mean", instead=HE | MEAN),
    "doubled": Row("FSAM with gates 2 x sigmoid, which start at 1", instead=DOUBLED),
    "sam-only": Row("SAM alone", instead={(FAM, "forward"): passes}),
    "fam-only": Row("FAM alone", instead={(SAM, "forward"): passes}),
    "sam-norm": Row("FSAM with a batch norm before each SAM's sigmoid, as CBAM was published", instead=NORMED),
    "none-112": Row("no attention, at 112 pixels", "msf_r3d_18", LARGE),
    "fsam-112": Row("FSAM, at 112 pixels", sets=LARGE),
    "none-rate": Row("no attention, at twice the learning rate", "msf_r3d_18", FAST),
    "fsam-rate": Row("FSAM, at twice the learning rate", sets=FAST),
}


@contextmanager
def changed(row: Row) -> Iterator[None]:
    """Apply the patches of a row within the context."""
    with ExitStack() as stack:
        for (owner, attribute), value in row.instead.items():
            stack.enter_context(patch.object(owner, attribute, value))
        yield


def run(data: Path, name: str, folder: Path) -> None:
    """One training run, resumed if it was interrupted."""
    if (folder / "scores.json").exists():
        return
    torch.set_num_threads(1)
    row, scale = ROWS[name], read_scale(SCALE)
    sets = [*scale.size, *scale.training, f"model.name={row.model}", HELD_OUT, *row.sets]
    with changed(row):
        if (folder / "last").exists():
            resume(folder)
        else:
            train(read_dataset(data), load_recipe(scale.recipe, sets), folder)


def shares(name: str, folder: Path) -> dict[str, str]:
    """The percentages of gates saturated at 0 and at 1 in each attention module, on held-out videos."""
    row = ROWS[name]
    held = [line["path"] for line in csv.DictReader((folder / "split.csv").open()) if line["split"] == "val"]
    gates: dict[str, list[Tensor]] = defaultdict(list)

    def listen(place: str, read: Callable[..., Tensor]) -> Callable[..., None]:
        return lambda module, args: gates[place].append(read(module, *args).flatten())

    with changed(row):
        network = Recognizer.load(folder / "weights.safetensors")
    replaced = {owner for (owner, _), value in row.instead.items() if value is passes}
    for kind, read in ((FAM, fam_gate), (SAM, sam_gate)):
        modules = [module for module in network.model.modules() if isinstance(module, kind)]
        for number, module in enumerate(modules, 1):
            if kind not in replaced:
                module.register_forward_pre_hook(listen(f"{kind.__name__} {number}", read))
    with changed(row):
        for _ in network.predict_many([Path(path) for path in held[:: len(held) // N_GATED]]):
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
        f"# Attention in preset `{SCALE}`",
        "",
        "Printed by `python benchmarks/attention.py DATA --out DIR`: MSF-R3D on 18 classes of UCF101, trained with the",
        f"settings of `msfnet reproduce --preset {SCALE}` on three quarters of the training groups and evaluated on",
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
        gates = shares(name, out / name)
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

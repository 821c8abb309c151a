"""Generate the tables of the documentation: python docs/tables.py. A test checks that they are up to date."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from figures import frames_seen, gradient_shares, output_widths, receptive_fields, seeded

from msfnet.experiments.paper import read_paper
from msfnet.layers.attention import CBAM, NST, SE
from msfnet.layers.fsam import FAM, FSAM, SAM, FrequencyPool
from msfnet.layers.msl import MSL
from msfnet.models.blocks import MSFBlock
from msfnet.models.registry import list_models, summarize
from msfnet.models.resnet3d import ResNet3D
from msfnet.models.zoo import msf_c3d, msf_r3d_18
from msfnet.recipe import Recipe

DOCS = Path(__file__).parent
ROOT = DOCS.parent

# The numbers that the paper prints for each network; Table 5, read last, corrects a misprint in Table 1.
PRINTED = {row.model: row.printed for row in read_paper().row if row.model}


def recipe_keys() -> str:
    """Every recipe key with its default and meaning."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, table in Recipe():
        for key, field in type(table).model_fields.items():
            default = json.dumps(getattr(table, key))
            rows.append(f"| `{name}.{key}` | {'' if default == 'null' else f'`{default}`'} | {field.description} |")
    return "\n".join(rows)


def sizes() -> str:
    """Parameters, multiply-adds, and input of every network, beside the numbers that the paper prints."""
    rows = ["| name | M parameters | paper | GMACs | paper | input |", "|---|---|---|---|---|---|"]
    for name in list_models():
        summary = summarize(name)
        params, macs = (PRINTED[name].params, PRINTED[name].gmacs) if name in PRINTED else ("", "")
        shape = "x".join(map(str, summary.input))
        rows.append(
            f"| `{name}` | {summary.params / 1e6:.3f} | {params} | {summary.macs / 1e9:.2f} | {macs} | {shape} |"
        )
    return "\n".join(rows)


def benchmark_table(page: str, heading: str = "") -> str:
    """The first table of a page in benchmarks/, or the first one under a heading of that page."""
    text = (ROOT / "benchmarks" / page).read_text(encoding="utf-8")
    if heading:
        text = text.partition(f"\n## {heading}\n")[2]
    table = text.partition("\n|")[2].partition("\n\n")[0]
    return f"|{table.rstrip()}"


METHOD = ("r3d_18", "msf_r3d_18", "msf_r3d_18_fsam", "c3d", "msf_c3d", "msf_c3d_fsam")


def method_sizes() -> str:
    """The paper's networks and their baselines, with the numbers of the paper's Table 5."""
    rows = ["| network | M parameters | paper | GMACs | paper | top-1, paper, % |", "|---|---|---|---|---|---|"]
    for name in METHOD:
        summary, paper = summarize(name), PRINTED[name]
        rows.append(
            f"| `{name}` | {summary.params / 1e6:.3f} | {paper.params} | {summary.macs / 1e9:.2f} | {paper.gmacs} "
            f"| {paper.top1} |"
        )
    return "\n".join(rows)


def receptive_field() -> str:
    """The temporal receptive field of each split of MSL's output, in MSL alone and in the block around it."""
    rows = [
        "| output of MSL | channels of 64 | receptive field in MSL, frames | in the MSF block, frames |",
        "|---|---|---|---|",
    ]
    names = ("`x_1`", "`y_2`, first half", "`y_3`, first half", "`y_4`")
    (widths, msl), (_, block) = receptive_fields()["MSL"], receptive_fields()["MSF block"]
    columns = zip(names, widths, frames_seen(msl), frames_seen(block), strict=True)
    return "\n".join([*rows, *(f"| {' | '.join(map(str, row))} |" for row in columns)])


@seeded()
def split_frames(num_splits: int) -> list[int]:
    """The temporal receptive field of each split of an MSL."""
    msl = MSL(64, num_splits)
    return frames_seen(gradient_shares(msl, msl.sizes, output_widths(msl)))


def weight_share(num_splits: int, channels: int = 64) -> float:
    """The convolution weights of an MSL relative to those of one dense 3x3x3 convolution."""
    convs = (module for module in MSL(channels, num_splits).modules() if isinstance(module, nn.Conv3d))
    return sum(conv.weight.numel() for conv in convs) / (27 * channels**2)


def splits() -> str:
    """Table 2 of the paper, with the receptive fields and the weights of MSL for each S."""
    rows = [
        "| S | receptive fields of the splits | weights vs. dense conv | M parameters | paper | top-1, paper, % |",
        "|---|---|---|---|---|---|",
    ]
    printed = {row.label: row.printed for row in read_paper().row if row.table == "2"}
    for num_splits in range(2, 7):
        frames = ", ".join(map(str, split_frames(num_splits)))
        params = summarize("msf_r3d_18", num_splits=num_splits).params / 1e6
        paper = printed.get(f"S = {num_splits}")
        quoted = f"{paper.params} | {paper.top1}" if paper else " | "
        rows.append(f"| {num_splits} | {frames} | {weight_share(num_splits):.0%} | {params:.3f} | {quoted} |")
    return "\n".join(rows)


FSAM_INPUTS = {
    "MSF-R3D, 256 channels": (2, 14, 14),
    "MSF-R3D, 512 channels": (1, 7, 7),
    "MSF-C3D, 256 channels": (8, 28, 28),
    "MSF-C3D, 512 channels": (2, 7, 7),
}  # T H W


def sam_coverage(frames: int, height: int, width: int) -> Tensor:
    """The share of positions at which each weight of SAM's kernel meets the map and not its padding: 7 7 7."""
    sam = SAM()
    nn.init.zeros_(sam.conv.weight)  # the slope of the sigmoid is then 1/4, and a gradient counts the values met
    (grad,) = torch.autograd.grad(sam.gate(torch.ones(1, 2, frames, height, width)).sum(), sam.conv.weight)
    return 4 * grad[0, 0] / (frames * height * width)


def sam_kernel() -> str:
    """How much of SAM's kernel meets the map where each FSAM is."""
    rows = [
        "| SAM in | T×H×W | weights that ever meet the map | products with the map, not padding |",
        "|---|---|---|---|",
    ]
    for name, shape in FSAM_INPUTS.items():
        coverage = sam_coverage(*shape)
        anywhere, average = float((coverage > 0).float().mean()), float(coverage.mean())
        rows.append(f"| {name} | {'×'.join(map(str, shape))} | {anywhere:.0%} | {average:.0%} |")
    return "\n".join(rows)


# Where each part of the paper is implemented.
IMPLEMENTED: tuple[tuple[str, str, Callable[..., object]], ...] = (
    ("Eq. 2, Eq. 4, section 3.1", "MSL: split the channels, convolve them as a chain, concatenate", MSL),
    ("Eq. 3", "number of weights of MSL: the widths of its convolutions", MSL),
    ("Output = X + Y + Input, Fig. 2, section 3.1", "MSF block", MSFBlock),
    ("Eq. 5, section 3.2", "one DCT coefficient per channel", FrequencyPool),
    ("Eq. 6, Fig. 4", "FAM: frequency channel attention", FAM),
    ("Eq. 7, Fig. 5", "SAM: spatiotemporal attention", SAM),
    ("Eq. 8, Fig. 6", "FSAM: FAM, then SAM", FSAM),
    ("Section 3.3, Fig. 7", "MSF-R3D: stem, four stages, attention after the third and the fourth", ResNet3D),
    ("Table 1, Fig. 8, Table 2", "placements (a) to (d) of MSL, number of splits S", msf_r3d_18),
    ("Table 3", "SE", SE),
    ("Table 3", "CBAM in three dimensions", CBAM),
    ("Table 3", "NST", NST),
    ("Section 4.4, Table 5", "MSF-C3D", msf_c3d),
)


def equations() -> str:
    """The class or function that implements each equation of the paper, and its file."""
    rows = ["| paper | what | class or function | file |", "|---|---|---|---|"]
    for where, what, implementation in IMPLEMENTED:
        file = Path(inspect.getfile(implementation)).relative_to(ROOT).as_posix()
        rows.append(f"| {where} | {what} | `{implementation.__name__}` | `{file}` |")
    rows.append("| Eq. 1 | temporal receptive field: measured, not part of a network | | `docs/figures.py` |")
    rows.append("| Section 4.2 | preprocessing and training settings: recipe `paper` | | `msfnet/recipes/paper.toml` |")
    return "\n".join(rows)


def fenced(lines: Iterable[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def package_tree() -> str:
    """Every module of the package with the first line of its docstring, as an indented tree."""
    package, lines = ROOT / "msfnet", []
    for path in sorted(package.rglob("*.py"), key=lambda path: _tree_order(path.relative_to(package))):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if docstring is None:  # __main__.py
            continue
        depth = len(path.relative_to(package).parts)
        is_package = path.name == "__init__.py"
        name = f"{'  ' * (depth - is_package)}{f'{path.parent.name}/' if is_package else path.name}"
        lines.append(f"{name:<28}{docstring.splitlines()[0]}")
    return fenced(lines)


def _tree_order(path: Path) -> list[tuple[int, str]]:
    """A package's own docstring first, then its modules, then its subpackages."""
    *folders, name = path.parts
    return [*((2, folder) for folder in folders), (0 if name == "__init__.py" else 1, name)]


def import_layers() -> str:
    """The layers of the import contracts: a module may import from the lines below its own, never from those above."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    blocks = []
    for contract in configuration["contracts"]:
        if contract["type"] == "layers":
            containers = ", ".join(f"`{name}`" for name in contract.get("containers", [configuration["root_package"]]))
            layers = (layer.replace("msfnet.", "") for layer in contract["layers"])
            blocks.append(f"Within {containers}:\n\n{fenced(layers)}")
    return "\n\n".join(blocks)


RESULTS = {"recipe `paper`": "results-ucf101-18-small", "recipe `best`": "results-ucf101-18-small-best"}


def reproduced() -> str:
    """The top-1 of every row that was trained: the paper's, and ours with each recipe that has results."""
    files = {name: ROOT / "benchmarks" / f"{stem}.json" for name, stem in RESULTS.items()}
    found = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}
    here: dict[tuple[str, str], dict[str, str]] = {}
    for name, rows in found.items():
        for row in rows:
            if row["n_seeds"]:
                cells = here.setdefault((row["table"], row["row"]), {"paper": f"{row['paper_top1']:.1f}"})
                spread = "" if row["top1_std"] is None else f" ± {row['top1_std']:.1f}"
                cells[name] = f"{row['top1_mean']:.1f}{spread} ({row['n_seeds']})"
    columns = ("paper", *found)
    lines = [f"| table | row | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]
    for (table, row), cells in here.items():
        lines.append(f"| {table} | {row} | {' | '.join(cells.get(name, '') for name in columns)} |")
    return "\n".join(lines)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "recipes.md": {"recipe keys": recipe_keys},
    "architecture.md": {"tree": package_tree, "layers": import_layers},
    "networks.md": {"sizes": sizes, "equations": equations},
    "best.md": {"ablation": partial(benchmark_table, "best.md")},
    "performance.md": {"speed": partial(benchmark_table, "speed.md")},
    "reproduction.md": {
        "rows": reproduced,
        "claims": partial(benchmark_table, "results-ucf101-18-small.md", "Claims of the paper"),
        "best claims": partial(benchmark_table, "results-ucf101-18-small-best.md", "Claims of the paper"),
        "attention": partial(benchmark_table, "attention.md"),
    },
    "method.md": {
        "equations": equations,
        "sizes": method_sizes,
        "receptive field": receptive_field,
        "splits": splits,
        "sam": sam_kernel,
    },
}


def filled(page: str) -> str:
    """The text of a page with its generated tables brought up to date."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, make in TABLES[page].items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    for page in TABLES:
        (DOCS / page).write_text(filled(page), encoding="utf-8")

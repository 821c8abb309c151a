"""Draw the pictures of docs/method.md from the code: python docs/figures.py [NAME ...] writes docs/assets/method-*.svg.

Every box is walked from a real network, every number counted or measured on real layers: `drawing/facts.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parent))
from drawing import charts, diagrams
from drawing.canvas import STYLE, to_svg

ASSETS = Path(__file__).parent / "assets"

PICTURES: dict[str, Callable[[], Figure]] = {
    "method-networks.svg": diagrams.draw_networks,
    "method-block.svg": diagrams.draw_block,
    "method-reach.svg": charts.draw_reach,
    "method-depth.svg": charts.draw_depth,
    "method-placements.svg": diagrams.draw_placements,
    "method-groups.svg": charts.draw_groups,
    "method-dct.svg": charts.draw_dct,
    "method-fam.svg": charts.draw_fam,
    "method-tuning.svg": charts.draw_tuning,
    "method-sam.svg": charts.draw_sam,
}


def drawn(name: str) -> bytes:
    """A picture as SVG."""
    with rc_context(STYLE):
        return to_svg(PICTURES[name]())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", default=list(PICTURES), help="of the pictures; default: all")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder; default: docs/assets")
    a = parser.parse_args()
    for name in a.name:
        (a.out / name).write_bytes(drawn(name))


if __name__ == "__main__":
    main()

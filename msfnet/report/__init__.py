"""Training histories and evaluation results as plots and as HTML pages of one file each."""

from msfnet.report.evaluation import (
    evaluation_markdown,
    evaluation_sections,
    evaluation_tiles,
    write_evaluation_report,
)
from msfnet.report.page import Section, Table, to_png, write_page
from msfnet.report.plots import INK, TRAIN_COLOR, VAL_COLOR, EpochRows, plot_curves, plot_frames, plot_history
from msfnet.report.run_report import write_run_report

__all__ = [
    "INK",
    "TRAIN_COLOR",
    "VAL_COLOR",
    "EpochRows",
    "Section",
    "Table",
    "evaluation_markdown",
    "evaluation_sections",
    "evaluation_tiles",
    "plot_curves",
    "plot_frames",
    "plot_history",
    "to_png",
    "write_evaluation_report",
    "write_page",
    "write_run_report",
]

"""EvalResult and histories to pictures and pages. A page is one file: its pictures are inside it."""

from msfnet.report.page import Section, Table, to_jpeg, to_png, write_page
from msfnet.report.plots import (
    INK,
    TRAIN_COLOR,
    VAL_COLOR,
    Rows,
    plot_confusion,
    plot_curves,
    plot_history,
    plot_strips,
)
from msfnet.report.run_report import bottleneck, time_sections, time_shares, write_run_report
from msfnet.report.scores import (
    Strips,
    no_strips,
    score_sections,
    score_tiles,
    scores_markdown,
    write_scores_report,
)

__all__ = [
    "INK",
    "TRAIN_COLOR",
    "VAL_COLOR",
    "Rows",
    "Section",
    "Strips",
    "Table",
    "bottleneck",
    "no_strips",
    "plot_confusion",
    "plot_curves",
    "plot_history",
    "plot_strips",
    "score_sections",
    "score_tiles",
    "scores_markdown",
    "time_sections",
    "time_shares",
    "to_jpeg",
    "to_png",
    "write_page",
    "write_run_report",
    "write_scores_report",
]

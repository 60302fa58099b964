"""Charts as SVG files, the same bytes for the same values. Knows nothing of what they show."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.report import Chart

_SIZE = (7.0, 4.2)
_STYLE = {
    "svg.hashsalt": "bitswitch",  # or every run would name the same shapes anew
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def draw(chart: Chart, path: Path) -> None:
    """Write ``chart`` as an SVG file."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for name, (xs, ys) in chart.curves.items():
            if chart.kind == "step":
                axes.step(xs, ys, where="post", label=name)
            else:
                axes.plot(xs, ys, marker="o", label=name)
        axes.set(title=chart.title, xlabel=chart.x, ylabel=chart.y)
        for log, scale, axis in (
            (chart.log_x, axes.set_xscale, axes.xaxis),
            (chart.log_y, axes.set_yscale, axes.yaxis),
        ):
            if log:
                scale("log", base=2) if axis is axes.xaxis else scale("log")
                axis.set_major_formatter(lambda value, _: f"{value:.3g}")
        if chart.from_zero and not chart.log_y:
            axes.set_ylim(0, 1.05 * axes.dataLim.ymax)
        axes.legend(frameon=False)
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})

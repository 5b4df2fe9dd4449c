"""The loss of a run as a picture, whole and by part (such as the bands of time steps that a diffusion objective logs)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def draw_losses(log: Path, out: Path) -> bool:
    """Draw every column of `log` (one JSON object a line) whose name starts with "loss", against the step; `out` appears whole.

    Returns whether there was anything to draw: two rows at least.

    Raises:
        OSError: `out` cannot be written.
    """
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    if len(rows) < 2:
        return False
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no window system, whatever the user's settings say
    axes = figure.subplots()
    names = sorted({name for row in rows for name in row if name.startswith("loss")})
    series = {name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    positive = all(value > 0 for points in series.values() for _, value in points)
    colors = mpl.colormaps["viridis"]
    for k, (name, points) in enumerate(series.items()):
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        whole = name == "loss"
        color = "black" if whole else colors(k / max(len(names) - 1, 1))
        axes.plot(steps, values, label=name.replace("_", " "), color=color, linewidth=2 if whole else 1.2)
    axes.set(xlabel="step", ylabel="loss", yscale="log" if positive else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False, fontsize=8)
    temporary = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        figure.savefig(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return True

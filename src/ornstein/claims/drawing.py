"""Plots and films for reports, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor


def film(frames: Sequence[Tensor]) -> NDArray[np.uint8]:
    """Pictures (3, H, W) in [−1, 1] side by side, cut at the bounds."""
    pixels = [((frame.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy() for frame in frames]
    return np.concatenate(pixels, axis=1)


def plot(
    curves: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
    *,
    x: str,
    y: str,
    log: bool = False,
    log_x: bool = False,
    bands: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]] | None = None,
) -> NDArray[np.uint8]:
    """Curves over x in one figure.

    Args:
        curves: by label, (places, values). bands: by the same labels, the lower and upper bound of a shaded band. log, log_x: scales.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=120, layout="constrained")
    for label, (places, values) in curves.items():
        (line,) = axes.plot(places, values, label=label, linewidth=1.5, marker="o" if len(places) < 12 else None, markersize=3.5)
        if bands and label in bands:
            axes.fill_between(places, *bands[label], color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel=x, ylabel=y, yscale="log" if log else "linear", xscale="log" if log_x else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return pixels

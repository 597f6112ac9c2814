"""Names in a picture, beside the points that they name."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox


def names_beside(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, the nearest place that covers no point and no other name."""
    renderer = axes.figure.canvas.get_renderer()
    pixels = axes.figure.dpi / 72  # in a point
    at = {name: axes.transData.transform(point) for name, point in points.items()}
    taken = [Bbox.from_extents(*(xy - 4 * pixels), *(xy + 4 * pixels)) for xy in at.values()]
    ways = np.deg2rad([0, 180, 45, 315, 135, 225, 90, 270])
    for name, xy in at.items():
        text = axes.annotate(name, xy, xycoords="figure pixels", fontsize=8, color="#222222", annotation_clip=False)
        width, height = text.get_window_extent(renderer).size
        for distance in np.arange(6, 120, 6) * pixels:
            # The corner of the text for each way to go, so that it touches the circle around the point.
            middles = [xy + distance * np.array([np.cos(way), np.sin(way)]) for way in ways]
            sides = [np.array([width / 2 * np.sign(round(np.cos(way), 6)), height / 2 * np.sin(way)]) for way in ways]
            boxes = [
                Bbox.from_bounds(*(middle + side - (width / 2, height / 2)), width, height)
                for middle, side in zip(middles, sides, strict=True)
            ]
            inside = [box for box in boxes if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)]
            free = [box for box in inside if not box.count_overlaps(taken)]
            if free:
                break
        else:
            free = boxes
        text.remove()
        far = distance > 12 * pixels
        text = axes.annotate(
            name,
            points[name],
            xytext=(free[0].min - xy) / pixels,
            textcoords="offset points",
            fontsize=8,
            color="#222222",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0} if far else None,
        )
        text.set_in_layout(False)
        taken.append(free[0])

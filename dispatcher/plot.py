"""A metric over the default branch's runs → a drawing: lines, dots and words at places; and the drawing → SVG.

What draws it in another format (`effects/plotting.py`) takes the same drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

from dispatcher.lookback import Trail
from dispatcher.phrases import number
from dispatcher.untrusted import printable

WIDTH, HEIGHT = 800, 360
# Half a label (a date) must fit beside the last dot.
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 40, 44, 64
INK, GRID, BLUE, GREY, ORANGE = "#24292f", "#d8dee4", "#1f6feb", "#8b949e", "#bf5700"
_LABELS = 8


@dataclass(frozen=True)
class Stroke:
    """A line through places (pixels, from the upper left corner)."""

    places: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.0


@dataclass(frozen=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    colour: str


@dataclass(frozen=True)
class Words:
    """A text; `y` is its baseline, `anchor` which part of it lies at `x`."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: int = 12
    colour: str = INK


Shape = Stroke | Dot | Words
Drawing = tuple[Shape, ...]


def drawing(trail: Trail, metric: str) -> Drawing:
    """One metric, oldest run left; accepted runs stand out, the baseline is a line. Raises ValueError where no run has the metric."""
    runs = [entry for entry in trail.entries if metric in entry.metrics]
    if not runs:
        raise ValueError("no run has this metric")
    baseline = trail.baselines.get(metric)
    values = [entry.metrics[metric] for entry in runs]
    low, high = _ends([*values, *([baseline.value] if baseline else [])])
    across = (WIDTH - _LEFT - _RIGHT) / max(len(runs) - 1, 1)

    def x_of(place: int) -> float:
        return _LEFT + across * place if len(runs) > 1 else (_LEFT + WIDTH - _RIGHT) / 2

    def y_of(value: float) -> float:
        # Halves first: the distance of two floats may be more than a float can be.
        return HEIGHT - _BOTTOM - (value / 2 - low / 2) / (high / 2 - low / 2) * (HEIGHT - _TOP - _BOTTOM)

    shapes: list[Shape] = [Words(_LEFT, 24, f"{metric} · {trail.recipe} on {trail.profile}", size=15)]
    for step in range(5):
        value = low * (1 - step / 4) + high * (step / 4)
        shapes.append(Stroke(((_LEFT, y_of(value)), (WIDTH - _RIGHT, y_of(value))), GRID))
        shapes.append(Words(_LEFT - 8, y_of(value) + 4, number(value), "end"))
    if baseline is not None:
        shapes.append(Stroke(((_LEFT, y_of(baseline.value)), (WIDTH - _RIGHT, y_of(baseline.value))), GREY, 2))
    places = tuple((x_of(place), y_of(value)) for place, value in enumerate(values))
    shapes.append(Stroke(places, BLUE, 2))
    for (x, y), entry in zip(places, runs, strict=True):
        accepted = entry.kind == "accepted"
        shapes.append(Dot(x, y, 5 if accepted else 3, ORANGE if accepted else BLUE))
    labels = min(len(runs), _LABELS)
    for place in sorted({round(label * (len(runs) - 1) / max(labels - 1, 1)) for label in range(labels)}):
        shapes.append(Words(x_of(place), HEIGHT - _BOTTOM + 18, runs[place].sha[:7], "middle", 11))
        shapes.append(Words(x_of(place), HEIGHT - _BOTTOM + 32, runs[place].at.strftime("%Y-%m-%d"), "middle", 10, GREY))
    legend = f"grey: the baseline, {number(baseline.value)}" if baseline else ""
    accepted_words = "orange: accepted as the baseline" if any(entry.kind == "accepted" for entry in runs) else ""
    shapes.append(Words(_LEFT, HEIGHT - 10, " · ".join(words for words in (legend, accepted_words) if words), size=11, colour=GREY))
    return tuple(shapes)


def _ends(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high / 2 - low / 2) * 0.1 or abs(high) * 0.05 or 1.0
    limit = 1.7e308
    return max(low - room, -limit), min(high + room, limit)


def svg(shapes: Drawing) -> str:
    """The drawing as a file of its own: no script, no style, no address but the format's name."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="system-ui, sans-serif">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *map(_element, shapes), "</svg>", ""])


def _element(shape: Shape) -> str:
    match shape:
        case Stroke():
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.places)
            return f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width:g}"/>'
        case Dot():
            return f'<circle cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="{shape.radius:g}" fill="{shape.colour}"/>'
        case Words():
            text = escape(printable(shape.text))
            return (
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size}" text-anchor="{shape.anchor}" '
                f'fill="{shape.colour}">{text}</text>'
            )

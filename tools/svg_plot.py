"""Plots as SVG without further packages: lines over a number, and points by category.

Both return the text of an SVG with a background of its own, which follows the reader's light or dark theme. The same arguments
give the same text, so that a plot that is committed changes only where its numbers do.
"""

import dataclasses
import html
import math

CHARACTER = 6.8  # Pixels of an average character at 12 pixels; there is nothing here that could measure text.
LIGHT = ["#0b62a4", "#c8500a", "#0a7d57", "#a3408a", "#6b6b00", "#555555"]
DARK = ["#6db6f2", "#f59a5c", "#4fcf9f", "#e08fc9", "#cfcf4a", "#b5b5b5"]
MARKS = ["<circle r='4'/>", "<rect x='-3.5' y='-3.5' width='7' height='7'/>", "<path d='M0 -4.5L4.5 3.5H-4.5Z'/>",
         "<path d='M0 -5L5 0L0 5L-5 0Z'/>", "<path d='M0 4.5L4.5 -3.5H-4.5Z'/>", "<rect x='-5' y='-2' width='10' height='4'/>"]


@dataclasses.dataclass(frozen=True)
class Axis:
    label: str
    ticks: list | None = None  # Values; by default round ones that hold all points.
    tick_text: str | list = "{:g}"  # A format, or a text per tick.
    is_log: bool = False


@dataclasses.dataclass(frozen=True)
class Series:
    name: str
    points: list  # (x, y), joined by a line in this order.
    samples: list = ()  # (x, y) of single measurements, drawn pale and not joined.
    is_dashed: bool = False
    has_marks: bool = True
    colour: int | None = None  # And mark; by default one of its own.


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    values: list  # Each is a point; their mean is a bar. None at all: the name is a heading.
    colour: int = 0


def line_chart(title, x, y, series, size=(720, 380)):
    """Each series is a line, named on the right."""
    everything = [point for one in series for point in [*one.points, *one.samples]]
    legend = 46 + CHARACTER * max(len(one.name) for one in series)
    left, top, right, bottom = 66, 44, size[0] - legend - 14, size[1] - 52
    across, up = _scale(x, [p[0] for p in everything], left, right), _scale(y, [p[1] for p in everything], bottom, top)
    parts = [_text(left, 24, title, "title")]
    for value, text in up.ticks:
        parts += [_line(left, up(value), right, up(value), "grid"), _text(left - 8, up(value) + 4, text, "end")]
    for value, text in across.ticks:
        parts += [_line(across(value), bottom, across(value), bottom + 5, "axis"), _text(across(value), bottom + 20, text, "middle")]
    parts += [_line(left, top, left, bottom, "axis"), _line(left, bottom, right, bottom, "axis"),
              _text((left + right) / 2, bottom + 40, x.label, "middle"),
              _text(0, 0, y.label, "middle", f"translate(16 {(top + bottom) / 2:.1f}) rotate(-90)")]
    for index, one in enumerate(series):
        one = dataclasses.replace(one, colour=index if one.colour is None else one.colour)
        parts += _drawn(one, across, up)
        height = top + 12 + 22 * index
        parts += _drawn(dataclasses.replace(one, points=[(right + 14, height), (right + 40, height)], samples=()), float, float)
        parts.append(_text(right + 48, height + 4, one.name))
    return _document(size, title, parts)


def category_chart(title, x, rows, width=720):
    """A line of points per row, below each other, with a bar at the mean of each and a rule at zero."""
    values = [value for row in rows for value in row.values]
    left, top = 24 + CHARACTER * max(len(row.name) for row in rows), 44
    right, bottom = width - 24, top + 24 * len(rows)
    across = _scale(x, values, left, right)
    parts = [_text(14, 24, title, "title")]
    for value, text in across.ticks:
        parts += [_line(across(value), top, across(value), bottom, "axis" if value == 0 else "grid"),
                  _text(across(value), bottom + 18, text, "middle")]
    for index, row in enumerate(rows):
        height = top + 24 * index + 12
        parts.append(_text(left - 10, height + 4, row.name, "end" if row.values else "end heading"))
        parts += [_mark(row.colour, across(value), height, "sample") for value in row.values]
        if row.values:
            mean = across(math.fsum(row.values) / len(row.values))
            parts.append(_line(mean, height - 9, mean, height + 9, f"series {_colour(row.colour)}"))
    parts.append(_text((left + right) / 2, bottom + 38, x.label, "middle"))
    return _document((width, bottom + 50), title, parts)


def round_ticks(low, high, count=6):
    """About `count` multiples of 1, 2 or 5 times a power of ten, the first at or below `low`, the last at or above `high`."""
    if low == high:
        low, high = low - 1, high + 1
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * count >= high - low)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(step * index, digits) for index in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


class _scale:
    """From a value to a place on the picture; without given ticks the axis ends at ticks."""

    def __init__(self, axis, values, begin, end):
        shape = math.log if axis.is_log else float
        ticks = axis.ticks or (_log_ticks if axis.is_log else round_ticks)(min(values, default=1), max(values, default=1))
        texts = [axis.tick_text.format(tick) for tick in ticks] if isinstance(axis.tick_text, str) else axis.tick_text
        self.ticks = list(zip(ticks, texts, strict=True))
        low, high = shape(min([*values, *ticks])), shape(max([*values, *ticks]))
        self.place = lambda value: begin + (end - begin) * (shape(value) - low) / ((high - low) or 1)

    def __call__(self, value):
        return self.place(value)


def _log_ticks(low, high):
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, last + 1)]


def _drawn(one, across, up):
    parts = [_mark(one.colour, across(x), up(y), "sample") for x, y in one.samples]
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in one.points)
    parts.append(f'<polyline points="{path}" class="series {_colour(one.colour)}{" dashed" if one.is_dashed else ""}"/>')
    return parts + [_mark(one.colour, across(x), up(y), "mean") for x, y in one.points if one.has_marks]


def _colour(index):
    return f"c{index % len(LIGHT)}"


def _mark(index, x, y, kind):
    shape = MARKS[index % len(MARKS)].replace("'", '"')
    return f'<g class="mark {_colour(index)} {kind}" transform="translate({x:.1f} {y:.1f})">{shape}</g>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x, y, text, kind="", transform=""):
    place = f'transform="{transform}"' if transform else f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} class="{kind}">{html.escape(text)}</text>'


def _document(size, title, parts):
    def theme(background, text, grid, colours):
        return [f".paper {{ fill: {background} }}", f"text {{ fill: {text} }}", f".axis {{ stroke: {text} }}", f".grid {{ stroke: {grid} }}",
                *(f".c{index} {{ stroke: {colour}; fill: {colour} }}" for index, colour in enumerate(colours))]

    style = ["text { font: 12px sans-serif }", ".title { font-size: 14px; font-weight: bold }", ".heading { font-weight: bold }",
             ".middle { text-anchor: middle }", ".end { text-anchor: end }", *theme("#ffffff", "#222222", "#e0e0e0", LIGHT),
             "@media (prefers-color-scheme: dark) {", *theme("#14171c", "#dddddd", "#343a42", DARK), "}",
             ".series { stroke-width: 2 }", "polyline { fill: none !important }", ".dashed { stroke-dasharray: 6 4 }",
             ".mark { stroke: none }", ".sample { opacity: 0.55 }"]
    width, height = (f"{pixels:.0f}" for pixels in size)
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
                      f"<title>{html.escape(title)}</title>", "<style>", *style, "</style>",
                      '<rect width="100%" height="100%" class="paper"/>', *parts, "</svg>", ""])

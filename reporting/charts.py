"""Charts of the report as SVG and HTML text: outcome bar, throughput over time, latencies.

Positions are percentages of an SVG without a view box: the chart takes any width and its labels,
which are HTML, keep their size. The text is inserted unescaped, so these functions take numbers
and names from our own code only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from reporting.formatting import counted, duration
from reporting.measurements import LatencyBucket, Measurements, clock_time

_MIN_SHARE_PERCENT = 1.2  # so that one row in a million is still visible
_MIN_SPAN = 10.0  # the latency axis covers at least a factor of ten


def shares(outcomes: Sequence[tuple[str, int, str]]) -> str:
    """Draw a bar divided by outcome; `outcomes` are (CSS class, rows, meaning)."""
    parts = [(name, rows) for name, rows, _meaning in outcomes if rows]
    if not parts:
        return ""
    total = sum(rows for _name, rows in parts)
    widths = [max(100 * rows / total, _MIN_SHARE_PERCENT) for _name, rows in parts]
    scale, at, drawn = 100 / sum(widths), 0.0, ""
    for (name, rows), width in zip(parts, widths, strict=True):
        drawn += (
            f'<rect class="{name}" x="{at:.3f}%" y="0" width="{width * scale:.3f}%" height="100%">'
            f"<title>{name.replace('_', ' ')}: {rows:,}</title></rect>"
        )
        at += width * scale
    return f'<svg class="share" role="img" aria-label="Users by outcome">{drawn}</svg>'


def throughput(measured: Measurements) -> str:
    """Draw rows per second over time with the limit, and retries below."""
    samples, ceiling = measured.samples, measured.ceiling_rows_per_second
    ends_at = samples[-1].starts_at_seconds + samples[-1].seconds
    fastest = max(sample.rows_per_second for sample in samples)
    top = max(ceiling, fastest) * 1.08
    bars = _bars(
        (
            100 * sample.starts_at_seconds / ends_at,
            100 * sample.seconds / ends_at,
            100 * sample.rows_per_second / top,
            f"{clock_time(sample.starts_at_seconds)}: {sample.rows_per_second:,.0f} users/s",
        )
        for sample in samples
    )
    drawing = _plot(
        [(tick / top, f"{tick:,g}") for tick in _round_ticks(top)],
        f"Users per second over {clock_time(ends_at)}; the limit is {ceiling:,.0f} per second",
        bars + _level(100 * ceiling / top, "limit"),
        [] if any(sample.retries for sample in samples) else _time_ticks(ends_at),
    )
    most_retries = max(sample.retries / sample.seconds for sample in samples)
    if not most_retries:
        return f'<div class="plot">{drawing}</div>'
    strip = _bars(
        (
            100 * sample.starts_at_seconds / ends_at,
            100 * sample.seconds / ends_at,
            100 * sample.retries / sample.seconds / most_retries,
            f"{clock_time(sample.starts_at_seconds)}: {sample.retries:,.0f} retries",
        )
        for sample in samples
        if sample.retries
    )
    return (
        f'<div class="plot">{drawing}<span class="strip-name">retries</span>'
        '<svg class="strip" role="img" aria-label="Retries over the same time">'
        f"{strip}{_level(0, 'axis')}</svg><span></span>"
        f'<div class="below">{_labels_below(_time_ticks(ends_at))}</div></div>'
    )


def latencies(buckets: Sequence[LatencyBucket], slowest_seconds: float) -> str:
    """Draw the histogram of call durations on a logarithmic axis."""
    first = _round_down(max(buckets[0].from_seconds, buckets[0].to_seconds / 1.2, 0.0005))
    last = _round_up(min(buckets[-1].to_seconds, max(slowest_seconds, first)))
    while last / first < _MIN_SPAN:
        first, last = _round_down(first * 0.99), _round_up(last * 1.01)

    def place(seconds: float) -> float:
        inside = min(max(seconds, first), last)
        return 100 * math.log(inside / first) / math.log(last / first)

    most = max(bucket.calls for bucket in buckets)
    bars = _bars(
        (
            place(bucket.from_seconds),
            max(place(bucket.to_seconds) - place(bucket.from_seconds), 0.4),
            95 * bucket.calls / most,
            f"{duration(bucket.from_seconds)} to {duration(bucket.to_seconds)}: "
            f"{counted(bucket.calls, 'call')}",
        )
        for bucket in buckets
        if bucket.calls
    )
    ticks = [first]
    while ticks[-1] < last * 0.99:
        ticks.append(_round_up(ticks[-1] * 1.01))
    for digits in ((1, 2, 5), (1, 3, 10), (1, 10)):
        labelled = [
            tick for tick in ticks if _leading_digit(tick) in digits or tick in (first, last)
        ]
        if len(labelled) <= 7:
            break
    return (
        '<div class="plot">'
        + _plot(
            [(0.0, "0"), (0.95, f"{most:,}")],
            "Calls by duration",
            bars,
            [(place(tick), duration(tick)) for tick in labelled],
        )
        + "</div>"
    )


def meter(share: float) -> str:
    """Draw a thin bar for a share (0 to 1)."""
    width = max(100 * share, 1)
    return f'<svg class="meter" aria-hidden="true"><rect width="{width:.1f}%" height="100%"/></svg>'


def _plot(
    levels: Sequence[tuple[float, str]],
    description: str,
    drawn: str,
    below: Sequence[tuple[float, str]],
) -> str:
    widest = max((name for _share, name in levels), key=len)
    names = "".join(
        f'<span style="bottom:{100 * share:.2f}%">{name}</span>' for share, name in levels
    )
    lines = "".join(_level(100 * share, "grid") for share, _name in levels[1:])
    labels = f'<span></span><div class="below">{_labels_below(below)}</div>' if below else ""
    return (
        f'<div class="left" aria-hidden="true"><span class="widest">{widest}</span>{names}</div>'
        f'<svg role="img" aria-label="{description}">{lines}{drawn}{_level(0, "axis")}</svg>'
        + labels
    )


def _bars(bars: Iterable[tuple[float, float, float, str]]) -> str:
    """Draw bars; each is (left, width, height) in percent and a tooltip."""
    drawn = "".join(
        f'<rect x="{at:.3f}%" y="{100 - height:.2f}%" width="{width:.3f}%" height="{height:.2f}%">'
        f"<title>{tooltip}</title></rect>"
        for at, width, height, tooltip in bars
    )
    return f'<g class="bars" shape-rendering="crispEdges">{drawn}</g>'


def _level(percent: float, name: str) -> str:
    y = f"{100 - percent:.2f}%"
    return f'<line class="{name}" x1="0" x2="100%" y1="{y}" y2="{y}"/>'


def _labels_below(ticks: Sequence[tuple[float, str]]) -> str:
    """Return labels for (percent, text); labels that would overlap on a phone get `wide`."""
    labels = []
    taken_until, ends_at = -100.0, ticks[-1][0]
    for percent, name in ticks:
        has_room = percent - taken_until >= 30 and ends_at - percent >= 30
        is_needed = percent in (ticks[0][0], ends_at)
        if has_room or is_needed:
            taken_until = percent
        kinds = ["first"] if percent < 4 else ["last"] if percent > 96 else []
        kinds += [] if has_room or is_needed else ["wide"]
        labels.append(f'<span class="{" ".join(kinds)}" style="left:{percent:.2f}%">{name}</span>')
    return "".join(labels)


def _time_ticks(ends_at: float) -> list[tuple[float, str]]:
    """Return ticks for the start, the end, and up to three round times in between."""
    if ends_at < 10:
        return [(0.0, "0"), (100.0, duration(ends_at))]
    steps = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    step = next((step for step in steps if ends_at / step <= 4), 86400 * math.ceil(ends_at / 4e5))
    times = [at for at in range(0, int(ends_at) + 1, step) if at < 0.88 * ends_at]
    return [*((100 * at / ends_at, clock_time(at)) for at in times), (100.0, clock_time(ends_at))]


def _round_ticks(top: float) -> list[float]:
    """Return 0 and two to five round numbers up to `top`."""
    step = _round_up(top / 5)
    return [step * index for index in range(int(top / step) + 1)]


def _round_up(number: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, 50 ... that is at least `number`."""
    decade = 10.0 ** math.floor(math.log10(number))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= number * (1 - 1e-9))


def _round_down(number: float) -> float:
    decade = 10.0 ** math.floor(math.log10(number) + 1e-9)
    return next(step * decade for step in (5, 2, 1, 0.5) if step * decade <= number * (1 + 1e-9))


def _leading_digit(number: float) -> int:
    return round(number / 10.0 ** math.floor(math.log10(number) + 1e-9))

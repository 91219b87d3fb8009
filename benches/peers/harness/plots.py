"""The plots, as SVG with text that stays text."""

import math
import os
import statistics

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

import matrix

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "immuta", "font.size": 10, "font.family": "DejaVu Sans, sans-serif".split(", "),
                     "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6,
                     "axes.axisbelow": True, "figure.facecolor": "white"})
# A colour a peer, the same in every plot.
COLOURS = {"immuta": "#c1121f", "kekbit": "#2a9d8f", "chronicle": "#8d6e63", "iceoryx2": "#1d6fb8", "aeron": "#7b2cbf", "unix": "#333333",
           "pipe": "#888888", "zeromq": "#e07a1f", "redis": "#b5892b", "nats": "#4f772d"}
SECOND = {"immuta/mixed/interval/disk", "pipe/sleep/plain/tmpfs", "unix/sleep/plain/tmpfs", "iceoryx2/sleep/lossless/tmpfs"}
BY_SIZE = ["immuta/mixed/interval/tmpfs", "immuta/mixed/interval/disk", "unix/sleep/batched/tmpfs", "aeron/spin/exclusive/tmpfs", "kekbit/spin/fixed/disk",
           "iceoryx2/spin/lossless/tmpfs", "zeromq/sleep/unbounded/tmpfs", "chronicle/spin/default/disk", "redis/sleep/memory/tmpfs", "nats/sleep/memory/tmpfs"]
LATE = {
    "readers that spin": ["immuta/spin/interval/tmpfs", "kekbit/spin/fixed/tmpfs", "aeron/spin/exclusive/tmpfs", "iceoryx2/spin/lossless/tmpfs",
                          "chronicle/spin/default/disk"],
    "readers that sleep": ["immuta/sleep/interval/tmpfs", "pipe/sleep/plain/tmpfs", "unix/sleep/plain/tmpfs", "iceoryx2/sleep/lossless/tmpfs",
                           "zeromq/sleep/unbounded/tmpfs", "redis/sleep/memory/tmpfs", "nats/sleep/memory/tmpfs"],
}
LATE_RATE = 10_000
NINES = ["50", "75", "90", "95", "99", "99.5", "99.9", "99.95", "99.99"]
READERS = {"spin": "spins", "sleep": "sleeps", "mixed": "spins, then sleeps"}


def rows(names):
    known = {row.name: row for row in matrix.ROWS}
    return [known[name] for name in names]


def style(row):
    return {"color": COLOURS[row.peer], "linestyle": "--" if row.name in SECOND else "-", "linewidth": 2.6 if row.peer == "immuta" else 1.5,
            "marker": "o", "markersize": 4 if row.peer == "immuta" else 3}


def save(figure, directory, name):
    # Without a date the same results give the same file.
    figure.savefig(os.path.join(directory, f"{name}.svg"), metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    if preview := os.environ.get("IMMUTA_PEERS_PREVIEW"):
        figure.savefig(os.path.join(preview, f"{name}.png"), dpi=110, bbox_inches="tight")
    plt.close(figure)


def label_ends(axes, ends):
    """Names at the right end of lines, moved apart where they would cover each other. `ends`: (y, text, colour), on a log axis."""
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height
    to_pixel = lambda y: (math.log(y) - math.log(low)) / (math.log(high) - math.log(low)) * height
    placed = []
    for y, text, colour in sorted(ends):
        at = to_pixel(y)
        at = max(at, placed[-1][0] + 15) if placed else at
        placed.append((at, text, colour))
    # All that was pushed beyond the top comes back down.
    over = max((at for at, _, _ in placed), default=0) - height
    for n in range(len(placed) - 1, -1, -1):
        at, text, colour = placed[n]
        above = placed[n + 1][0] - 15 if n + 1 < len(placed) else height
        placed[n] = (min(at, above) if over > 0 else at, text, colour)
    for at, text, colour in placed:
        axes.annotate(text, (1.02, at / height), xycoords="axes fraction", color=colour, va="center", fontsize=9, annotation_clip=False)


def records(value, _=None):
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def nanoseconds(value, _=None):
    for unit, name in ((1e9, " s"), (1e6, " ms"), (1e3, " µs")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g} ns"


def middle(values):
    return statistics.median(values) if values else None


def by_size(results, directory, name_of):
    figure, axes = plt.subplots(figsize=(7.6, 5))
    axes.set_yscale("log", subs=())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ends = []
    for row in rows(BY_SIZE):
        points = [(n, results.rate(row, size, 1)) for n, size in enumerate(matrix.SIZES)]
        points = [(n, values) for n, values in points if values]
        if not points:
            continue
        x, y = [n for n, _ in points], [middle(values) for _, values in points]
        axes.plot(x, y, **style(row))
        axes.fill_between(x, [min(values) for _, values in points], [max(values) for _, values in points], color=COLOURS[row.peer], alpha=0.12, linewidth=0)
        ends.append((y[-1], name_of(row), COLOURS[row.peer]))
    axes.xaxis.set_major_locator(FixedLocator(range(len(matrix.SIZES))))
    axes.xaxis.set_major_formatter(FixedFormatter(["64 B", "256 B", "1 KiB", "64 KiB"]))
    axes.yaxis.set_major_formatter(FuncFormatter(records))
    axes.set_xlabel("size of a record")
    axes.set_ylabel("records a second")
    axes.set_title("One producer process, one consumer process, as fast as it goes", loc="left", fontsize=11)
    label_ends(axes, ends)
    save(figure, directory, "throughput-by-size")


def percentiles(results, directory, name_of):
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.2), sharey=True)
    for axes, (title, names) in zip(panels, LATE.items()):
        axes.set_yscale("log")
        axes.set_xscale("log")
        for row in rows(names):
            points = [(100 / (100 - float(p)), middle(results.late(row, 1, LATE_RATE, p))) for p in NINES]
            points = [(x, y) for x, y in points if y is not None]
            if points:
                axes.plot(*zip(*points), label=name_of(row), **style(row))
        ticks = ["50", "90", "99", "99.9", "99.99"]
        axes.xaxis.set_major_locator(FixedLocator([100 / (100 - float(p)) for p in ticks]))
        axes.xaxis.set_major_formatter(FixedFormatter([f"p{p}" for p in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(nanoseconds))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(labelleft=True)
        axes.set_title(title, loc="left", fontsize=11)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(-0.02, -0.09), ncol=2)
    panels[0].set_ylabel("from the intended time of sending")
    figure.suptitle(f"How late a record is: {LATE_RATE:,} records a second of 64 B, one consumer (less is better)", x=0.07, ha="left", fontsize=11)
    figure.tight_layout()
    save(figure, directory, "latency-percentiles")


def by_readers(results, directory, name_of):
    figure, axes = plt.subplots(figsize=(7, 4.4))
    axes.set_yscale("log", subs=())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ends = []
    for row in (row for row in matrix.ROWS if row.name in matrix.FOR_COST):
        points = [(at, results.values(("cost", row.name, 64, n, 0), lambda run: run["producer_thread_cpu_ns"])) for at, n in enumerate(matrix.FOLLOWERS)]
        points = [(at, values) for at, values in points if values]
        if not points:
            continue
        x, y = [at for at, _ in points], [middle(values) for _, values in points]
        axes.plot(x, y, **style(row))
        axes.fill_between(x, [min(values) for _, values in points], [max(values) for _, values in points], color=COLOURS[row.peer], alpha=0.12, linewidth=0)
        ends.append((y[-1], name_of(row), COLOURS[row.peer]))
    axes.xaxis.set_major_locator(FixedLocator(range(len(matrix.FOLLOWERS))))
    axes.xaxis.set_major_formatter(FixedFormatter([str(n) for n in matrix.FOLLOWERS]))
    axes.yaxis.set_major_formatter(FuncFormatter(nanoseconds))
    axes.set_xlabel("reader processes")
    axes.set_ylabel("the sending thread's processor time")
    axes.set_title("Cost of a send of 64 B by number of readers (less is better)", loc="left", fontsize=11)
    label_ends(axes, ends)
    save(figure, directory, "cost-by-readers")


def draw(results, directory, name_of):
    kinds = {key[0] for key in results.groups}
    for kind, plot in (("throughput", by_size), ("latency", percentiles), ("cost", by_readers)):
        if kind in kinds:
            plot(results, directory, name_of)

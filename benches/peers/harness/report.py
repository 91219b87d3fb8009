"""Makes results.md and the plots from the lines that `run` has written."""

import json
import os
import statistics
import sys
from collections import defaultdict

import matrix
import play
import plots

TITLES = {"immuta": "immuta", "kekbit": "kekbit", "chronicle": "Chronicle Queue", "iceoryx2": "iceoryx2", "aeron": "Aeron IPC", "unix": "unix sockets",
          "pipe": "pipes", "zeromq": "ZeroMQ", "redis": "Redis streams", "nats": "NATS JetStream", "go-immuta": "ella.to/immuta (Go)"}
MODES = {"sync": "`Sync`, batches of 64", "plain": "a call a record", "batched": "batches of 64 KiB", "memory": "in memory", "aof": "append-only file",
         "file": "file"}
WAITS = {"spin": "spins", "sleep": "sleeps", "mixed": "spins, then sleeps"}


class Results:
    def __init__(self, path):
        with open(path) as file:
            self.head, *self.runs = [json.loads(line) for line in file]
        self.groups = defaultdict(list)
        for run in self.runs:
            row = "/".join((run["peer"], run["wait"], run["mode"], run["where"]))
            self.groups[run["kind"], row, run["size"], run["consumers"], run["rate"]].append(run)

    def values(self, key, pick):
        """Of a cell, what `pick` finds in each run that went well."""
        return [pick(run) for run in self.groups.get(key, []) if "error" not in run and pick(run) is not None]

    def problem(self, key):
        """Why a cell has no value, or what is to be known of those that it has."""
        runs = self.groups.get(key, [])
        errors = [run["error"] for run in runs if "error" in run]
        lost = sum(run.get("lost", 0) for run in runs)
        return errors, lost

    def rate(self, row, size, consumers, kind="throughput"):
        return self.values((kind, row.name, size, consumers, 0), lambda run: run.get("per_second"))

    def late(self, row, consumers, rate, percentile):
        return self.values(("latency", row.name, 64, consumers, rate), lambda run: run.get("late_ns", {}).get(percentile))


def amount(value, digits=3):
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{float(f'{value / unit:.{digits}g}'):g}{name}"
    return f"{float(f'{value:.{digits}g}'):g}"


def time_ns(value):
    for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= unit:
            return f"{float(f'{value / unit:.3g}'):g} {name}"
    return f"{value:.0f} ns"


def spread(values, show):
    """The median, and the range of the runs."""
    if not values:
        return "–"
    low, middle, high = min(values), statistics.median(values), max(values)
    return show(middle) if len(values) == 1 else f"{show(middle)} ({show(low)} to {show(high)})"


def place(results, row):
    if row.keeps in (matrix.FILE, matrix.DISK):
        return results.head["machine"]["file_systems"][row.where]
    return "–"


def label(results, row):
    title = TITLES[row.peer]
    return f"{title}, {MODES[row.mode]}" if row.mode in MODES else title


def table(heads, lines):
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(line) + " |" for line in lines)]) + "\n"


def start_of(results, row):
    return [label(results, row), WAITS[row.wait], row.keeps, place(results, row)]


HEADS = ["peer", "reader", "keeps", "on"]


def rows_of(results, kind):
    present = {key[1] for key in results.groups if key[0] == kind}
    return [row for row in matrix.ROWS if row.name in present]


def throughput(results, columns):
    """One line a row; a column is a size and a number of consumers."""
    has = [column for column in columns if any(key[0] == "throughput" and key[2:4] == column for key in results.groups)]
    lines = []
    for row in rows_of(results, "throughput"):
        cells = [spread(results.rate(row, *column), amount) for column in has]
        lines.append(start_of(results, row) + cells)
    return table(HEADS + [f"{size} B, 1 → {n}" for size, n in has], lines)


def latency(results, consumers, rate):
    lines = []
    for row in rows_of(results, "latency"):
        if not results.values(("latency", row.name, 64, consumers, rate), lambda run: 1):
            continue
        lines.append(start_of(results, row) + [spread(results.late(row, consumers, rate, p), time_ns) for p in ("50", "99", "99.9")])
    return table(HEADS + ["p50", "p99", "p99.9"], lines)


def cost(results):
    lines = []
    for row in rows_of(results, "cost"):
        cells = [spread(results.values(("cost", row.name, 64, n, 0), lambda run: run["producer_thread_cpu_ns"]), time_ns) for n in matrix.FOLLOWERS]
        lines.append([label(results, row), place(results, row), *cells])
    return table(["peer", "on", *(f"{n} reader{chr(115) * (n != 1)}" for n in matrix.FOLLOWERS)], lines)


def work(results):
    """Processor time for a record, of all processes but a server."""
    lines = []
    for row in rows_of(results, "throughput"):
        both = [results.values(("throughput", row.name, 64, 1, 0), lambda run, what=what: run[what]) for what in ("producer_cpu_ns", "consumers_cpu_ns")]
        if any(both):
            lines.append(start_of(results, row) + [spread(values, time_ns) for values in both])
    return table(HEADS + ["producer", "consumer"], lines)


# What the README shows: of each peer the way that it is used, or its fastest.
SHORT = ["immuta/spin/interval/disk", "immuta/mixed/interval/disk", "immuta/mixed/interval/tmpfs", "immuta/mixed/sync/disk", "kekbit/spin/fixed/disk", "kekbit/spin/fixed/tmpfs",
         "chronicle/spin/default/disk", "redis/sleep/aof/disk", "nats/sleep/file/disk", "redis/sleep/memory/tmpfs", "nats/sleep/memory/tmpfs",
         "aeron/spin/exclusive/tmpfs", "iceoryx2/spin/lossless/tmpfs", "iceoryx2/sleep/lossless/tmpfs", "unix/sleep/batched/tmpfs",
         "unix/sleep/plain/tmpfs", "pipe/sleep/batched/tmpfs", "zeromq/sleep/unbounded/tmpfs"]


def short(results):
    def middle(values):
        return amount(statistics.median(values)) if values else "–"

    present, lines = {row.name: row for row in rows_of(results, "throughput")}, []
    for name in SHORT:
        if row := present.get(name):
            cells = [middle(results.rate(row, *column)) for column in ((64, 1), (1024, 1), (64, 4), (64, 16))]
            lines.append(start_of(results, row) + cells)
    return table(HEADS + ["64 B, 1 → 1", "1 KiB, 1 → 1", "64 B, 1 → 4", "64 B, 1 → 16"], lines)


def troubles(results):
    lines = []
    for key in sorted(results.groups, key=str):
        errors, lost = results.problem(key)
        kind, row, size, consumers, rate = key
        where = f"{row}: {kind}, {size} B, 1 → {consumers}" + (f", {rate:,}/s" if rate else "")
        if errors:
            lines.append(f"- {where}: {len(errors)} of {len(results.groups[key])} runs failed: {errors[0]}")
        elif lost:
            lines.append(f"- {where}: {lost} records lost")
    return "\n".join(lines) + "\n" if lines else "None: in every run every record arrived, in order, with every byte.\n"


def document(results):
    head, machine = results.head, results.head["machine"]
    counts = {len(runs) for runs in results.groups.values()}
    runs = max(counts) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    parts = [
        "# Results\n",
        "Made by `benches/peers/run`; [README.md](README.md) says what is measured, and what each row does and does not do. "
        "Change nothing here by hand: `benches/peers/report` makes this file and the plots from `results.jsonl`.\n",
        f"{'A virtual machine with ' if machine['virtual'] else ''}{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['linux']}, {machine['file_systems']['disk']} and tmpfs; {head['began']}; "
        + (f"medians of {runs} interleaved runs, and the range in brackets" if max(counts) > 1 else f"one run of each ({head['how']})")
        + (". Before each run of a row that keeps its data in files a file as large as it may need was written and removed, so that the virtual machine had the memory at hand" if head.get("warm_memory") else "") + ".\n",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in head["versions"].items()) + ".\n",
    ]
    if head["unavailable"]:
        parts += ["Unavailable:\n", "\n".join(f"- {TITLES[peer]}: {reason}" for peer, reason in head["unavailable"].items()) + "\n"]
    parts += [
        "*Keeps* is what is left when every process has gone: nothing; what the server has, while that lives; a file in the page cache, which any number of "
        "crashes of processes leave whole; or a disk that has it before a reader sees it.\n",
        "## In short\n", "Records a second, medians.\n", short(results),
        "## Throughput\n", "Records a second, from the first send to the last consumer's last receive, as fast as the peer goes.\n",
        "![Throughput by size](throughput-by-size.svg)\n",
        throughput(results, [(size, 1) for size in matrix.SIZES]),
        throughput(results, [(size, n) for size in (64, 1024) for n in matrix.CONSUMERS[1:]]),
    ]
    if rows_of(results, "latency"):
        parts += ["## Latency\n", "From the intended time of sending, 64 B. Of several consumers the worst one's figure.\n",
                  "![Latency percentiles](latency-percentiles.svg)\n"]
    for consumers in matrix.CONSUMERS:
        for rate in matrix.RATES:
            if any(key[0] == "latency" and key[3] == consumers and key[4] == rate for key in results.groups):
                parts += [f"### {rate:,} records a second, 1 → {consumers}\n", latency(results, consumers, rate)]
    if rows_of(results, "cost"):
        parts += ["## Cost of a send by number of readers\n",
                  "The sending thread's processor time, flat out, 64 B. The readers never sleep, so that no send wakes one. A thread that waits for readers by "
                  "spinning uses time as well.\n", "![Cost by readers](cost-by-readers.svg)\n", cost(results)]
    parts += ["## Processor time\n", "For a record of 64 B, 1 → 1, flat out, of the whole process; a server's is not counted.\n", work(results),
              "## Loss and failures\n", troubles(results)]
    return "\n".join(parts)


def main():
    docs = os.path.normpath(os.path.join(play.PACKAGE, "..", "..", "docs", "benchmarks"))
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(docs, "results.jsonl")
    results = Results(path)
    beside = os.path.dirname(os.path.abspath(path))
    with open(os.path.join(beside, "results.md"), "w") as out:
        out.write(document(results))
    plots.draw(results, beside, lambda row: ", ".join(part for part in (label(results, row), place(results, row)) if part != "–"))


if __name__ == "__main__":
    main()

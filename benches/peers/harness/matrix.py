"""What is measured: the rows (a peer in one configuration) and the cells (a workload)."""

from dataclasses import dataclass

MIB = 1 << 20
SIZES = [64, 256, 1024, 65536]
CONSUMERS = [1, 2, 4, 16]
RATES = [10_000, 100_000, 1_000_000]
FOLLOWERS = [0, 1, 4, 16, 64]


@dataclass(frozen=True)
class Row:
    peer: str
    wait: str  # "spin", "sleep", or "mixed": spins for some microseconds, then sleeps
    mode: str
    where: str  # "disk" or "tmpfs": a directory of its own there; what keeps nothing has its sockets on tmpfs
    keeps: str  # what is left when all processes have gone
    bytes: int = 1024 * MIB  # of payload, at most, in a run

    @property
    def name(self):
        return "/".join((self.peer, self.wait, self.mode, self.where))


NOTHING, FILE, DISK, SERVER = "nothing", "file", "disk", "server"
# "file": in the page cache when sent, so that it outlives every process, and on the disk some time later. "disk": on the disk when sent. "server":
# as long as the server lives.
ROWS = [
    Row("immuta", "spin", "interval", "disk", FILE),
    Row("immuta", "spin", "interval", "tmpfs", FILE),
    Row("immuta", "mixed", "interval", "disk", FILE),
    Row("immuta", "mixed", "interval", "tmpfs", FILE),
    Row("immuta", "sleep", "interval", "tmpfs", FILE),
    Row("immuta", "mixed", "sync", "disk", DISK),
    Row("kekbit", "spin", "fixed", "disk", FILE),
    Row("kekbit", "spin", "fixed", "tmpfs", FILE),
    Row("chronicle", "spin", "default", "disk", FILE, 256 * MIB),
    Row("chronicle", "spin", "default", "tmpfs", FILE, 256 * MIB),
    Row("iceoryx2", "spin", "lossless", "tmpfs", NOTHING),
    Row("iceoryx2", "sleep", "lossless", "tmpfs", NOTHING),
    Row("aeron", "spin", "exclusive", "tmpfs", NOTHING),
    Row("unix", "sleep", "plain", "tmpfs", NOTHING),
    Row("unix", "sleep", "batched", "tmpfs", NOTHING),
    Row("pipe", "sleep", "plain", "tmpfs", NOTHING),
    Row("pipe", "sleep", "batched", "tmpfs", NOTHING),
    Row("zeromq", "sleep", "unbounded", "tmpfs", NOTHING, 256 * MIB),
    Row("redis", "sleep", "memory", "tmpfs", SERVER, 256 * MIB),
    Row("redis", "sleep", "aof", "disk", FILE, 256 * MIB),
    Row("nats", "sleep", "memory", "tmpfs", SERVER, 256 * MIB),
    Row("nats", "sleep", "file", "disk", FILE, 256 * MIB),
]
# What the issue asks to be compared and has no rows, since it cannot be had or has no processes to measure; the reason is found by trying.
WITHOUT_ROWS = ["go-immuta"]

# Latency: one row for each way to wait, and of those that differ in where the data goes, the ones a user would choose.
NOT_FOR_LATENCY = {"immuta/mixed/sync/disk", "kekbit/spin/fixed/disk", "chronicle/spin/default/tmpfs", "pipe/sleep/batched/tmpfs"}
NOT_FOR_THROUGHPUT = {"immuta/sleep/interval/tmpfs"}
# The writer's cost by number of readers: those whose readers never sleep, so that no send wakes one.
FOR_COST = {"immuta/spin/interval/tmpfs", "kekbit/spin/fixed/tmpfs", "aeron/spin/exclusive/tmpfs", "iceoryx2/spin/lossless/tmpfs"}


@dataclass(frozen=True)
class Cell:
    kind: str  # "throughput", "latency", "cost"
    row: Row
    size: int
    consumers: int
    rate: int
    seconds: float


def cells(rows, how):
    """Those of one round. `how` is "quick", "normal" or "full"."""
    seconds = {"quick": 0.15, "normal": 0.3, "full": 0.5}[how]
    late = {"quick": 0.4, "normal": 0.8, "full": 1.1}[how]  # Of which the first 0.1 s does not count.
    found = []
    for row in rows:
        slow = row.peer == "chronicle"  # A process takes seconds to start and warm up, and compiles on.
        span = 3 * seconds if slow else seconds
        if row.name not in NOT_FOR_THROUGHPUT:
            for size in SIZES:
                for consumers in CONSUMERS:
                    normal = consumers == 1 or (consumers > 1 and size in (64, 1024) and not slow) or (slow and (size, consumers) == (64, 4))
                    quick = size in (64, 1024) and consumers in (1, 4) and not (slow and consumers > 1)
                    if {"quick": quick, "normal": normal, "full": True}[how]:
                        found.append(Cell("throughput", row, size, consumers, 0, span))
        if row.name not in NOT_FOR_LATENCY and row.mode != "sync":
            for rate in RATES:
                for consumers in (1, 4):
                    normal = consumers == 1 or (rate == 10_000 and not slow)
                    quick = consumers == 1 and rate < 1_000_000
                    if {"quick": quick, "normal": normal, "full": True}[how]:
                        found.append(Cell("latency", row, 64, consumers, rate, late))
        if row.name in FOR_COST:
            # Without readers the others have nobody to send to.
            followers = FOLLOWERS if row.peer in ("immuta", "kekbit") else FOLLOWERS[1:]
            found += [Cell("cost", row, 64, n, 0, seconds) for n in followers if how != "quick" or n in (0, 1, 4)]
    return found

"""One run: a server where the peer has one, the producer, the consumers; what they say; and nothing left behind."""

import json
import os
import re
import select
import shutil
import socket
import subprocess
import time

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILT = os.path.join(PACKAGE, "target", "release")
# A run that takes longer has gone wrong, or is of a peer that cannot keep up at all.
LIMIT_S = 25
JAVA_OPENS = ["java.base/java.lang", "java.base/java.lang.reflect", "java.base/java.io", "java.base/java.nio", "java.base/java.util",
              "java.base/sun.nio.ch", "java.base/jdk.internal.ref", "java.base/jdk.internal.misc", "jdk.unsupported/sun.misc"]


class Failed(Exception):
    pass


class Process:
    """A process that speaks in lines; what it complains of is kept."""

    def __init__(self, command, scratch, core=None):
        """Of one that has a core of its own, `core` says which."""
        pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
        self.complaints = open(os.path.join(scratch, f"complaints.{time.monotonic_ns()}"), "w+")
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.complaints, cwd=scratch, preexec_fn=pin)
        self.pending = b""

    def line(self, deadline):
        while b"\n" not in self.pending:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.child.stdout], [], [], max(left, 0))
            if not ready:
                raise Failed(f"did not end within {LIMIT_S} s")
            read = os.read(self.child.stdout.fileno(), 65536)
            if not read:
                raise Failed(self.last_words())
            self.pending += read
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def result(self, deadline):
        """The next line that is an object: a library may print lines of its own."""
        while True:
            line = self.line(deadline)
            if line.startswith("{"):
                return json.loads(line)

    def await_ready(self, deadline):
        while self.line(deadline) != "ready":
            pass

    def last_words(self):
        self.complaints.seek(0)
        lines = [line.strip() for line in self.complaints.read().splitlines() if line.strip()]
        return without_places(lines[-1]) if lines else "ended without a word"

    def go(self):
        self.child.stdin.write(b"go\n")
        self.child.stdin.flush()

    def tell_to_end(self):
        try:
            self.child.stdin.close()
        except OSError:
            pass

    def end(self, patience):
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.complaints.close()


def without_places(text):
    """Results name neither hosts nor directories."""
    text = re.sub(r"\w+://[^\s\"']+", "(address)", text)
    return re.sub(r"(?<![\w.])/[\w./@+-]{3,}", "(path)", text)[:300]


def server_command(row, directory, port):
    if row.peer == "redis":
        keep = ["--appendonly", "yes", "--appendfsync", "everysec"] if row.mode == "aof" else ["--appendonly", "no"]
        return ["redis-server", "--port", "0", "--unixsocket", f"{directory}/redis.socket", "--dir", directory, "--save", "", "--daemonize", "no", *keep]
    if row.peer == "nats":
        return ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", f"{directory}/jetstream"]
    if row.peer == "aeron":
        return [f"{BUILT}/aeron_driver", f"{directory}/driver"]
    return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_server(row, server, directory, port, deadline):
    if row.peer == "aeron":
        return server.await_ready(deadline)
    while time.monotonic() < deadline:
        if server.child.poll() is not None:
            raise Failed("the server: " + server.last_words())
        link = socket.socket(socket.AF_INET) if row.peer == "nats" else socket.socket(socket.AF_UNIX)
        with link:
            try:
                link.connect(("127.0.0.1", port) if row.peer == "nats" else f"{directory}/redis.socket")
                return None
            except OSError:
                time.sleep(0.01)
    raise Failed("the server does not come up")


def command(cell, role, directory, port, consumer=0):
    row = cell.row
    # Latency runs are bounded by their time alone.
    most = row.bytes if cell.rate == 0 else max(row.bytes, int(cell.rate * cell.seconds) * cell.size)
    args = [role, f"peer={row.peer}", f"wait={row.wait}", f"mode={row.mode}", f"size={cell.size}", f"consumers={cell.consumers}", f"id={consumer}",
            f"rate={cell.rate}", f"seconds={cell.seconds}", f"bytes={most}", f"dir={directory}", f"port={port}"]
    if row.peer != "chronicle":
        return [f"{BUILT}/immuta-peers", *args]
    opens = [f"--add-{what}={name}=ALL-UNNAMED" for name in JAVA_OPENS for what in ("opens", "exports")]
    # One JVM a consumer on few cores: their collectors and compilers would take them all. The library reports its use to its makers unless told not to.
    flags = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xmx256m", f"-Djava.io.tmpdir={directory}", "-Dchronicle.analytics.disable=true",
             "-Dchronicle.announcer.disable=true"]
    java = os.path.join(PACKAGE, "target", "java")
    return ["java", *flags, *opens, "-cp", f"{java}:{java}/*", "ChroniclePeer", *args]


def play(cell, parents):
    """The results of one run, as a dictionary."""
    directory = os.path.join(parents[cell.row.where], f"run-{time.monotonic_ns()}")
    os.makedirs(directory)
    started = []
    try:
        return measure(cell, directory, started)
    except (Failed, OSError) as error:
        return {"error": without_places(str(error))}
    finally:
        for process in started:
            process.tell_to_end()
        for process in started:
            if process.child.args[0] in ("redis-server", "nats-server"):
                process.child.terminate()  # They do not look at their input.
            process.end(3)
        shutil.rmtree(directory, ignore_errors=True)


def measure(cell, directory, started):
    deadline = time.monotonic() + LIMIT_S
    port = free_port() if cell.row.peer == "nats" else 0

    # Who spins for a latency has a core for itself where there are enough: the scheduler, left to itself, puts two of them on one now and then, and both stand for 9 to 30 ms.
    cores = sorted(os.sched_getaffinity(0))
    are_pinned = cell.kind == "latency" and cell.row.wait == "spin" and cell.consumers < len(cores)

    def start(command, core=None):
        # At the front: consumers end first, a server last.
        started.insert(0, Process(command, directory, cores[core] if are_pinned and core is not None else None))
        return started[0]

    if server := server_command(cell.row, directory, port):
        await_server(cell.row, start(server), directory, port, deadline)
    producer = start(command(cell, "produce", directory, port), 0)
    producer.await_ready(deadline)
    consumers = [start(command(cell, "consume", directory, port, n), n + 1) for n in range(cell.consumers)]
    for consumer in consumers:
        consumer.await_ready(deadline)
    producer.go()
    sent = producer.result(deadline)
    seen = []
    for consumer in consumers:
        try:
            seen.append(consumer.result(deadline))
        except Failed:
            # Stopped, it still tells what it has.
            consumer.tell_to_end()
            seen.append(consumer.result(time.monotonic() + 2))
    return evaluate(cell, sent, seen)


def evaluate(cell, sent, seen):
    records = sent["sent"]
    ended = all(one["ended_ns"] > 0 for one in seen)
    last = max((one["ended_ns"] for one in seen), default=sent["end_ns"])
    lost = sum(records - one["received"] for one in seen)
    result = {
        "sent": records,
        "lost": lost,
        "disordered": sum(one["disordered"] for one in seen),
        "intact": ended and lost == 0 and all(one["total"] == sent["total"] for one in seen),
        "seconds_taken": round((last - sent["first_ns"]) / 1e9, 6) if ended else None,
        "producer_thread_cpu_ns": round(sent["thread_cpu_ns"] / records, 2),
        "producer_cpu_ns": round(sent["process_cpu_ns"] / records, 2),
        "consumers_cpu_ns": round(sum(one["process_cpu_ns"] for one in seen) / records, 2),
    }
    if ended:
        result["per_second"] = round(records / result["seconds_taken"])
    late = [one["late_ns"] for one in seen if one["late_ns"]]
    if late:
        # Of several consumers the worst, at each percentile.
        result["late_ns"] = {p: max(one[p] for one in late) for p in late[0]}
    return result

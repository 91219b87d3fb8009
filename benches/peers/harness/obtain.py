"""What can be had on this machine: builds and looks for the peers, and tells why one is missing. What it says of a missing one is what a tool said."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

import play

HERE = play.PACKAGE
VENV = os.path.join(HERE, "target", "venv")
# Of Python's packages: cmake, since Aeron wants a newer one than Debian's, and what makes the plots.
PYTHON_PACKAGES = ["cmake<4", "matplotlib<4"]
FEATURES = {"iceoryx2": "iceoryx2", "kekbit": "kekbit", "zeromq": "zeromq", "aeron": "aeron"}
# A program that a peer needs, and Debian's packages for it.
PROGRAMS = {"redis": ("redis-server", ["redis-server"]), "nats": ("nats-server", ["nats-server"]),
            "chronicle": ("mvn", ["maven", "default-jdk-headless"]), "go-immuta": ("go", ["golang-go"])}
# Libraries for building: a file by which they are known.
LIBRARIES = {"zeromq": (["zmq.h"], ["libzmq3-dev", "pkg-config"]), "aeron": (["uuid/uuid.h"], ["uuid-dev", "libclang-dev", "libbsd-dev"])}


def run(command, cwd=None, env=None):
    try:
        done = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout


def everything(wanted, install):
    """Builds and looks; for each wanted peer that is missing, why."""
    if install:
        install_packages(wanted)
    make_venv()
    missing = {}
    unbuilt = build([FEATURES[peer] for peer in wanted if peer in FEATURES])
    missing.update({peer: unbuilt[feature] for peer, feature in FEATURES.items() if feature in unbuilt and peer in wanted})
    for peer, (program, _) in PROGRAMS.items():
        if peer in wanted and not shutil.which(program):
            missing[peer] = f"{program} is not installed (--install does it)"
    if "chronicle" in wanted and "chronicle" not in missing and (reason := build_java()):
        missing["chronicle"] = reason
    if "go-immuta" in wanted and "go-immuta" not in missing:
        missing["go-immuta"] = try_go()
    return missing


def install_packages(wanted):
    packages = []
    for peer in wanted:
        if peer in PROGRAMS and not shutil.which(PROGRAMS[peer][0]):
            packages += PROGRAMS[peer][1]
        files, names = LIBRARIES.get(peer, ([], []))
        if any(not os.path.exists(os.path.join("/usr/include", name)) for name in files):
            packages += names
    if packages:
        print("installs", *packages, flush=True)
        run(["apt-get", "update", "-q"])
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        code, text = run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], env=env)
        if code != 0:
            print(text[-500:], file=sys.stderr)


def make_venv():
    python = os.path.join(VENV, "bin", "python")
    code, _ = run([python, "-c", "import matplotlib"])
    if code == 0 and os.path.exists(os.path.join(VENV, "bin", "cmake")):
        return
    print("makes a Python environment for the plots", flush=True)
    run([sys.executable, "-m", "venv", VENV])
    code, text = run([python, "-m", "pip", "install", "-q", *PYTHON_PACKAGES])
    if code != 0:
        # The results can be drawn later: see ./report.
        print(text[-500:], file=sys.stderr)


def build(features):
    """Builds with what can be built of `features`; the others, each with the reason."""
    print("builds the peers", flush=True)
    code, _ = cargo(features)
    if code == 0:
        return {}
    had, unbuilt = [], {}
    for feature in features:
        code, text = cargo([*had, feature])
        if code == 0:
            had.append(feature)
        else:
            unbuilt[feature] = first_error(text)
    code, text = cargo(had)
    if code != 0:
        sys.exit(text[-3000:])
    return unbuilt


def cargo(features):
    env = {**os.environ, "PATH": os.path.join(VENV, "bin") + os.pathsep + os.environ["PATH"]}
    return run(["cargo", "build", "--release", "--locked", "--no-default-features", "--features", ",".join(features)], HERE, env)


def first_error(text):
    lines = [line.strip() for line in text.splitlines()]
    at = next((n for n, line in enumerate(lines) if re.match(r"(CMake Error|error|fatal error|Could not run|thread .* panicked)", line)), len(lines) - 1)
    return play.without_places(" ".join(line for line in lines[at:at + 4] if line) if lines else "cargo said nothing")


def build_java():
    """Chronicle Queue's jars by Maven, and the program; `None`, or what went wrong."""
    jars = os.path.join(HERE, "target", "java")
    if not os.path.isdir(jars) or not any(name.startswith("chronicle-queue") for name in os.listdir(jars)):
        code, text = run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}"], os.path.join(HERE, "java"))
        if code != 0:
            return first_error(text)
    code, text = run(["javac", "-cp", f"{jars}/*", "-d", jars, "ChroniclePeer.java"], os.path.join(HERE, "java"))
    return None if code == 0 else first_error(text)


def try_go():
    """The Go package that immuta's format comes from."""
    with tempfile.TemporaryDirectory() as scratch:
        run(["go", "mod", "init", "peers"], scratch)
        code, text = run(["go", "get", "ella.to/immuta@latest"], scratch)
    if code == 0:
        return "it can be had here, but this package has no program for it: none could be tried when this was written"
    said = play.without_places(text.strip().splitlines()[-1].split(": ")[-1])
    return f"`go get ella.to/immuta@latest` says: {said}"


def machine(parents):
    def read(path):
        try:
            with open(path) as file:
                return file.read()
        except OSError:
            return ""

    model = re.search(r"model name\s*: (.*)", read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    systems = {name: run(["findmnt", "-n", "-o", "FSTYPE", "-T", path])[1].split()[0] for name, path in parents.items()}
    return {"processor": model.group(1) if model else "unknown", "cores": os.cpu_count(), "virtual": "hypervisor" in read("/proc/cpuinfo"),
            "memory_gib": round(int(memory.group(1)) / 2**20) if memory else 0, "linux": os.uname().release.split("-")[0], "file_systems": systems}


def versions(wanted, unavailable):
    lock = {}
    with open(os.path.join(HERE, "Cargo.lock")) as file:
        for name, version in re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', file.read()):
            lock.setdefault(name, version)
    found = {"immuta": lock["immuta"], "Rust": run(["rustc", "--version"])[1].split()[1]}
    commands = {"redis": ["redis-server", "--version"], "nats": ["nats-server", "--version"], "chronicle": ["java", "-version"]}
    for peer in wanted:
        if peer in unavailable:
            continue
        if peer in commands:
            number = re.search(r"\d+\.\d+(\.\d+)?", run(commands[peer])[1])
            found[{"redis": "Redis", "nats": "NATS server", "chronicle": "Java"}[peer]] = number.group(0) if number else "unknown"
    if "chronicle" in wanted and "chronicle" not in unavailable:
        with open(os.path.join(HERE, "java", "pom.xml")) as file:
            found["Chronicle Queue"] = re.search(r"chronicle-queue</artifactId>\s*<version>([^<]+)", file.read()).group(1)
    crates = {"iceoryx2": "iceoryx2", "kekbit": "kekbit", "aeron": "rusteron-client", "zeromq": "zmq"}
    found.update({crate: lock[crate] for peer, crate in crates.items() if peer in wanted and peer not in unavailable})
    if "zeromq" in wanted and "zeromq" not in unavailable:
        found["libzmq"] = run(["pkg-config", "--modversion", "libzmq"])[1].strip()
    return found

"""PID 1 compared with tini, dumb-init and catatonit: memory, wake-ups, orphans, signals.

Each program runs as PID 1 of its own PID namespace, in a control group of the benchmark. Without a control group, the
kernel divides a CPU among sessions (sched(7), autogroup), so a child in its own session would behave differently than
in a container. The programs take turns in rounds. The rounds are so short that other load on the machine affects all
programs. The table shows medians of the rounds with their standard errors.

The choice of the CPU that a process wakes up on changes the figures far more than the choice of the program. So the
promises are checked with all processes on one CPU, the same CPU for each program. The figures with a free choice of the
CPU are shown below.

The rule: a promise is met if our figure exceeds the best of the others by at most twice the standard error of the
median difference. Such a difference may be chance, and the table calls it level.
"""

import array
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import time

from engine import BINARY, DOMAIN, NAME, QUICK, docker, find, until_open
from table import difference, middle

HEADING = ("PID 1", "ours", "tini", "dumb-init", "catatonit", "ours less the best", "promise", "")

# How many instances of each program are observed while they idle, and for how many seconds.
IDLE, IDLE_TIME = (1, 2) if QUICK else (5, 10)
# In total, 20,000 orphans and at least 5,000 signals per program.
ORPHAN_ROUNDS, ORPHANS = (2, 500) if QUICK else (20, 1_000)
SIGNAL_ROUNDS, SIGNALS = (2, 200) if QUICK else (40, 500)

# A C program that gives PID 1 work.
SOURCE = pathlib.Path(__file__).with_name("load.c")


def measure(engine, directory):
    """Returns the rows of the table."""
    load = directory / f"{NAME}load"
    subprocess.run(["cc", "-O2", "-o", load, SOURCE], check=True)
    programs = {
        "ours": [BINARY, "init", "--"],
        **{name: [find(name), "--"] for name in ("tini", "dumb-init", "catatonit")},
    }
    rows = idle(engine, programs)
    everywhere = os.sched_getaffinity(0)
    with control_group():
        for where, cpus in (("one CPU", {max(everywhere)}), ("any CPU", everywhere)):
            judged = where == "one CPU"
            rows += orphans(programs, load, cpus, where, judged) + signals(programs, load, cpus, where, judged)
    return rows


@contextlib.contextmanager
def control_group():
    """Puts every process that is started meanwhile into a control group with a CPU share, as in a container."""
    root = pathlib.Path("/sys/fs/cgroup")
    version_1 = root / "cpu"
    if not version_1.is_dir():
        (root / "cgroup.subtree_control").write_text("+cpu")
    parent = version_1 if version_1.is_dir() else root
    own = [line.split(":")[2] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()
           if line.split(":")[1] in (("cpu", "cpu,cpuacct") if version_1.is_dir() else ("",))]
    group = parent / f"{NAME}{os.getpid()}"
    group.mkdir()
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (parent / own[0].lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


class Pid1:
    """A program as PID 1 of a new PID namespace, with a command as its child. It ends with the `with` block."""

    def __init__(self, program, command, cpus=None):
        def place():
            if cpus:
                os.sched_setaffinity(0, cpus)

        self.unshare = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *program, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=place,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # This ends PID 1, and with it the whole namespace.
        self.unshare.kill()
        self.unshare.communicate()

    def pid(self):
        """Its process id in our namespace. The program runs once its child has written a line."""
        [pid] = children(self.unshare.pid)
        return pid

    def expect(self, line):
        said = self.unshare.stdout.readline()
        if said != line:
            sys.exit(f"benches/run: {' '.join(map(str, self.unshare.args))}: {said}, not {line}")

    def go(self):
        self.unshare.stdin.write(b"\n")
        self.unshare.stdin.flush()


def children(pid):
    return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def cpu_time(pid):
    """Returns the CPU time in nanoseconds."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def wake_ups(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def memory(pid):
    """Returns resident and anonymous memory in kB, exactly. The per-CPU counters behind `status` lag."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return sizes["Rss:"], sizes["Anonymous:"]


def idle(engine, programs):
    """Every program with `sleep` as its child, several times, and ours with Prosody too, all at the same time."""
    engine.create("pid1", {
        "Env": [DOMAIN],
        "HostConfig": {"Binds": [f"{BINARY}:/usr/local/bin/prosody-entrypoint:ro"]},
    })
    until_open(engine, "pid1")
    server = str(engine.call("GET", f"/containers/{NAME}pid1/json")["State"]["Pid"])
    with contextlib.ExitStack() as stack:
        pids = {}
        for name, program in programs.items():
            # How much is mapped depends on how much of the file is in memory.
            pathlib.Path(program[0]).read_bytes()
            command = ["sh", "-c", "echo ready; exec sleep infinity"]
            started = [stack.enter_context(Pid1(program, command)) for _ in range(IDLE)]
            for one in started:
                one.expect(b"ready\n")
            pids[name] = [one.pid() for one in started]
        pids["server"] = [server]
        # Wake-ups caused by the start of the child are over by now.
        time.sleep(1)
        before = {pid: wake_ups(pid) for group in pids.values() for pid in group}
        time.sleep(IDLE_TIME)
        woken = {name: max(wake_ups(pid) - before[pid] for pid in group) for name, group in pids.items()}
        sizes = {name: [memory(pid) for pid in group] for name, group in pids.items()}
    resident, anonymous = (
        {name: statistics.median(size[kind] for size in group) for name, group in sizes.items()} for kind in (0, 1)
    )
    processes = docker("top", f"{NAME}pid1", "-eo", "pid,args").splitlines()[1:]
    beside = [line.split(maxsplit=1)[1] for line in processes if line.split()[0] != server]
    engine.remove("pid1")

    rows = []
    for what, key in (("beside sleep", "ours"), ("beside Prosody", "server")):
        for kind, values in (("resident", resident), ("anonymous", anonymous)):
            cells = [f"{values[name]:,.0f} kB" for name in (key, "tini", "dumb-init", "catatonit")]
            less = f"{values[key] - values['tini']:+,.0f} kB (tini)"
            # Clean resident pages belong to the file. The kernel takes them back when memory is short.
            own = kind == "anonymous"
            verdict = values[key] <= values["tini"] if own else None
            rows.append((f"{kind} memory, {what}", *cells, less, "≤ tini" if own else "", verdict))
    for what, key in (("beside sleep", "ours"), ("beside Prosody", "server")):
        cells = [str(woken[name]) for name in (key, "tini", "dumb-init", "catatonit")]
        rows.append((f"wake-ups in {IDLE_TIME} idle seconds, {what}", *cells, "", "0", woken[key] == 0))
    # Only the server.
    rows.append(("processes in the image beside PID 1", str(len(beside)), "", "", "", "", "1", len(beside) == 1))
    return rows


def orphans(programs, load, cpus, where, judged):
    """CPU time of PID 1 for the orphans of all rounds together."""
    times = {name: [] for name in programs}
    for _ in range(ORPHAN_ROUNDS):
        for name, program in programs.items():
            with Pid1(program, [load, "orphans", str(ORPHANS)], cpus) as one:
                one.expect(b"ready\n")
                pid = one.pid()
                before = cpu_time(pid)
                one.go()
                one.expect(b"done\n")
                # The remaining processes are the load itself and orphans that PID 1 has yet to reap.
                while len(children(pid)) > 1:
                    time.sleep(0.001)
                times[name].append((cpu_time(pid) - before) * ORPHAN_ROUNDS / 1e6)
    return [row(f"CPU time for {ORPHAN_ROUNDS * ORPHANS:,} orphans, {where}", times, "ms", judged)]


def signals(programs, load, cpus, where, judged):
    """Time from kill(2) of PID 1 until its child receives the signal."""
    medians, tails = ({name: [] for name in programs} for _ in range(2))
    for _ in range(SIGNAL_ROUNDS):
        for name, program in programs.items():
            with Pid1(program, [load, "signals", str(SIGNALS)], cpus) as one:
                one.expect(b"ready\n")
                one.go()
                times = array.array("Q")
                times.frombytes(one.unshare.stdout.read(times.itemsize * SIGNALS))
            medians[name].append(statistics.median(times) / 1e3)
            tails[name].append(statistics.quantiles(times, n=100)[98] / 1e3)
    what = f"a signal through PID 1, {where}"
    return [row(f"{what}, median", medians, "µs", judged), row(f"{what}, 99th percentile", tails, "µs", judged)]


def row(what, rounds, unit, judged):
    """Returns a row of medians. Ours is compared with the best of the others."""
    figures = {name: middle(values) for name, values in rounds.items()}
    best = min((name for name in rounds if name != "ours"), key=lambda name: figures[name][0])
    less, error = difference(rounds["ours"], rounds[best])
    level = ", level" if abs(less) <= 2 * error else ""
    cells = [f"{median:.1f} ± {error:.1f} {unit}" for median, error in figures.values()]
    promise, is_met = ("≤ the best", less <= 2 * error) if judged else ("", None)
    return (what, *cells, f"{less:+.1f} ± {error:.1f} {unit} ({best}{level})", promise, is_met)

"""The start and the memory of a server with many hosts, compared with the same Prosody and configuration under tini."""

import pathlib
import shutil
import socket
import sys
import time

from engine import BINARY, NAME, QUICK, find, pair

HOSTS = 100 if QUICK else 1_000
# How many seconds to wait for an answer. Without shared code, a host takes more than a tenth of a second.
PATIENCE = 3 * HOSTS

HEADING = (f"{HOSTS:,} virtual hosts", "ours", "peer", "ratio", "promise", "")

STREAM = ("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
          " version='1.0' to='{host}'>")


def measure(engine, directory):
    """Returns the rows of the table."""
    for program in (BINARY, find("tini")):
        shutil.copy(program, directory / pathlib.Path(program).name)
    (directory / "hosts").write_text("\n".join(f"host-{number}.example" for number in range(HOSTS)))
    ours, peer = pair(directory, ["PROSODY_VIRTUAL_HOSTS_FILE=/bench/hosts"], [f"{directory}:/bench:ro"])
    # Creates the certificates.
    engine.create("first", {**ours, "Cmd": ["render"]})
    engine.call("POST", f"/containers/{NAME}first/start")
    engine.call("POST", f"/containers/{NAME}first/wait")
    engine.remove("first")
    took, cpu, memory = start(engine, "ours", ours)
    peer_took, peer_cpu, peer_memory = start(engine, "peer", peer)
    return [
        ("container start to an answer", *seconds(took, peer_took), "≤ × 0.33", took <= peer_took / 3),
        ("CPU until then", *seconds(cpu, peer_cpu), "", None),
        ("memory then", f"{memory / 1024:.0f} MiB", f"{peer_memory / 1024:.0f} MiB", f"× {memory / peer_memory:.2f}",
         "≤ × 0.65", memory <= 0.65 * peer_memory),
    ]


def seconds(ours, peer):
    return f"{ours:.1f} s", f"{peer:.1f} s (tini)", f"× {ours / peer:.2f}"


def start(engine, name, options):
    """Starts a container. Returns the seconds until its server answers a stream, its CPU time until then in seconds,
    and the resident memory of the server in KiB."""
    engine.create(name, dict(options))
    before = time.perf_counter()
    engine.call("POST", f"/containers/{NAME}{name}/start")
    until_answer(engine, name)
    took = time.perf_counter() - before
    statistics = engine.call("GET", f"/containers/{NAME}{name}/stats?stream=false&one-shot=true")
    cpu = statistics["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    init = engine.call("GET", f"/containers/{NAME}{name}/json")["State"]["Pid"]
    server = pathlib.Path(f"/proc/{init}/task/{init}/children").read_text().split()[0]
    status = pathlib.Path(f"/proc/{server}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    engine.remove(name)
    return took, cpu, memory


def until_answer(engine, name):
    """Waits for the answer to a stream of a client. The port is open before, but until all hosts are there, nobody is
    answered."""
    deadline = time.perf_counter() + PATIENCE
    while time.perf_counter() < deadline:
        state = engine.call("GET", f"/containers/{NAME}{name}/json")
        if not state["State"]["Running"]:
            break
        [address] = [network["IPAddress"] for network in state["NetworkSettings"]["Networks"].values()]
        try:
            with socket.create_connection((address, 5222), timeout=PATIENCE) as client:
                client.sendall(STREAM.format(host=f"host-{HOSTS - 1}.example").encode())
                if b"<stream:features" in answer(client):
                    return
        except OSError:
            time.sleep(0.01)
    sys.exit(f"benches/run: {name}: the server does not answer within {PATIENCE} s")


def answer(client):
    """Returns what a server says until its features, or until it ends the connection."""
    said = b""
    while b"<stream:features" not in said:
        more = client.recv(4096)
        if not more:
            break
        said += more
    return said

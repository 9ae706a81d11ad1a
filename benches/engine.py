"""The binary and the image under test, and the Docker engine that runs them."""

import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The image's binary, on this machine.
BINARY = ROOT / "target/bench/prosody-entrypoint"
# Another build of the binary, for a comparison.
BEFORE = os.environ.get("BEFORE")
IMAGE = "prosody-entrypoint:latest"
NAME = "pe-bench-"
QUICK = bool(os.environ.get("QUICK"))

DOMAIN = "PROSODY_DOMAIN=chat.example"
# How many seconds to wait for a server that does not answer.
PATIENCE = 30


class Engine:
    """The Docker engine's HTTP API. A process for each call would add noise."""

    def __init__(self):
        address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not address.startswith("unix://"):
            sys.exit(f"benches/run: DOCKER_HOST is {address}: use an engine on this machine, unix://…")
        self.path = address.removeprefix("unix://")

    def call(self, method, path, body=None):
        """Returns the response: an object for JSON, None for an empty response, otherwise bytes."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.path)
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        is_json = answer.getheader("Content-Type") == "application/json"
        return json.loads(text) if is_json and text else text or None

    def create(self, name, options):
        """Creates a container without starting it."""
        options.setdefault("Image", IMAGE)
        # A health check during a measurement would be measured too.
        options["Healthcheck"] = {"Test": ["NONE"]}
        self.call("POST", f"/containers/create?name={NAME}{name}", options)

    def take_binary(self):
        """Copies the binary out of the image. One that was built here would have the C library of this machine, whose
        start may take a third of a millisecond longer in a virtual machine: older ones ask the processor more often.
        """
        BINARY.parent.mkdir(parents=True, exist_ok=True)
        self.create("binary", {})
        docker("cp", f"{NAME}binary:/usr/local/bin/prosody-entrypoint", str(BINARY))
        self.remove("binary")

    def remove(self, name):
        self.call("DELETE", f"/containers/{NAME}{name}?force=true&v=true")

    def clean_up(self):
        """Removes everything that this run or an earlier one has created."""
        filters = json.dumps({"name": [f"^/{NAME}"]})
        for container in self.call("GET", f"/containers/json?all=true&filters={quoted(filters)}"):
            self.call("DELETE", f"/containers/{container['Id']}?force=true&v=true")
        filters = json.dumps({"name": [f"^{NAME}"]})
        for volume in self.call("GET", f"/volumes?filters={quoted(filters)}").get("Volumes") or []:
            self.call("DELETE", f"/volumes/{volume['Name']}")


def quoted(text):
    return "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in text)


def docker(*arguments):
    command = ["docker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"benches/run: {' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def pair(directory, environment, mounts):
    """Returns the options of two containers: ours, and tini with the configuration that ours has rendered, without our
    script. Both programs are in the directory. Both containers have the same image and number of mounts."""
    (directory / "nothing.lua").touch()
    mounts = mounts + [f"{NAME}runtime:/run/prosody", f"{NAME}data:/var/lib/prosody"]
    ours = {
        "Env": environment,
        "HostConfig": {"Binds": mounts + [
            f"{directory}/prosody-entrypoint:/usr/local/bin/prosody-entrypoint:ro",
            f"{directory}/nothing.lua:/srv/nothing.lua:ro",
        ]},
    }
    peer = {
        "Entrypoint": ["/usr/local/bin/tini", "--"],
        "Cmd": ["prosody", "--config", "/run/prosody/current/prosody.cfg.lua", "-F"],
        "User": "prosody",
        "HostConfig": {"Binds": mounts + [
            f"{directory}/tini:/usr/local/bin/tini:ro",
            f"{directory}/nothing.lua:/run/prosody/live.lua:ro",
        ]},
    }
    return ours, peer


def find(program):
    """Returns the path of a peer on this machine."""
    return shutil.which(program) or sys.exit(f"benches/run: {program} is missing: install it")


def until_open(engine, name):
    """Starts an existing container. Returns the seconds until its port 5222 accepted a connection."""
    before = time.perf_counter()
    engine.call("POST", f"/containers/{NAME}{name}/start")
    networks = engine.call("GET", f"/containers/{NAME}{name}/json")["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in networks.values()]
    while True:
        with socket.socket() as client:
            client.settimeout(1)
            if client.connect_ex((address, 5222)) == 0:
                return time.perf_counter() - before
        if time.perf_counter() - before > PATIENCE:
            logs = docker("logs", f"{NAME}{name}")
            sys.exit(f"benches/run: {name}: port 5222 of {address} is not open after {PATIENCE} s\n{logs}")
        time.sleep(0.0002)

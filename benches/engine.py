"""What the benchmarks measure, and the Docker engine that they measure it in."""

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
BINARY = ROOT / "target/prosody-entrypoint"
# Another build of the binary, to compare with.
BEFORE = os.environ.get("BEFORE")
IMAGE = "prosody-entrypoint:latest"
NAME = "pe-bench-"
QUICK = bool(os.environ.get("QUICK"))

DOMAIN = "PROSODY_DOMAIN=chat.example"
# Seconds until a server that does not answer is given up.
PATIENCE = 30


class Engine:
    """The Docker engine's HTTP API, without the noise of a process for each call."""

    def __init__(self):
        address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not address.startswith("unix://"):
            sys.exit(f"benches/run: DOCKER_HOST is {address}: an engine on this machine is needed, unix://…")
        self.path = address.removeprefix("unix://")

    def call(self, method, path, body=None):
        """Returns the answer: an object for JSON, bytes for anything else, None for nothing."""
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
        """Makes a container, which is not started."""
        options.setdefault("Image", IMAGE)
        # A check that runs meanwhile would be measured too.
        options["Healthcheck"] = {"Test": ["NONE"]}
        self.call("POST", f"/containers/create?name={NAME}{name}", options)

    def remove(self, name):
        self.call("DELETE", f"/containers/{NAME}{name}?force=true&v=true")

    def clean_up(self):
        """Removes what this script made, also what an earlier run left behind."""
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


def find(program):
    """The path of a peer on this machine."""
    return shutil.which(program) or sys.exit(f"benches/run: {program} is missing: install it")


def until_open(engine, name):
    """Starts a container that was made; returns the seconds until its port 5222 took a connection."""
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

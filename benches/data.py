"""The time and memory of `backup` and `restore` with each storage, and the answers of the server that is saved. A tenth of
the data is also brought from files to SQLite by Prosody's own `prosody-migrator`."""

import contextlib
import io
import json
import os
import pathlib
import tarfile
import threading
import time

import live
from engine import NAME, QUICK, docker
from hosts import HOSTS, until_answer

USERS, MESSAGES = (100 if QUICK else 1_000), 100
TENTH = USERS // 10
HOST = f"host-{HOSTS - 1}.example"
PASSWORD = "correct horse"

HEADING = (f"{USERS:,} users with {MESSAGES} messages each", "took", "CPU", "memory", "promise", "")

STORAGES = {
    "files": (None, []),
    "SQLite": (None, ["PROSODY_DEFAULT_STORAGE=sqlite"]),
    "PostgreSQL": ("postgresql:17", ["PROSODY_DEFAULT_STORAGE=sql", "PROSODY_DB_DRIVER=PostgreSQL"]),
    "MariaDB": ("mariadb:latest", ["PROSODY_DEFAULT_STORAGE=sql", "PROSODY_DB_DRIVER=MySQL"]),
}

MIGRATOR = """
local stores = { "accounts", "roster", "archive-archive" }
input { hosts = { ["%s"] = stores }; type = "internal"; path = "/var/lib/prosody" }
output { type = "sql"; driver = "SQLite3"; database = "/var/lib/prosody/migrated.sqlite" }
""" % HOST


def measure(engine, directory):
    """Returns the rows of the table."""
    write_archive(directory / "all.tar", USERS)
    write_archive(directory / "tenth.tar", TENTH)
    (directory / "password").write_text(PASSWORD)
    (directory / "migrator.cfg.lua").write_text(MIGRATOR)
    rows = []
    for storage in STORAGES:
        rows += measure_storage(engine, directory, storage)
    return rows + compare(engine, directory)


def write_archive(path, users):
    """Writes a backup. The messages are in the order of their time, as a server has them in a database."""
    start, items = time.time() - 5 * 86400, []
    for user in range(users):
        name = f"user{user}"
        contacts = {f"user{(user + n) % users}@{HOST}": {"subscription": "both", "name": f"Contact {n}"} for n in range(1, 11)}
        items.append({"store": "accounts", "user": name, "keys": {"password": "x" * 20, "created": 1790000000}})
        items.append({"store": "roster", "user": name, "keys": contacts})
    for message in range(MESSAGES):
        for user in range(users):
            name, other, key = f"user{user}@{HOST}", f"user{(user + message) % users}@{HOST}", f"id-{message}-{user}"
            items.append({
                "store": "archive", "user": f"user{user}", "key": key, "when": start + message * 600 + user * 0.25, "with": other,
                "value": f"<message xmlns='jabber:client' type='chat' id='{key}' from='{name}/phone' to='{other}'><body>Message"
                f" {message}: it has the length of a usual one, and an entity, &amp;, and an umlaut, \u00fc.</body><origin-id"
                f" xmlns='urn:xmpp:sid:0' id='{key}'/><request xmlns='urn:xmpp:receipts'/><markable"
                " xmlns='urn:xmpp:chat-markers:0'/></message>",
            })
    lines = [json.dumps({"host": HOST, **item}) + "\n" for item in items]
    members = {"manifest.json": json.dumps({"format": 1, "hosts": {HOST: []}})}
    for first in range(0, len(lines), 2000):
        members[f"records/{first // 2000 + 1:06}.ndjson"] = "".join(lines[first:first + 2000])
    members["end.json"] = json.dumps({"records": len(lines), "files": 0})
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    path.chmod(0o644)


class Deployment:
    """The containers of one storage: `idle`, in which commands run, `server`, and a database if there is one."""

    def __init__(self, engine, directory, storage):
        self.engine, (image, environment) = engine, STORAGES[storage]
        self.options = {
            "Env": [f"PROSODY_VIRTUAL_HOSTS={HOST}", *environment],
            "HostConfig": {"Binds": [f"{directory}:/bench:ro", f"{NAME}{storage}:/var/lib/prosody"]},
        }
        self.names = []
        if image:
            variables = [f"{kind}_PASSWORD_FILE=/bench/password" for kind in ("POSTGRES", "MARIADB")]
            self.start("database", {"Image": f"prosody-entrypoint-test-{image}", "Env": variables,
                                    "HostConfig": {"Binds": [f"{directory}:/bench:ro"]}})
            networks = engine.call("GET", f"/containers/{NAME}database/json")["NetworkSettings"]["Networks"]
            [address] = [network["IPAddress"] for network in networks.values()]
            self.options["Env"] += [f"PROSODY_DB_HOST={address}", f"PROSODY_DB_PASSWORD={PASSWORD}"]
            # The server waits for the database, and makes the tables.
            self.serve()
            self.remove("server")
        self.start("idle", {**self.options, "Entrypoint": ["/bin/sleep", "infinity"]})

    def start(self, name, options):
        self.names.append(name)
        self.engine.create(name, dict(options))
        self.engine.call("POST", f"/containers/{NAME}{name}/start")

    def serve(self):
        self.start("server", self.options)
        until_answer(self.engine, "server")

    def remove(self, name):
        self.names.remove(name)
        self.engine.remove(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in reversed(self.names):
            self.engine.remove(name)

    def run(self, name, command, *options):
        """Runs a shell command. Returns its seconds, the CPU time of its Lua in seconds, and Lua's highest memory in KiB."""
        with Lua(self.engine, NAME + name) as lua:
            before = time.perf_counter()
            docker("exec", *options, NAME + name, "sh", "-c", command)
            return time.perf_counter() - before, lua.cpu, lua.memory


class Lua(threading.Thread):
    """Watches the next Lua processes in a container. Those before the longest one only look whether the database is there."""

    def __init__(self, engine, container):
        super().__init__(daemon=True)
        self.engine, self.container, self.cpu, self.memory, self.is_over = engine, container, 0, 0, False
        self.known = self.processes()

    def processes(self):
        top = self.engine.call("GET", f"/containers/{self.container}/top?ps_args=-eo%20pid,comm")
        return {pid for pid, name in top["Processes"] if name.startswith("lua")}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.join()

    def run(self):
        while not self.is_over:
            for process in self.processes() - self.known:
                with contextlib.suppress(OSError, StopIteration):
                    self.look(pathlib.Path("/proc") / process)
            time.sleep(0.05)

    def look(self, process):
        times = (process / "stat").read_text().rpartition(")")[2].split()
        status = (process / "status").read_text().splitlines()
        cpu = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
        memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        if cpu >= self.cpu:
            self.cpu, self.memory = cpu, memory


def measure_storage(engine, directory, storage):
    with Deployment(engine, directory, storage) as deployment:
        rows = [row(f"restore into {storage}", 30, *deployment.run("idle", "prosody-entrypoint restore /bench/all.tar"))]
        deployment.serve()
        docker("exec", f"{NAME}server", "prosodyctl", "register", "a", HOST, "secret")
        networks = engine.call("GET", f"/containers/{NAME}server/json")["NetworkSettings"]["Networks"]
        [address] = [network["IPAddress"] for network in networks.values()]
        with live.log_in(address, HOST) as session:
            pings = live.Pings(session)
            pings.start()
            time.sleep(1)
            idle, pings.longest = pings.longest, 0
            figures = deployment.run("server", "prosody-entrypoint backup >/dev/null")
            longest = pings.stop()
        rows.append(row(f"backup from {storage}", 20, *figures))
        rows.append((f"longest answer to a ping meanwhile (before: {idle * 1e3:.0f} ms)", f"{longest * 1e3:.0f} ms", "", "",
                     "≤ 100 ms", longest <= 0.1))
    return rows


def row(what, limit, took, cpu, memory):
    return (what, f"{took:.1f} s", f"{cpu:.1f} s", f"{memory / 1024:.0f} MiB", f"≤ {limit} s, ≤ 100 MB",
            took <= limit and memory * 1024 <= 100e6)


def compare(engine, directory):
    """A tenth of the users, from files to SQLite, by both programs."""
    with Deployment(engine, directory, "files") as deployment:
        docker("exec", f"{NAME}idle", "sh", "-c", "rm -rf /var/lib/prosody/host*")
        deployment.run("idle", "prosody-entrypoint restore /bench/tenth.tar")
        saved = deployment.run("idle", "prosody-entrypoint backup /tmp/backup.tar")
        migrated = deployment.run("idle", "prosody-migrator --config /bench/migrator.cfg.lua", "--user", "prosody")
        docker("cp", "-q", f"{NAME}idle:/tmp/backup.tar", str(directory / "backup.tar"))
        (directory / "backup.tar").chmod(0o644)
    with Deployment(engine, directory, "SQLite") as deployment:
        docker("exec", f"{NAME}idle", "sh", "-c", "rm -rf /var/lib/prosody/*.sqlite*")
        restored = deployment.run("idle", "prosody-entrypoint restore /bench/backup.tar")
    took, cpu = saved[0] + restored[0], saved[1] + restored[1]
    what = f"{TENTH} users from files to SQLite"
    return [
        (f"{what}: backup, restore", f"{took:.1f} s", f"{cpu:.1f} s", f"{max(saved[2], restored[2]) / 1024:.0f} MiB", "", None),
        (f"{what}: prosody-migrator", f"{migrated[0]:.1f} s", f"{migrated[1]:.1f} s", f"{migrated[2] / 1024:.0f} MiB", "", None),
        ("ratio", f"× {took / migrated[0]:.2f}", f"× {cpu / max(migrated[1], 0.01):.2f}", "", "", None),
    ]

"""How soon a reload has changed a running server, and how long the server answers nobody meanwhile."""

import base64
import contextlib
import socket
import ssl
import statistics
import subprocess
import threading
import time

from engine import NAME, QUICK, docker

SIZES = (10,) if QUICK else (10, 1_000)
ROUNDS = 3 if QUICK else 5
# How many seconds to wait for an effect.
PATIENCE = 600

HEADING = ("a reload, to its effect", "took", "", "", "promise", "")

STREAM = ("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
          " version='1.0' to='{host}'>")
PING = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"


def measure(engine, directory):
    """Returns the rows of the table."""
    (directory / "conf.d").mkdir(exist_ok=True)
    rows = []
    for size in SIZES:
        rows += measure_size(engine, directory, size)
    return rows


def measure_size(engine, directory, size):
    name = "live"
    own = directory / "conf.d" / "own.cfg.lua"
    hosts = [f"host-{number}.example" for number in range(size)]
    write_hosts = (directory / "hosts").write_text
    write_hosts("\n".join([*hosts, "new.example"]))
    own.write_text("")
    engine.create(name, {
        "Env": ["PROSODY_VIRTUAL_HOSTS_FILE=/bench/hosts"],
        "HostConfig": {"Binds": [f"{directory}:/bench:ro", f"{own.parent}:/etc/prosody/conf.d:ro"]},
    })
    engine.call("POST", f"/containers/{NAME}{name}/start")
    networks = engine.call("GET", f"/containers/{NAME}{name}/json")["NetworkSettings"]["Networks"]
    [address] = [network["IPAddress"] for network in networks.values()]
    until(lambda: "<stream:features" in opening(address, "new.example"))
    for host in ("host-0.example", "new.example"):
        docker("exec", f"{NAME}{name}", "prosodyctl", "register", "a", host, "secret")
    with log_in(address, "host-0.example") as witness, Log(name) as log:
        pings = Pings(witness)

        def reload(done):
            said = log.reloads
            before = time.perf_counter()
            engine.call("POST", f"/containers/{NAME}{name}/kill?signal=HUP")
            until(done)
            took = time.perf_counter() - before
            until(lambda: log.reloads > said)
            return took

        def logged():
            said = log.reloads
            return lambda: log.reloads > said

        took = {"host removed": [], "host added, to a login on it": [], "module enabled": [], "option of a module": [],
                "port opened": []}
        pings.start()
        for number in range(ROUNDS):
            write_hosts("\n".join(hosts))
            took["host removed"].append(reload(lambda: "host-unknown" in opening(address, "new.example")))
            write_hosts("\n".join([*hosts, "new.example"]))
            took["host added, to a login on it"].append(reload(lambda: log_in(address, "new.example")))
            module = 'VirtualHost "host-0.example" modules_enabled = { "lastactivity" }\n'
            own.write_text(module)
            took["module enabled"].append(reload(logged()))
            own.write_text(f"{module}smacks_hibernation_time = {300 + number}\n")
            took["option of a module"].append(reload(logged()))
            own.write_text(f"c2s_ports = {{ 5222, {15222 + number} }}\n")
            took["port opened"].append(reload(lambda: can_connect(address, 15222 + number)))
        longest = {"": pings.stop()}
        # Each of these reaches all hosts: the ports of c2s are opened anew, and TLS is set up anew.
        for what, content in (("option of c2s", "c2s_timeout = 200\n"), ("TLS option", "ssl = { protocol = 'tlsv1_3' }\n")):
            pings = Pings(witness)
            pings.start()
            own.write_text(content)
            took[what] = [reload(logged())]
            longest[f", {what}"] = pings.stop()
    engine.remove(name)
    limits = {"host added, to a login on it": 1.5 if size > 10 else 1, "TLS option": None}
    rows = []
    for what, times in took.items():
        limit, median = limits.get(what, 1), statistics.median(times)
        promise = (f"≤ {limit * 1e3:.0f} ms", median <= limit) if limit else ("", None)
        rows.append((f"{what}, {size:,} hosts", f"{median * 1e3:.0f} ms", "", "", *promise))
    # With few hosts, each compiles its modules for itself.
    for what, stall in longest.items():
        promise = ("≤ 200 ms", stall <= 0.2) if size > 10 else ("", None)
        rows.append((f"longest time without an answer{what}, {size:,} hosts", f"{stall * 1e3:.0f} ms", "", "", *promise))
    return rows


def until(question):
    """Asks until the answer is true, and returns it."""
    deadline = time.perf_counter() + PATIENCE
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError):
            if answer := question():
                return answer
        time.sleep(0.005)
    raise TimeoutError(f"no effect within {PATIENCE} s")


class Session:
    """A client's stream."""

    def __init__(self, address, host):
        self.host = host
        self.socket = socket.create_connection((address, 5222), timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, text, *ends):
        """Sends a text, and returns what comes up to one of the ends."""
        self.socket.sendall(text.encode())
        said = ""
        while not any(end in said for end in (*ends, "</stream:stream>")):
            more = self.socket.recv(65536)
            if not more:
                break
            said += more.decode()
        return said

    def open(self):
        return self.ask(STREAM.format(host=self.host), "</stream:features>")


def opening(address, host):
    with Session(address, host) as session:
        return session.open()


def can_connect(address, port):
    with socket.socket() as client:
        return client.connect_ex((address, port)) == 0


def log_in(address, host):
    """Returns a session of the host's user, or None if there is no such host or user."""
    session = Session(address, host)
    if "starttls" not in session.open():
        return session.socket.close()
    session.ask("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    session.socket = context.wrap_socket(session.socket, server_hostname=host)
    session.open()
    password = base64.b64encode(b"\0a\0secret").decode()
    auth = f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{password}</auth>"
    if "<success" not in session.ask(auth, "<success", "</failure>"):
        return session.socket.close()
    session.open()
    session.ask("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
    return session


class Pings(threading.Thread):
    """Asks again and again, and measures the longest answer."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.longest, self.is_over = session, 0, False

    def run(self):
        while not self.is_over:
            before = time.perf_counter()
            self.session.ask(PING, "id='p'", 'id="p"')
            self.longest = max(self.longest, time.perf_counter() - before)
            time.sleep(0.01)

    def stop(self):
        self.is_over = True
        self.join()
        return self.longest


class Log(threading.Thread):
    """Counts the reloads in a container's log."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.reloads = 0
        command = ["docker", "logs", "--follow", NAME + name]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def run(self):
        for line in self.process.stderr:
            self.reloads += "Reloading, " in line

"""The time from a start to the program and to a server that answers, compared with tini, and the size of the binary."""

import base64
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

from engine import BEFORE, BINARY, DOMAIN, NAME, PATIENCE, QUICK, docker, find, pair, until_open
from table import difference, ms

# Short rounds in turn, so that a slow phase of the machine affects both sides.
ROUNDS, RUNS = (3, 30) if QUICK else (30, 40)
HOST_RUNS = 3 if QUICK else 10
PAIRS = 3 if QUICK else 60

HEADING = ("what", "ours", "peer", "ratio, difference", "promise", "")


def measure(engine, directory):
    """Returns the rows of the table."""
    tools = Toolbox(engine, directory)
    rows = process_start(tools) + many_modules(tools, directory) + many_hosts(tools, directory)
    rows += many_certificates(tools, directory)
    if BEFORE:
        rows += beside_before(tools, directory)
    engine.remove(Toolbox.NAME)
    return rows + server_start(engine, directory) + binary_size()


class Toolbox:
    """A container that only waits for commands: the image, our new binary, tini and hyperfine."""

    NAME = "tools"

    def __init__(self, engine, directory):
        for program in ("tini", "hyperfine"):
            shutil.copy(find(program), directory / program)
        shutil.copy(BINARY, directory / "prosody-entrypoint")
        if BEFORE:
            shutil.copy(BEFORE, directory / "before")
        engine.create(self.NAME, {
            "Entrypoint": ["sleep", "infinity"],
            "Cmd": [],
            "HostConfig": {
                "Binds": [
                    f"{directory}:/bench:ro",
                    f"{directory}/tini:/usr/local/bin/tini:ro",
                    f"{directory}/prosody-entrypoint:/usr/local/bin/prosody-entrypoint:ro",
                ],
                "Tmpfs": {"/run": "mode=755", "/results": ""},
                "NetworkMode": "none",
            },
        })
        engine.call("POST", f"/containers/{NAME}{self.NAME}/start")

    def hyperfine(self, environment, warmup, runs, *commands):
        """Returns the times of all runs of each command, in seconds."""
        self.run(
            environment, "/bench/hyperfine", "--shell=none", "--style=none",
            f"--warmup={warmup}", f"--runs={runs}", "--export-json=/results/times.json", *commands,
        )
        results = json.loads(self.run([], "cat", "/results/times.json"))["results"]
        return [result["times"] for result in results]

    def run(self, environment, *command):
        """Returns the output of a command."""
        settings = [argument for variable in environment for argument in ("--env", variable)]
        return docker("exec", *settings, f"{NAME}{self.NAME}", *command)


def process_start(tools):
    """The complete start of a program that does no work itself: `true`."""
    ours, peer = [], []
    for turn in range(ROUNDS):
        # The first warm-up run creates the certificate. The first command finds the CPU less awake.
        commands = ["prosody-entrypoint true", "tini -- true"][:: 1 if turn % 2 else -1]
        times = dict(zip(commands, tools.hyperfine([DOMAIN], 5, RUNS, *commands)))
        ours.append(statistics.median(times["prosody-entrypoint true"]))
        peer.append(statistics.median(times["tini -- true"]))
    ratio = statistics.median(one / other for one, other in zip(ours, peer))
    ours, peer = statistics.median(ours), statistics.median(peer)
    return [("start to exec, PROSODY_DOMAIN", ms(ours), f"{ms(peer)} (tini -- true)", f"× {ratio:.2f}", "≤ × 1.5",
             ratio <= 1.5)]


def beside_before(tools, directory):
    """The same starts with this binary and another one, in turn. No start may be slower than before."""
    hosts = [{"host": f"host-{number}.example"} for number in range(10_000)]
    (directory / "hosts.json").write_text(json.dumps(hosts))
    names = ",".join(f"bench_{number}" for number in range(0, 500, 10))
    collection = [DOMAIN, "PROSODY_COMMUNITY_MODULES_DIR=/bench/collection"]
    many_hosts = ["PROSODY_VIRTUAL_HOSTS_FILE=/bench/hosts.json", "PROSODY_SELF_SIGNED_CERTIFICATES=false"]
    rows = []
    for what, environment, runs in [
        ("PROSODY_DOMAIN", [DOMAIN], RUNS // 2),
        ("50 modules of 500", [*collection, f"PROSODY_MODULES_ENABLED={names}"], RUNS // 4),
        ("10,000 virtual hosts", many_hosts, HOST_RUNS // 2),
    ]:
        now, before = [], []
        for turn in range(ROUNDS):
            commands = ["prosody-entrypoint true", "/bench/before true"][:: 1 if turn % 2 else -1]
            times = dict(zip(commands, tools.hyperfine(environment, 2, max(runs, 3), *commands)))
            now.append(statistics.median(times["prosody-entrypoint true"]))
            before.append(statistics.median(times["/bench/before true"]))
        took_longer, error = difference(now, before)
        now, before = statistics.median(now), statistics.median(before)
        rows.append((f"start to exec, {what}", ms(now), f"{ms(before)} (the binary before)",
                     f"× {now / before:.2f}, {took_longer * 1e3:+.2f} ± {error * 1e3:.2f} ms", "not slower",
                     took_longer <= 2 * error))
    return rows


def many_modules(tools, directory):
    """50 modules from a collection of 500, each with the median size of real modules. The comparison is the same start
    without them, plus the links created the way that shell entrypoints do."""
    collection = directory / "collection"
    body = 'local function on_event(event)\n\tmodule:log("debug", "an event from %s", event.origin.host);\nend\n' * 60
    for number in range(500):
        folder = collection / f"mod_bench_{number}"
        folder.mkdir(parents=True)
        # Half of the modules need another wanted module.
        need = f'module:depends("bench_{number + 10}")\n' if number % 20 == 0 else ""
        (folder / f"{folder.name}.lua").write_text(f'local st = require "util.stanza";\n{need}{body}')
    names = [f"bench_{number}" for number in range(0, 500, 10)]
    (directory / "links").write_text(
        "rm -rf /run/links && mkdir /run/links\n"
        f'for name in {" ".join(names)}; do ln -s "/bench/collection/mod_$name" "/run/links/mod_$name"; done\n'
    )
    plain = [DOMAIN, "PROSODY_COMMUNITY_MODULES_DIR=/bench/collection"]
    with_modules = f'env PROSODY_MODULES_ENABLED={",".join(names)} prosody-entrypoint true'
    commands = [with_modules, "env PROSODY_MODULES_ENABLED=ping prosody-entrypoint true", "sh /bench/links"]
    times = {command: [] for command in commands}
    for turn in range(ROUNDS):
        shifted = commands[turn % 3:] + commands[:turn % 3]
        for command, runs in zip(shifted, tools.hyperfine(plain, 3, RUNS // 2, *shifted)):
            times[command].append(statistics.median(runs))
    ratio, (modules, without, links) = (
        statistics.median(one / other for one, other in zip(times[commands[0]], times[commands[1]])),
        (statistics.median(times[command]) for command in commands),
    )
    return [
        ("start to exec, 50 modules of 500", ms(modules), f"{ms(without)} (no modules)", f"× {ratio:.2f}",
         "≤ 6 ms or × 1.7", modules <= 0.006 or ratio <= 1.7),
        ("", "", f"{ms(links)} (ln -s in a shell)", f"× {modules / links:.2f}", "", None),
    ]


def many_hosts(tools, directory):
    """Hosts from a file, without certificates. The peer of each count is the previous count."""
    rows, last = [], None
    for count in (1_000, 10_000, 100_000):
        hosts = [{"host": f"host-{number}.example"} for number in range(count)]
        (directory / "hosts.json").write_text(json.dumps(hosts))
        environment = ["PROSODY_VIRTUAL_HOSTS_FILE=/bench/hosts.json", "PROSODY_SELF_SIGNED_CERTIFICATES=false"]
        [times] = tools.hyperfine(environment, 2, HOST_RUNS, "prosody-entrypoint true")
        took = statistics.median(times)
        promise, is_met = "", None
        if count == 10_000:
            promise, is_met = "≤ 40 ms", took <= 0.040
        elif count == 100_000:
            # Ten times the hosts, plus a fifth because the caches do not hold all of the memory.
            promise, is_met = "≤ × 12", took <= 12 * last
        growth = f"× {took / last:.1f}" if last else ""
        peer = f"{ms(last)} (a tenth)" if last else ""
        rows.append((f"{count:,} virtual hosts", ms(took), peer, growth, promise, is_met))
        last = took
    return rows


def many_certificates(tools, directory):
    """100 hosts, each with one of the certificates. The peer of the first count is the same start without certificates,
    and the peer of the second count is the first.

    The started program is the server, because the server's certificates are watched too. A script with the server's
    name stands in for it, and prints its start time. The end of the process would be too late, because the kernel needs time to remove so many watches.
    """
    server, starts = directory / "prosody", directory / "starts"
    server.write_text('#!/bin/bash\necho "took $((${EPOCHREALTIME/./} - BEGIN))"\n')
    server.chmod(0o755)
    starts.write_text(
        "while [ $((runs++)) -lt $1 ]; do BEGIN=${EPOCHREALTIME/./} prosody-entrypoint /bench/prosody; done 2>&1\n"
    )
    hosts = [certificate_name(number) for number in range(0, 1_000, 10)]
    environment = [f'PROSODY_VIRTUAL_HOSTS={",".join(hosts)}', "PROSODY_SELF_SIGNED_CERTIFICATES=false"]

    def settings(count):
        sources = directory / f"certificates-{count}"
        if not sources.exists():
            write_certificates(sources, count)
        return [*environment, f"PROSODY_CERTIFICATES=/bench/{sources.name}/flat",
                f"PROSODY_IMPORT_CERTIFICATE_DIRECTORIES=/bench/{sources.name}/live"]

    cases = {
        "none": settings(0),
        "1,000": settings(1_000),
        "not watched": [*settings(1_000), "PROSODY_CERTIFICATE_RELOAD=false"],
        "2,000": settings(2_000),
    }
    check_certificates(tools, cases["1,000"], len(hosts))
    times = {case: [] for case in cases}
    for turn in range(ROUNDS):
        shifted = list(cases)[turn % 4:] + list(cases)[:turn % 4]
        for case in shifted:
            said = tools.run(cases[case], "bash", "/bench/starts", "6").splitlines()
            took = [int(line.removeprefix("took ")) / 1e6 for line in said if line.startswith("took ")]
            # The first run warms the caches.
            times[case].append(statistics.median(took[1:]))
    none, one, unwatched, more = (statistics.median(times[case]) for case in cases)
    growth = statistics.median(double / single for double, single in zip(times["2,000"], times["1,000"]))
    return [
        ("start to exec, 100 hosts, 1,000 certificates", ms(one), f"{ms(none)} (none there)", f"× {one / none:.1f}",
         "≤ 40 ms", one <= 0.040),
        ("", "", f"{ms(unwatched)} (not watched)", f"× {one / unwatched:.2f}", "", None),
        ("start to exec, 100 hosts, 2,000 certificates", ms(more), f"{ms(one)} (a half)", f"× {growth:.2f}",
         "≤ × 2.4", growth <= 2.4),
    ]


def certificate_name(number):
    """All names have the same length, so that one can replace another in a certificate."""
    return f"name-{number:05}.example"


def write_certificates(sources, count):
    """Half of the certificates are links into another folder, as certbot creates them, and half are pairs side by side.

    All are copies of one certificate with other names and signatures, because issuing each of them would take minutes.
    Nobody verifies the signatures here. The key is the same, in as many files as there are certificates.
    """
    for folder in ("flat", "live", "archive"):
        (sources / folder).mkdir(parents=True)
    if not count:
        return
    key, issuer, template = issue(sources, certificate_name(0))
    for number in range(count):
        name = certificate_name(number)
        der = template.replace(certificate_name(0).encode(), name.encode())
        der = der[:-32] + hashlib.sha256(name.encode()).digest()
        certificate = pem(der)
        if number // 10 % 2:
            write_key(sources / f"flat/{name}.key", key)
            (sources / f"flat/{name}.crt").write_text(certificate + issuer)
            continue
        for folder in ("live", "archive"):
            (sources / folder / name).mkdir()
        parts = {"cert": certificate, "chain": issuer, "fullchain": certificate + issuer}
        for part, text in parts.items():
            (sources / f"archive/{name}/{part}1.pem").write_text(text)
        write_key(sources / f"archive/{name}/privkey1.pem", key)
        for part in (*parts, "privkey"):
            (sources / f"live/{name}/{part}.pem").symlink_to(f"../../archive/{name}/{part}1.pem")


def issue(directory, name):
    """Returns the issuer's key and certificate as PEM, and a certificate for a name with this key as DER."""
    def openssl(*arguments):
        return subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True).stdout

    find("openssl")
    (directory / "names").write_text(f"subjectAltName=DNS:{name},DNS:*.{name}\n")
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem")
    authority = "/CN=Authority of the benchmark"
    openssl("req", "-x509", "-key", "key.pem", "-subj", authority, "-days", "90", "-out", "ca.pem")
    openssl("req", "-new", "-key", "key.pem", "-subj", f"/CN={name}", "-out", "request.pem")
    der = openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "key.pem", "-CAcreateserial",
                  "-days", "60", "-extfile", "names", "-outform", "DER")
    return (directory / "key.pem").read_text(), (directory / "ca.pem").read_text(), der


def pem(der):
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[start:start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def write_key(path, key):
    path.write_text(key)
    os.chmod(path, 0o600)


def check_certificates(tools, environment, count):
    """Stops the benchmark if a host has no certificate, because it would measure something else."""
    answer = tools.run(environment, "prosody-entrypoint", "certificates", "--json")
    found = [host for host in json.loads(answer)["hosts"] if host["from"] == "found"]
    if len(found) < count:
        sys.exit(f"benches/run: {len(found)} of {count} hosts have a certificate")


def server_start(engine, directory):
    """The complete start until the server answers, ours and the peer's.

    Prosody loads hosts and modules in a different order at each start, which changes the time by more than a tenth of
    a second. So the promise is checked with a small configuration, the same on both sides. The default configuration is
    shown too.
    """
    (directory / "conf.d").mkdir()
    (directory / "conf.d/few.cfg.lua").write_text(
        'modules_enabled = {}\nmodules_disabled = { "s2s"; "s2s_auth_certs"; "offline"; "message"; "presence"; "iq" }\n'
    )
    few = [f"{directory}/conf.d:/etc/prosody/conf.d:ro"]
    judged = server_pairs(engine, directory, "few modules", [DOMAIN, "PROSODY_COMPONENTS=[]"], few)
    shown = server_pairs(engine, directory, "default", [DOMAIN], [])
    return [judged, (*shown[:4], "", None), hundred_accounts(engine, directory)]


def server_pairs(engine, directory, what, environment, mounts):
    """Ours, and tini with our rendered configuration, in turn."""
    ours, peer = pair(directory, environment, mounts)
    return in_turn(engine, what, ours, peer, "tini, ready-made file", 0.005)


def hundred_accounts(engine, directory):
    """The same start with a hundred existing accounts, and without them."""
    def options(environment):
        return {
            "Env": [DOMAIN, "PROSODY_COMPONENTS=[]", *environment],
            "HostConfig": {"Binds": [
                f"{directory}/conf.d:/etc/prosody/conf.d:ro",
                f"{directory}/prosody-entrypoint:/usr/local/bin/prosody-entrypoint:ro",
                f"{NAME}data:/var/lib/prosody",
            ]},
        }

    accounts = " ".join(f"user{number}@chat.example:secret-{number}" for number in range(100))
    with_accounts = options([f"PROSODY_ACCOUNTS={accounts}"])
    engine.create("first", dict(with_accounts))
    until_open(engine, "first")
    deadline = time.perf_counter() + PATIENCE
    while "and 95 more" not in docker("logs", f"{NAME}first"):
        if time.perf_counter() > deadline:
            sys.exit(f"benches/run: 100 accounts were not created within {PATIENCE} s")
        time.sleep(0.05)
    engine.remove("first")
    return in_turn(engine, "100 accounts that exist", with_accounts, options([]), "none", 0.010)


def in_turn(engine, what, ours, peer, peer_name, promise):
    """Starts two kinds of containers repeatedly, and compares their times."""
    times = {"ours": [], "peer": []}
    for pair in range(PAIRS + 1):
        for name, options in (("ours", ours), ("peer", peer)):
            engine.create(name, dict(options))
            took = until_open(engine, name)
            engine.remove(name)
            # The first pair creates the certificate and the accounts, and warms the caches.
            if pair:
                times[name].append(took)
    took_longer, error = difference(times["ours"], times["peer"])
    medians = {name: ms(statistics.median(values)) for name, values in times.items()}
    return (f"container start to port 5222 open, {what}", medians["ours"], f"{medians['peer']} ({peer_name})",
            f"{took_longer * 1e3:+.1f} ± {error * 1e3:.1f} ms", f"≤ {promise * 1e3:.0f} ms", took_longer <= promise)


def binary_size():
    size = BINARY.stat().st_size
    return [("binary", f"{size / 1e6:.2f} MB", "", "", "≤ 6 MB", size <= 6_000_000)]

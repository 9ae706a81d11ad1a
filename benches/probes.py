"""The time of the health check and of each probe, on an idle server."""

import json
import shutil
import statistics

from engine import DOMAIN, NAME, QUICK, docker, find, until_open
from table import ms

RUNS = 100 if QUICK else 1_000
PROMISE = 0.005

HEADING = ("a check of an idle server", "took", "19 of 20 within", "", "promise", "")


def measure(engine, directory):
    """Returns the rows of the table."""
    name = "probes"
    shutil.copy(find("hyperfine"), directory / "hyperfine")
    engine.create(name, {"Env": [DOMAIN], "HostConfig": {"Binds": [f"{directory}:/bench:ro"]}})
    until_open(engine, name)
    rows = []
    for options in ("", " --live", " --ready", " --ready --json"):
        check = f"healthcheck{options}"
        docker("exec", f"{NAME}{name}", "/bench/hyperfine", "--shell=none", "--style=none", "--warmup=5",
               f"--runs={RUNS}", "--export-json=/tmp/times.json", f"prosody-entrypoint {check}")
        [result] = json.loads(docker("exec", f"{NAME}{name}", "cat", "/tmp/times.json"))["results"]
        took = statistics.median(result["times"])
        slow = statistics.quantiles(result["times"], n=20)[-1]
        rows.append((check, ms(took), ms(slow), "", "≤ 5 ms", took <= PROMISE))
    engine.remove(name)
    return rows

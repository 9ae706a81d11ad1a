#!/usr/bin/env python3
"""Reads dashboards into Grafana's types, which drop what they do not know, and prints each difference.

usage: check.py DASHBOARD.json
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def differences(given, read, path=""):
    if isinstance(given, dict) and isinstance(read, dict):
        for name, value in given.items():
            yield from differences(value, read.get(name), f"{path}.{name}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (one, other) in enumerate(zip(given, read)):
            yield from differences(one, other, f"{path}[{number}]")
    elif given != read:
        yield f"{path}: {given!r} is read as {read!r}"


# Panels and queries have types of their own.
register_default_plugins()
with open(sys.argv[1]) as file:
    given = json.load(file)
read = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
sys.exit("\n".join(differences(given, read)) or 0)

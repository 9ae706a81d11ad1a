#!/usr/bin/env python3
"""Turns the output of `kubectl kustomize` into what `podman kube play` takes.

usage: pod.py [StatefulSet|CronJob] <OUTPUT >MANIFEST

The StatefulSet becomes its pod and claims. The CronJob becomes a pod beside it.
"""

import sys

import yaml

wanted = sys.argv[1] if sys.argv[1:] else "StatefulSet"
played = []
for resource in yaml.safe_load_all(sys.stdin):
    kind, name = resource["kind"], resource["metadata"]["name"]
    if kind == "ConfigMap" or (kind == "Secret" and wanted == "StatefulSet"):
        played.append(resource)
    elif kind == "PersistentVolumeClaim" and wanted == "CronJob":
        # Podman does not give claims to `fsGroup`.
        resource["metadata"]["annotations"] = {"volume.podman.io/uid": "999", "volume.podman.io/gid": "999"}
        played.append(resource)
    elif kind == wanted == "StatefulSet":
        template = resource["spec"]["template"]
        name += "-0"
        volumes = template["spec"]["volumes"]
        for claim in resource["spec"]["volumeClaimTemplates"]:
            claim_name = claim["metadata"]["name"]
            volumes.append({"name": claim_name, "persistentVolumeClaim": {"claimName": f"{claim_name}-{name}"}})
            claim["metadata"]["name"] = f"{claim_name}-{name}"
            played.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
        template["metadata"]["name"] = name
        played.append({"apiVersion": "v1", "kind": "Pod", **template})
    elif kind == wanted == "CronJob":
        template = resource["spec"]["jobTemplate"]["spec"]["template"]
        template["metadata"]["name"] = name
        played.append({"apiVersion": "v1", "kind": "Pod", **template})
yaml.safe_dump_all(played, sys.stdout)

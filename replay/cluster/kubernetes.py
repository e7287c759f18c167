"""`--cluster k8s:`: an Indexed Job whose pod 0 is the coordinator and whose other pods are agents.

Nothing is sent to a cluster: the manifest is printed, and the user applies it with kubectl. A headless service
gives pod 0 a name. Agents and coordinator identify each other by the certificates of a Secret.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from replay.errors import UsageError
from replay.settings.scenario import Scenario

PORT = 7800
DATA, TLS = "/data", "/tls"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_FORM = "give --cluster k8s: or k8s:agents=4,image=registry.example/replay:1,name=replay"


@dataclass(frozen=True)
class Job:
    """The parameters of a manifest."""

    agents: int = 2
    image: str = "replay:latest"
    name: str = "replay"


def parse_job(text: str) -> Job:
    """Parse `agents=N,image=IMAGE,name=NAME`, each part optional. Raises UsageError if one is invalid."""
    given: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in ("agents", "image", "name") or not value:
            raise UsageError(f"--cluster k8s: {part!r} is not agents=N, image=IMAGE or name=NAME", hint=_FORM)
        given[key] = value
    agents = given.get("agents", "2")
    if not agents.isdigit() or not 1 <= int(agents) <= 1_000:
        raise UsageError(f"--cluster k8s: agents={agents}: give a number from 1 to 1,000", hint=_FORM)
    name = given.get("name", "replay")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--cluster k8s: name={name} is not a valid name in Kubernetes",
            hint="use up to 42 lowercase letters, digits and -, with no - at the start or end",
        )
    return Job(int(agents), given.get("image", "replay:latest"), name)


def entry_point(job: Job, run: Sequence[str], allow: Sequence[str]) -> str:
    """Return the shell command of every pod, which runs the coordinator or an agent, by the pod's index.

    `run` are the arguments of the run.
    """
    tls = {name: f"{TLS}/{name}.pem" for name in ("ca", "cert", "key")}
    coordinator = [
        *("replay", "run", *run, "--cluster", f"listen:0.0.0.0:{PORT},agents={job.agents}"),
        *(word for name, path in tls.items() for word in (f"--cluster-{name}", path)),
        *("-o", f"{DATA}/runs/{job.name}"),
    ]
    agent = [
        *("replay", "agent", "--connect", f"{job.name}-0.{job.name}:{PORT}"),
        *(word for name, path in tls.items() for word in (f"--{name}", path)),
        *(word for host in allow for word in ("--allow", host)),
    ]
    return f'if [ "$JOB_COMPLETION_INDEX" = 0 ]; then exec {shlex.join(coordinator)}; fi; exec {shlex.join(agent)}'


def manifest(job: Job, run: Sequence[str], scenario: Scenario) -> str:
    """Return the service and the Job as YAML documents, written as JSON, which is a subset of YAML."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": job.name},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"job-name": job.name},
            "ports": [{"name": "agents", "port": PORT}],
        },
    }
    container = {
        "name": "replay",
        "image": job.image,
        "command": ["/bin/sh", "-c", entry_point(job, run, scenario.allow)],
        "workingDir": DATA,
        "ports": [{"containerPort": PORT}],
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tls", "mountPath": TLS, "readOnly": True},
        ],
    }
    spec = {
        "subdomain": job.name,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{job.name}-data"}},
            {"name": "tls", "secret": {"secretName": f"{job.name}-tls", "defaultMode": 0o400}},
        ],
    }
    indexed = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name},
        "spec": {
            "completionMode": "Indexed",
            "completions": job.agents + 1,
            "parallelism": job.agents + 1,
            "backoffLimit": 0,
            "template": {"metadata": {"labels": {"app": job.name}}, "spec": spec},
        },
    }
    head = (
        f"# Pod 0 plans and merges, pods 1 to {job.agents} send. Before `kubectl apply`:\n"
        f"#   a volume claim {job.name}-data with the scenario and the trace, mounted at {DATA}\n"
        f"#   kubectl create secret generic {job.name}-tls --from-file=ca.pem --from-file=cert.pem --from-file=key.pem\n"
        f"#     (the certificate must name the host {job.name}-0.{job.name})\n"
        "# The result is in the claim, in runs/.\n"
    )
    return head + "\n---\n".join(json.dumps(one, indent=2) for one in (service, indexed)) + "\n"

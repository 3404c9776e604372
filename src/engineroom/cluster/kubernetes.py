"""The manifests of a cluster in Kubernetes, as text. Nothing is sent to a Kubernetes here.

    Secret ──▶ StatefulSet (one controller, a volume for the database) ◀── Service ◀── Deployment (engines)

The keys are made beforehand and are in the Secret: controller, engines and clients mount its files. So a pod that is
replaced has the same keys.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from .._version import __version__
from ..config import ConnectionInfo, with_rights
from ..errors import ConfigError

#: Where containers have the files of the Secret, the profile, and the database.
FILES, PROFILE, DATA = "/etc/engineroom", "/var/run/engineroom", "/var/lib/engineroom"
CLIENT_FILE, ENGINE_FILE = "ipcontroller-client.json", "ipcontroller-engine.json"
SECRET_FILE = "ipcontroller-secret.key"
#: The user and the group of the containers' processes: none that an image knows.
USER = 10001
#: Seconds that a pod has beyond the time for its tasks, before it is killed.
STOP_SECONDS = 15
#: Seconds that engines look for a controller that is being moved to another node.
PATIENCE_SECONDS = 900

#: Seconds that engines have to find a controller that was moved, before what they may run goes to others. Unfinished
#: tasks wait so long.
RECOVERY_SECONDS = 10

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|[KMGTPE]i?)?")


class KubernetesOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be chosen."""

    image: str  #: with Python, Engineroom and what tasks need
    name: str = "engineroom"  #: of all objects; several clusters of a namespace have different ones
    namespace: str = ""  #: "": the one that `kubectl apply` has
    n: int = 1  #: how many pods with engines
    engines_per_pod: int = 1
    cpu: str = "1"  #: of a pod with engines: requested, and its limit
    memory: str = "2Gi"  #: the same
    gpus: int = 0  #: of a pod with engines, which share them as the resource `gpu`
    gpu_resource: str = "nvidia.com/gpu"  #: Kubernetes' name for them
    controller_cpu: str = "1"
    controller_memory: str = "1Gi"
    storage: str = "10Gi"  #: the size of the volume of the database
    storage_class: str = ""  #: "": the default one
    port: int = 5000
    grace: int = 30  #: seconds that engines have to finish what they run when their pod is to end
    pull_secret: str = ""  #: the Secret with which the image is pulled

    def check(self) -> None:
        """Raises ConfigError if a value cannot be used."""
        if not self.image or any(letter.isspace() for letter in self.image):
            raise ConfigError(f"an image is needed: the name of a container image with Engineroom; got {self.image!r}")
        for option in ("name", "namespace", "pull_secret", "storage_class"):
            value = getattr(self, option)
            if (value or option == "name") and not _NAME.fullmatch(value):
                raise ConfigError(f"{option} is made of at most 42 small letters, digits and '-'; got {value!r}")
        for option in ("cpu", "memory", "controller_cpu", "controller_memory", "storage"):
            value = getattr(self, option)
            if not _QUANTITY.fullmatch(value):
                raise ConfigError(f"{option} is a quantity of Kubernetes, like 2, 500m or 4Gi; got {value!r}")
        for option, least in (("n", 0), ("engines_per_pod", 1), ("gpus", 0), ("grace", 0), ("port", 1)):
            value = getattr(self, option)
            if value < least:
                raise ConfigError(f"{option} is a number, {least} or more; got {value}")
        if self.port > 65535:
            raise ConfigError(f"port is a number up to 65535; got {self.port}")

    @property
    def host(self) -> str:
        """The name by which pods find the controller: those of the same namespace, or of all if it is named."""
        return f"{self.name}.{self.namespace}.svc" if self.namespace else self.name


def new_connection(options: KubernetesOptions, certificate: str) -> ConnectionInfo:
    """A connection file with a new key. Outside of Kubernetes, `kubectl port-forward` makes its second address true."""
    return ConnectionInfo(
        url=f"tcp://{options.host}:{options.port}",
        other_urls=(f"tcp://127.0.0.1:{options.port}",),
        key=secrets.token_hex(32),
        certificate=certificate,
        location=options.host,
        version=__version__,
    )


def secret(options: KubernetesOptions, connection: ConnectionInfo, certificate_secret: str) -> dict[str, Any]:
    """The Secret with the connection file, and with the secret of the controller's certificate."""
    inside = with_rights(msgspec.structs.replace(connection, other_urls=()), "engine")
    files = {CLIENT_FILE: connection, ENGINE_FILE: inside}
    contents = {name: json.dumps(msgspec.to_builtins(info), indent=1) for name, info in files.items()}
    contents[SECRET_FILE] = certificate_secret
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(options, options.name),
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in contents.items()},
    }


def manifests(options: KubernetesOptions) -> list[dict[str, Any]]:
    """All objects but the Secret."""
    return [_service(options), _controller(options), _engines(options)]


def _metadata(options: KubernetesOptions, name: str, part: str = "") -> dict[str, Any]:
    place = {"namespace": options.namespace} if options.namespace else {}
    return {"name": name, **place, "labels": _labels(options, part)}


def _labels(options: KubernetesOptions, part: str = "") -> dict[str, str]:
    component = {"app.kubernetes.io/component": part} if part else {}
    return {"app.kubernetes.io/name": "engineroom", "app.kubernetes.io/instance": options.name, **component}


def _service(options: KubernetesOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(options, options.name),
        "spec": {
            "selector": _labels(options, "controller"),
            "publishNotReadyAddresses": True,  # engines need not wait for the next probe
            "ports": [{"name": "engineroom", "port": options.port, "targetPort": "engineroom"}],
        },
    }


def _controller(options: KubernetesOptions) -> dict[str, Any]:
    """One pod, never two at a time: a StatefulSet promises that, and a database has one controller."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": options.storage}}}
    if options.storage_class:
        claim["storageClassName"] = options.storage_class
    container = {
        "name": "controller",
        "command": [
            "ipcontroller",
            f"--profile-dir={PROFILE}/profile",
            "--ip=*",
            f"--port={options.port}",
            f"--location={options.host}",
            f"--identity={FILES}/{CLIENT_FILE}",
            f"--db-url=sqlite:///{DATA}/tasks.db",
            "--keep-tasks",
            f"--IPController.recovery_grace={RECOVERY_SECONDS}",
        ],
        "ports": [{"name": "engineroom", "containerPort": options.port}],
        "readinessProbe": {"tcpSocket": {"port": "engineroom"}, "periodSeconds": 5},
        "resources": _resources(options.controller_cpu, options.controller_memory),
    }
    volume = {"name": "data", "mountPath": DATA}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(options, f"{options.name}-controller", "controller"),
        "spec": {
            "replicas": 1,
            "serviceName": options.name,
            "selector": {"matchLabels": _labels(options, "controller")},
            "template": _pod(options, "controller", container, [CLIENT_FILE, SECRET_FILE], [volume], STOP_SECONDS),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def _engines(options: KubernetesOptions) -> dict[str, Any]:
    container = {
        "name": "engines",
        "command": [
            "ipengine",
            f"--profile-dir={PROFILE}/profile",
            f"--n={options.engines_per_pod}",
            f"--file={FILES}/{ENGINE_FILE}",
            f"--timeout={PATIENCE_SECONDS}",
            f"--grace={options.grace}",
            *([f"--resources=gpu={options.gpus}"] if options.gpus else []),
        ],
        "resources": _resources(
            options.cpu, options.memory, {options.gpu_resource: str(options.gpus)} if options.gpus else {}
        ),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(options, f"{options.name}-engines", "engines"),
        "spec": {
            "replicas": options.n,
            "selector": {"matchLabels": _labels(options, "engines")},
            "template": _pod(options, "engines", container, [ENGINE_FILE], [], options.grace + STOP_SECONDS),
        },
    }


def _resources(cpu: str, memory: str, devices: Mapping[str, str] = {}) -> dict[str, Any]:
    """Requests and limits are the same: a pod that has what it asked for is the last to be evicted."""
    asked = {"cpu": cpu, "memory": memory, **devices}
    return {"requests": asked, "limits": asked}


def _pod(
    options: KubernetesOptions,
    part: str,
    container: Mapping[str, Any],
    files: list[str],
    mounts: list[dict[str, Any]],
    grace: int,
) -> dict[str, Any]:
    # Each file by itself (`subPath`): anybody may write to the folder of a whole mounted Secret, as its mode says.
    keys = [
        {"name": "keys", "mountPath": f"{FILES}/{name}", "subPath": name, "readOnly": True} for name in files
    ]
    return {
        "metadata": {"labels": _labels(options, part)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "shareProcessNamespace": True,  # the first process of the pod then takes in orphans of tasks
            "terminationGracePeriodSeconds": grace,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"imagePullSecrets": [{"name": options.pull_secret}]} if options.pull_secret else {}),
            "containers": [
                {
                    **container,
                    "image": options.image,
                    "env": [{"name": "HOME", "value": PROFILE}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [*keys, {"name": "profile", "mountPath": PROFILE}, *mounts],
                }
            ],
            "volumes": [
                {"name": "keys", "secret": {"secretName": options.name, "defaultMode": 0o440}},
                {"name": "profile", "emptyDir": {}},
            ],
        },
    }


# ---------------------------------------------------------------------------------------------- YAML


def yaml(objects: list[dict[str, Any]]) -> str:
    """Objects as documents of YAML. Texts are in quotes, as in JSON, which is YAML, too."""
    return "".join("\n".join(["---", *_lines(each), ""]) for each in objects)


def _lines(value: Any) -> Iterator[str]:
    """The lines of a dict or a list that is not empty."""
    items = value.items() if isinstance(value, dict) else ((None, each) for each in value)
    for key, each in items:
        start = "- " if key is None else f"{key}:"
        if isinstance(each, dict | list) and each:
            inner = list(_lines(each))
            if key is None:
                yield f"- {inner[0]}"
                inner = inner[1:]
            else:
                yield start
            yield from (f"  {line}" for line in inner)
        else:
            yield f"{start}{'' if key is None else ' '}{json.dumps(each)}"

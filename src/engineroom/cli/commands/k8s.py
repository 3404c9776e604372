"""`engineroom k8s`: the manifests of a cluster in Kubernetes."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from traitlets import Bool, Integer, Unicode

from ...cluster.kubernetes import KubernetesOptions, manifests, new_connection, secret, yaml
from ...transport import new_identity
from ..base import BASE_FLAGS, EngineroomApp, UsageError

_DEFAULT = KubernetesOptions(image="")
#: Options that are named alike here and there.
_OPTIONS = KubernetesOptions.__struct_fields__


class K8s(EngineroomApp):
    """Print the manifests of a cluster in Kubernetes: a controller with a volume for its database, and engines.

    manifest: print them, for `kubectl apply -f -`. They hold a Secret with new keys: do not show them around. Later, to
    change the number of engines or the image, use --no-secret: the keys stay. Nothing is sent to a Kubernetes.
    """

    name = "engineroom"
    description = __doc__
    usage = "engineroom k8s manifest --image=IMAGE [options]"
    positional: ClassVar[tuple[int, int, str]] = (1, 1, "COMMAND")
    completes: ClassVar[tuple[str, ...]] = ("manifest",)
    examples = """
engineroom k8s manifest --image=registry.example.org/lab/engines:7 -n 8 | kubectl apply -f -
engineroom k8s manifest --image=registry.example.org/lab/engines:8 -n 20 --no-secret | kubectl apply -f -
engineroom k8s manifest --image=lab/engines:7 -n 2 --engines-per-pod=4 --cpu=4 --memory=16Gi --gpus=1 > cluster.yaml
"""
    aliases: Any = {
        "image": "K8s.image",
        "n": "K8s.n",
        "engines-per-pod": "K8s.engines_per_pod",
        "name": "K8s.name_of_all",
        "namespace": "K8s.namespace",
        "cpu": "K8s.cpu",
        "memory": "K8s.memory",
        "gpus": "K8s.gpus",
        "gpu-resource": "K8s.gpu_resource",
        "controller-cpu": "K8s.controller_cpu",
        "controller-memory": "K8s.controller_memory",
        "storage": "K8s.storage",
        "storage-class": "K8s.storage_class",
        "port": "K8s.port",
        "grace": "K8s.grace",
        "pull-secret": "K8s.pull_secret",
    }
    flags: Any = {
        "no-secret": (
            {"K8s": {"with_secret": False}},
            "leave out the Secret: the one that is there, with its keys, stays",
        ),
        "no-config": BASE_FLAGS["no-config"],
    }

    image = Unicode("", help="The container image of controller and engines, with Engineroom in it.").tag(config=True)
    n = Integer(_DEFAULT.n, help="How many pods with engines.").tag(config=True)
    engines_per_pod = Integer(_DEFAULT.engines_per_pod, help="How many engines each pod has.").tag(config=True)
    name_of_all = Unicode(_DEFAULT.name, help="The name of the cluster's objects.").tag(config=True)
    namespace = Unicode("", help="The namespace; default: that of `kubectl apply`.").tag(config=True)
    cpu = Unicode(_DEFAULT.cpu, help="CPUs of a pod with engines.").tag(config=True)
    memory = Unicode(_DEFAULT.memory, help="Memory of a pod with engines.").tag(config=True)
    gpus = Integer(0, help="GPUs of a pod; its engines share them as the resource gpu. Default: none.").tag(config=True)
    gpu_resource = Unicode(_DEFAULT.gpu_resource, help="Kubernetes' name for GPUs.").tag(config=True)
    controller_cpu = Unicode(_DEFAULT.controller_cpu, help="CPUs of the controller.").tag(config=True)
    controller_memory = Unicode(_DEFAULT.controller_memory, help="Memory of the controller.").tag(config=True)
    storage = Unicode(_DEFAULT.storage, help="The size of the database's volume.").tag(config=True)
    storage_class = Unicode("", help="The class of that volume; default: Kubernetes' default.").tag(config=True)
    port = Integer(_DEFAULT.port, help="The port of the controller.").tag(config=True)
    grace = Integer(
        _DEFAULT.grace, help="Seconds that engines have to finish what they run when their pod is to end."
    ).tag(config=True)
    pull_secret = Unicode("", help="The Secret with which the image is pulled, if one is needed.").tag(config=True)
    with_secret = Bool(True, help="Whether the Secret is printed.").tag(config=True)

    def start(self) -> None:
        [command] = self.extra_args
        if command != "manifest":
            raise UsageError(f"there is no `engineroom k8s {command}`; there is manifest")
        given = {option: getattr(self, option) for option in _OPTIONS if option != "name"}
        options = KubernetesOptions(name=self.name_of_all, **given)
        options.check()
        objects = manifests(options)
        if self.with_secret:
            certificate, certificate_secret = new_identity()
            objects.insert(0, secret(options, new_connection(options, certificate), certificate_secret))
        sys.stdout.write(yaml(objects))

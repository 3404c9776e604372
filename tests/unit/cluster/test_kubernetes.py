"""The manifests of a cluster in Kubernetes: valid by its own schemas, and without a key where others can read it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from support import kubernetes

from engineroom.cli.commands.k8s import K8s
from engineroom.cli.engineroom import main
from engineroom.cluster import kubernetes as product
from engineroom.cluster.kubernetes import KubernetesOptions, manifests, new_connection, secret
from engineroom.errors import ConfigError
from engineroom.messages.rights import key_with_rights
from engineroom.transport import new_identity

EVERYTHING = KubernetesOptions(
    image="registry.example.org:5000/lab/engines:7",
    name="night",
    namespace="lab",
    n=4,
    engines_per_pod=8,
    cpu="7500m",
    memory="16Gi",
    gpus=2,
    storage="1.5Ti",
    storage_class="fast",
    port=4711,
    grace=120,
    pull_secret="registry",
)


def objects(options: KubernetesOptions) -> list[dict[str, Any]]:
    """All objects, as Kubernetes reads them."""
    certificate, hidden = new_identity()
    made = [secret(options, new_connection(options, certificate), hidden), *manifests(options)]
    return list(yaml.safe_load_all(product.yaml(made)))


def by_kind(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in found}


@pytest.fixture(params=kubernetes.VERSIONS)
def schemas(request: pytest.FixtureRequest) -> Iterator[kubernetes.Schemas]:
    if why := kubernetes.problem():
        pytest.skip(f"NOT TESTED: {why}")
    made = kubernetes.Schemas(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("options", [KubernetesOptions(image="engines"), EVERYTHING], ids=["default", "everything"])
def test_each_object_is_valid(schemas: kubernetes.Schemas, options: KubernetesOptions):
    found = objects(options)
    assert [each["kind"] for each in found] == ["Secret", "Service", "StatefulSet", "Deployment"]
    for each in found:
        schemas.check(each)


def test_the_schemas_notice_what_is_wrong(schemas: kubernetes.Schemas):
    deployment = by_kind(objects(EVERYTHING))["Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    for wrong in ({"containers": None}, {"containerz": []}, {"terminationGracePeriodSeconds": "30"}):
        broken = {**deployment, "spec": {**deployment["spec"], "template": {"spec": {**pod, **wrong}}}}
        with pytest.raises(jsonschema.ValidationError):
            schemas.check(broken)


def test_what_was_chosen_is_there():
    found = by_kind(objects(EVERYTHING))
    assert all(each["metadata"]["namespace"] == "lab" for each in found.values())
    names = [each["metadata"]["name"] for each in found.values()]
    assert names == ["night", "night", "night-controller", "night-engines"]
    engines = found["Deployment"]["spec"]
    pod = engines["template"]["spec"]
    [container] = pod["containers"]
    assert engines["replicas"] == 4
    assert container["image"] == "registry.example.org:5000/lab/engines:7"
    assert container["resources"]["limits"] == {"cpu": "7500m", "memory": "16Gi", "nvidia.com/gpu": "2"}
    assert {"--n=8", "--resources=gpu=2", "--grace=120"} <= set(container["command"])
    assert pod["terminationGracePeriodSeconds"] > 120
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    controller = found["StatefulSet"]["spec"]
    assert controller["replicas"] == 1
    [claim] = controller["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1.5Ti"
    assert claim["spec"]["storageClassName"] == "fast"
    assert found["Service"]["spec"]["ports"][0]["port"] == 4711


def test_each_name_that_refers_to_something_refers_to_what_is_there():
    found = by_kind(objects(EVERYTHING))
    for kind in ("StatefulSet", "Deployment"):
        spec = found[kind]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"] == labels
        pod = spec["template"]["spec"]
        [container] = pod["containers"]
        volumes = {each["name"] for each in pod["volumes"]} | {
            each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])
        }
        assert {each["name"] for each in container["volumeMounts"]} == volumes
        assert pod["volumes"][0]["secret"]["secretName"] == found["Secret"]["metadata"]["name"]
        files = {each["subPath"] for each in container["volumeMounts"] if "subPath" in each}
        assert files <= set(found["Secret"]["data"])
    controller = found["StatefulSet"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"] == controller["metadata"]["labels"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == controller["spec"]["containers"][0]["ports"][0]["name"]
    assert found["StatefulSet"]["spec"]["serviceName"] == found["Service"]["metadata"]["name"]


def test_the_key_is_in_the_secret_alone():
    found = objects(EVERYTHING)
    contents = {name: base64.b64decode(value).decode() for name, value in found[0]["data"].items()}
    client = json.loads(contents["ipcontroller-client.json"])
    engine = json.loads(contents["ipcontroller-engine.json"])
    assert client["url"] == engine["url"] == "tcp://night.lab.svc:4711"
    assert client["other_urls"] == ["tcp://127.0.0.1:4711"]  # as kubectl port-forward opens it
    assert engine["other_urls"] == []
    assert engine["key"] == key_with_rights(client["key"], "engine")
    assert engine["rights"] == "engine"
    others = json.dumps(found[1:])
    assert client["key"] not in others
    assert contents["ipcontroller-secret.key"] not in others


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": ""}, "an image is needed"),
        ({"image": "two words"}, "an image is needed"),
        ({"name": "Night"}, "name is made of at most 42 small letters"),
        ({"name": ""}, "name is made of"),
        ({"namespace": "a_b"}, "namespace is made of"),
        ({"n": -1}, "n is a number, 0 or more; got -1"),
        ({"engines_per_pod": 0}, "engines_per_pod is a number, 1 or more"),
        ({"cpu": "four"}, "cpu is a quantity of Kubernetes, like 2, 500m or 4Gi; got 'four'"),
        ({"memory": "4 GB"}, "memory is a quantity"),
        ({"storage": ""}, "storage is a quantity"),
        ({"port": 70000}, "up to 65535"),
        ({"grace": -1}, "grace is a number, 0 or more"),
    ],
)
def test_values_that_cannot_be_used_are_refused(given: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        KubernetesOptions(**{"image": "engines", **given}).check()


@pytest.fixture
def command() -> Iterator[Any]:
    """Runs `engineroom k8s`, as a new process does."""

    def run(*words: str) -> int:
        K8s.clear_instance()
        return main(["k8s", *words])

    yield run
    K8s.clear_instance()


def test_the_command_prints_them(command: Any, capsys: pytest.CaptureFixture[str]):
    assert command("manifest", "--image=engines", "-n", "3", "--name=night", "--no-config") == 0
    found = by_kind(list(yaml.safe_load_all(capsys.readouterr().out)))
    assert found["Deployment"]["spec"]["replicas"] == 3
    assert found["Secret"]["metadata"]["name"] == "night"
    assert command("manifest", "--image=engines", "--no-secret") == 0
    assert set(by_kind(list(yaml.safe_load_all(capsys.readouterr().out)))) == {"Service", "StatefulSet", "Deployment"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["manifest"], 1, "an image is needed"),
        (["apply"], 2, "there is no `engineroom k8s apply`; there is manifest"),
        ([], 2, "an argument is missing"),
        (["manifest", "--image=x", "-n", "many"], 2, "-n expects an int, not 'many'"),
        (["manifest", "--imag=x"], 2, "Did you mean --image?"),
    ],
)
def test_a_command_that_makes_no_sense_says_so(
    command: Any, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    assert command(*words) == code
    assert said in capsys.readouterr().err

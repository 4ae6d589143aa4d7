"""The Kubernetes manifests: parsed, and held together with each other, the commands, the routes and the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from redis import Redis as RedisClient
from sqlalchemy import text

from api.health import router
from jobs.database import open_database
from jobs.settings import QUEUES, Settings
from stack.servers import Redis
from temperd.doctor import CHECKS
from tests.deploy.test_deploy import COMMANDS, TARGETS, VARIABLES, VERSION
from worker.queue import Doorbell

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
BASE = FOLDER / "base"
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
WORKLOADS = ("Deployment", "Job")


def read(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def rendered(name):
    """What kustomize makes of it."""
    if not (kubectl := shutil.which("kubectl")):
        pytest.skip("kubectl is not here to render it")
    done = subprocess.run([kubectl, "kustomize", FOLDER / name], capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def labels_of(document):
    return document["spec"]["template"]["metadata"]["labels"]


def pods(documents):
    for document in documents:
        if document["kind"] in WORKLOADS:
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(documents):
    for name, pod in pods(documents):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield name, container


def named(documents, kind, name):
    (found,) = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    return found


@pytest.fixture(scope="module", params=["as written", "base", "overlays/gpu"])
def manifests(request):
    """The base as it is written, and what kustomize makes of base and overlay, where there is one."""
    if request.param != "as written":
        return rendered(request.param)
    files = [path for path in BASE.rglob("*.yaml") if path.name not in ("kustomization.yaml", "secret.example.yaml")]
    return [document for path in sorted(files) for document in read(path)]


@pytest.fixture(scope="module")
def given():
    """Keys of the ConfigMap and of the Secret."""
    config = [line.partition("=") for line in (BASE / "config.env").read_text().splitlines()]
    (secret,) = read(BASE / "secret.example.yaml")
    assert secret["metadata"]["name"] == "temper-secrets"
    assert not any(key.startswith("#") and "PASSWORD" in key for key, _, _ in config)
    return {key: value for key, sign, value in config if sign and not key.startswith("#")}, secret["stringData"]


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: str(path.parent.relative_to(FOLDER)))
def test_what_a_kustomization_names_is_there_and_nothing_else(path):
    content = read(path)[0]
    folder = path.parent
    files = [folder / name for name in (*content.get("resources", ()), *content.get("configurations", ()))]
    files += [folder / patch["path"] for patch in content.get("patches", ()) if "path" in patch]
    files += [folder / name for each in content.get("configMapGenerator", ()) for name in each.get("envs", ())]
    for file in files:
        assert (file / "kustomization.yaml").exists() if file.is_dir() else file.exists(), file
    there = {file for file in folder.iterdir() if not file.is_dir()} - {path, BASE / "secret.example.yaml"}
    assert there == {file for file in files if file.parent == folder and not file.is_dir()}
    for image in content.get("images", ()):
        assert image["name"] in [f"temper-{target}" for target in TARGETS]
        assert image["newTag"] == VERSION


def test_everything_is_there(manifests):
    found = {(document["kind"], document["metadata"]["name"]) for document in manifests}
    assert {
        ("Namespace", "temper"), ("ServiceAccount", "temper"), ("Job", "temper-migrate"), ("Service", "temper-api"),
        ("Deployment", "temper-api"), ("Deployment", "temper-worker"), ("Deployment", "temper-reconciler"),
        ("PodDisruptionBudget", "temper-api"), ("PodDisruptionBudget", "temper-worker"),
        ("ScaledObject", "temper-worker"), ("NetworkPolicy", "temper"), ("NetworkPolicy", "temper-api"),
    } <= found  # fmt: skip
    assert len(found) == len(manifests)


def test_every_pod_is_confined(manifests):
    assert [*pods(manifests)]
    for _name, pod in pods(manifests):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == 10001
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == "temper"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("emptyDir" in volume for volume in pod["volumes"])
    for _name, container in containers(manifests):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is context.get("privileged", False) is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_every_command_is_real(manifests):
    for name, container in containers(manifests):
        image, _, tag = container["image"].partition(":")
        assert image in [f"temper-{target}" for target in TARGETS]
        assert tag in ("", VERSION)
        arguments = container.get("args", [image.removeprefix("temper-")])
        assert arguments[0] in COMMANDS, name
        if arguments[0] == "doctor":
            assert arguments[1] in CHECKS
            assert arguments[2] == "--wait"


def test_probes_ask_what_answers(manifests):
    paths = {route.path for route in router.routes}
    for name, container in containers(manifests):
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container.get(kind, {})
            if "httpGet" in probe:
                assert probe["httpGet"]["path"] in paths
                assert ports[probe["httpGet"]["port"]] == 8000
            if "exec" in probe:
                assert probe["exec"]["command"] == ["temperd", "doctor", "here"]
                assert kind == "readinessProbe", f"{name}: a database that is away is no reason for a restart"
                assert probe["timeoutSeconds"] >= 20, "it starts a Python"
    for name, pod in pods(manifests):
        if name != "temper-migrate":
            assert pod["containers"][0]["readinessProbe"]


def test_selectors_select(manifests):
    deployments = [document for document in manifests if document["kind"] == "Deployment"]
    for deployment in deployments:
        wanted = deployment["spec"]["selector"]["matchLabels"].items()
        matching = [each["metadata"]["name"] for each in deployments if wanted <= labels_of(each).items()]
        assert matching == [deployment["metadata"]["name"]]
    for document in manifests:
        spec, name = document.get("spec", {}), document["metadata"]["name"]
        if document["kind"] == "Service":
            wanted = spec["selector"]
            ports = named(manifests, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]["ports"]
            assert [port["targetPort"] for port in spec["ports"]] == [port["name"] for port in ports]
        elif document["kind"] == "PodDisruptionBudget":
            wanted = spec["selector"]["matchLabels"]
        elif document["kind"] == "NetworkPolicy" and spec["podSelector"]:
            wanted = spec["podSelector"]["matchLabels"]
            assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == [8000]
        else:
            continue
        matching = [each["metadata"]["name"] for each in deployments if wanted.items() <= labels_of(each).items()]
        assert matching == [name]


def test_every_variable_comes_from_somewhere_and_goes_somewhere(manifests, given):
    config, secret = given
    assert {key for key in {**config, **secret} if key.startswith("TEMPER_")} <= VARIABLES
    assert not config.keys() & secret.keys()
    for _name, container in containers(manifests):
        sources = container.get("envFrom", [])
        maps = [each["configMapRef"]["name"] for each in sources if "configMapRef" in each]
        assert all(re.fullmatch(r"temper-config(-\w+)?", each) for each in maps)
        assert all(each["secretRef"]["name"] == "temper-secrets" for each in sources if "secretRef" in each)
        variables = {**config, **secret} if sources else {}
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                assert reference["name"] == "temper-secrets"
                assert reference["key"] in secret
            variables[variable["name"]] = variable.get("value", "-")
        values = {key[7:].lower(): value for key, value in variables.items() if key.startswith("TEMPER_")}
        settings = Settings(**values)
        assert settings.database_url
        assert (settings.broker_url and settings.store_url) or container["name"] == "migrate"


def test_workers_have_the_time_to_save_and_the_queue_that_scales_them(manifests, given):
    scalers = [document for document in manifests if document["kind"] == "ScaledObject"]
    variables = {**given[0], **given[1]}
    for scaler in scalers:
        pod = named(manifests, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= Settings.model_fields["drain_seconds"].default + 20
        (queue,) = [each["value"] for each in pod["containers"][0]["env"] if each["name"] == "TEMPER_QUEUES"]
        waiting, running = (trigger["metadata"] for trigger in scaler["spec"]["triggers"])
        assert waiting["listName"] == queue
        assert f"queue = '{queue}'" in running["query"]
        assert queue in QUEUES
        for metadata in (waiting, running):
            assert {value for key, value in metadata.items() if key.endswith("FromEnv")} <= variables.keys()
        formula = scaler["spec"]["advanced"]["scalingModifiers"]["formula"]
        assert set(re.findall(r"\w+", formula)) == {trigger["name"] for trigger in scaler["spec"]["triggers"]}
    assert scalers


def test_the_queue_is_a_list_of_its_name_and_the_query_is_one(url):
    with Redis() as server, RedisClient(port=server.port) as client:
        Doorbell(server.url).ring_now("cpu", "job_1")
        assert client.type("cpu") == b"list"
        assert client.llen("cpu") == 1
    (scaler,) = read(BASE / "worker" / "scaling.yaml")
    engine = open_database(url)
    with engine.connect() as connection:
        query = scaler["spec"]["triggers"][1]["metadata"]["query"]
        assert connection.scalar(text(query)) == 0
    engine.dispose()

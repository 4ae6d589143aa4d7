"""Images, compose file and locks: parsed, checked, and held against the commands and settings that they name."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from pydantic import SecretStr

from jobs.settings import Settings
from temperd.__main__ import app

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
COMMANDS = {command.name or command.callback.__name__ for command in app.registered_commands}
TARGETS = ("api", "worker")
OURS = {f"temper-{target}:{VERSION}": target for target in TARGETS}
VARIABLES = {f"TEMPER_{name.upper()}" for name in Settings.model_fields}


def seconds(text):
    return int(text.removesuffix("s"))


def lock(name):
    return set((ROOT / name).read_text().splitlines())


# --- what is installed


def test_what_runs_is_a_part_of_what_is_tested():
    running, tested = lock("requirements-run.lock"), lock("requirements.lock")
    assert running < tested
    assert not [line for line in running if "://" in line or line.startswith("-")], "no address of an index"
    names = {re.split(r"[=\[ ]", line)[0] for line in running}
    needed = {re.split(r"[>=\[ ]", line)[0] for line in PROJECT["project"]["dependencies"]}
    only_tests = {re.split(r"[>=\[ ]", line)[0] for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert needed <= names
    assert not names & only_tests


# --- Dockerfile


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Instructions by stage, those of the stage that it is made from first."""
    parser = DockerfileParser(path=str(tmp_path_factory.mktemp("docker")))
    parser.content = (ROOT / "Dockerfile").read_text()
    found, current = {}, []
    for entry in parser.structure:
        name, value = entry["instruction"], entry["value"]
        if name == "FROM":
            base, _, stage = value.partition(" AS ")
            current = found[stage] = [*found.get(base, [("BASE", base)])]
        elif name != "COMMENT":
            current.append((name, value))
    return found


def last(instructions, name):
    return [value for each, value in instructions if each == name][-1]


def test_bases_have_a_tag_and_nothing_comes_from_elsewhere(stages):
    text = (ROOT / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)
    for instructions in stages.values():
        assert instructions[0] == ("BASE", "${PYTHON_IMAGE}")
        assert not [value for name, value in instructions if name == "ADD"]
        assert not [value for name, value in instructions if "://" in value and name != "HEALTHCHECK"]
    assert ":latest" not in text


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_a_command_of_ours_as_nobody_in_particular(stages, target):
    instructions = stages[target]
    user = last(instructions, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "numeric: Kubernetes cannot tell whether a name is root"
    after = instructions[instructions.index(("USER", user)) + 1 :]
    assert not [value for name, value in after if name in ("RUN", "COPY")]
    assert yaml.safe_load(last(instructions, "ENTRYPOINT")) == ["tini", "--", "temperd"]
    assert yaml.safe_load(last(instructions, "CMD"))[0] == target
    assert target in COMMANDS
    assert last(instructions, "STOPSIGNAL") == "SIGTERM"
    environment = dict(pair.split("=") for pair in shlex.split(last(instructions, "ENV")))
    assert {name for name in environment if name.startswith("TEMPER_")} <= VARIABLES
    assert environment["HOME"] == environment["TEMPER_DATA_DIR"] == last(instructions, "WORKDIR")


def test_each_target_says_how_it_is(stages):
    from api.health import router

    paths = {route.path for route in router.routes}
    assert re.search(r"127\.0\.0\.1:8000(/\w+)'", last(stages["api"], "HEALTHCHECK"))[1] in paths
    assert last(stages["worker"], "HEALTHCHECK").endswith('CMD ["temperd", "doctor", "here"]')
    assert "doctor" in COMMANDS


def test_images_are_built_from_what_they_need_and_nothing_else(stages):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*", "everything is left out, but"
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert sent == packages | {"README.md", "pyproject.toml", "requirements.lock", "requirements-run.lock"}
    assert all((ROOT / name).exists() for name in sent)
    copied = {value.split()[0] for name, value in stages["temper"] if name == "COPY"}
    assert copied == {"requirements-run.lock", "."}
    for target in TARGETS:
        assert all(value.startswith("--from=") for name, value in stages[target] if name == "COPY")
    installs = [value for name, value in stages["temper"] if name == "RUN" and "--requirement" in value]
    assert all("--requirement /src/requirements-run.lock" in value and "--no-deps" in value for value in installs)


# --- docker-compose.yml


COMPOSE_FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES = COMPOSE["services"]
OF_OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_it_is_a_compose_file():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE_FILE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_whole_service_is_there():
    assert {"api", "worker", "worker-gpu", "reconciler", "migrate", "postgres", "redis", "s3"} == set(SERVICES)
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["worker-gpu"]
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & service.keys()
    for port in service.get("ports", ()):
        assert re.fullmatch(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+", port), "to this machine alone, unless told otherwise"


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_has_a_tag(name):
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-\w+)?(@sha256:[0-9a-f]{64})?", image)
    if name in OF_OURS:
        assert SERVICES[name]["build"]["target"] == OURS[image]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_how_it_is(name):
    service = SERVICES[name]
    check = service.get("healthcheck")
    if service["restart"] == "no":
        assert check == {"disable": True}, "it ends"
    elif name in OF_OURS:
        assert check is None, "the image's own, see above"
    else:
        assert check["test"][0] in ("CMD", "CMD-SHELL")


def test_what_they_wait_for_is_there_and_can_be_waited_for():
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            once = SERVICES[other]["restart"] == "no"
            assert how == {"condition": "service_completed_successfully" if once else "service_healthy"}
            assert "profiles" not in SERVICES[other]
        for volume in service.get("volumes", ()):
            assert re.sub(r"^\$\{\w+:-(\w+)\}", r"\1", volume).partition(":")[0] in COMPOSE["volumes"]
        assert set(service["networks"]) <= set(COMPOSE["networks"])
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name in ("postgres", "redis", "s3", "migrate"):
        assert SERVICES[name]["networks"] == ["inside"]


@pytest.mark.parametrize("name", OF_OURS)
def test_commands_and_settings_are_real(name):
    service = OF_OURS[name]
    assert (service.get("command") or [OURS[service["image"]]])[0] in COMMANDS
    environment = service["environment"]
    assert {key for key in environment if key.startswith("TEMPER_")} <= VARIABLES
    given = {
        key.removeprefix("TEMPER_").lower(): value
        for key, value in environment.items()
        if key.startswith("TEMPER_") and value is not None
    }
    Settings(**given)
    assert "database_url" in given
    if name != "migrate":
        assert {"broker_url", "store_url"} <= given.keys()


def test_a_worker_has_the_time_to_save():
    drain = Settings.model_fields["drain_seconds"].default
    for name in ("worker", "worker-gpu"):
        assert seconds(SERVICES[name]["stop_grace_period"]) >= drain + 20


def test_every_queue_is_served():
    from jobs.settings import QUEUES

    served = [SERVICES[name]["environment"]["TEMPER_QUEUES"].split(",") for name in ("worker", "worker-gpu")]
    assert sorted(queue for queues in served for queue in queues) == sorted(QUEUES)


def test_nothing_has_a_default_password():
    """What the compose file takes from .env is in .env.example, and what is secret is empty there and asked for."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z0-9_]+=", line))
    found = re.findall(r"\$\{(\w+)(:[-?])([^}]*)\}", COMPOSE_FILE.read_text())
    used = {name: (how, text) for name, how, text in found}
    assert "${" not in re.sub(r"\$\{\w+:[-?][^}]*\}", "", COMPOSE_FILE.read_text())
    passed_on = {key for service in OF_OURS.values() for key, value in service["environment"].items() if value is None}
    assert example.keys() == used.keys() | passed_on
    for name, (how, default) in used.items():
        if name.endswith(("PASSWORD", "KEY")):
            assert (how, example[name]) == (":?", "")
        else:
            assert (how, example[name]) == (":-", default)
    for name in passed_on:
        field = name.removeprefix("TEMPER_").lower()
        default, shown = Settings.model_fields[field].default, example[name]
        assert str(default.get_secret_value() if isinstance(default, SecretStr) else default) == shown


def test_every_setting_is_explained():
    text = (ROOT / "docs" / "deploy.md").read_text()
    assert set(re.findall(r"`(TEMPER_[A-Z_]+)`", text)) - {"TEMPER_URL"} == VARIABLES

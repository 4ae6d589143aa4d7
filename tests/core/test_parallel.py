"""Several processes do one job as one does: the same weights, counts, reports and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from core import launch
from core.__main__ import EXIT_FAILED, EXIT_LOST, EXIT_OK, EXIT_STOPPED, work
from core.defenses import DEFENSES
from core.errors import TooFewDevicesError
from core.models import ImageShape
from core.parallel import ALONE
from core.prepared import Workdir
from core.spec import JobSpec
from tests.core.ranks import do
from tests.core.workdirs import make_workdir, save, small_data
from tests.service import alive, children

RANKS = 3
NETWORK = {
    "sequential": [
        {"conv2d": {"out_channels": 6, "kernel_size": 5, "stride": 3, "bias": False}},
        "batch_norm2d",
        "relu",
        "flatten",
        {"linear": {"out_features": 10}},
    ]
}
AUGMENT = {"augment": ["crop", "flip"]}
LINF, L2 = {"eps": 0.05}, {"norm": "l2", "eps": 1.0}
PGD = {"attack": {"name": "pgd", "steps": 2}}
TRAIN = {
    # under l2 where a gradient within rounding of zero would change its sign
    "aft": ({"name": "aft", "steps": 2}, LINF, {"ema": 0.8, "clip_norm": 0.5, **AUGMENT}),
    "free-at": ({"name": "free-at", "replays": 2}, L2, {"epochs": 4}),
    "atta": ({"name": "atta", "reset_every": 5}, L2, AUGMENT),
    "dra": (
        {"name": "dra", "attack": {"name": "dra", "steps": 2}, "replay": "dual", "dual_step": 1},
        LINF,
        {"ema": 0.8},
    ),
    "trades": ({"name": "trades", "attack": {"name": "kl-pgd", "steps": 2}}, L2, {"clip_norm": 0.5}),
    "dra-alternate": ({"name": "dra", "replay": "alternate", **PGD}, LINF, {}),
    "mart": ({"name": "mart", "craft_in": "train", **PGD}, L2, {"label_smoothing": 0.1}),
    "rst": ({"name": "rst", **PGD}, L2, {"optimizer": {"name": "muon", "lr": 0.01}}),
    "yopo": ({"name": "yopo", "full_passes": 2, "layer_steps": 2}, LINF, AUGMENT),
    "patch-augment": ("patch-augment", LINF, {"mixed_precision": True}),
}
TOLERANCE = 1e-4  # equal but for rounding: 1e-6; and some room for a sign
COARSE = {"patch-augment": 0.05, "trades": 2e-3, "ifgsm-at": 2e-3}  # bfloat16; small differences of predictions
TRAIN |= {name: (name, L2, {}) for name in DEFENSES.names() if name not in TRAIN and DEFENSES[name].trains}
RESUMED = ("aft", "free-at", "atta", "dra")


def make(root: Path, arrays, defense, threat=LINF, training=None, *, scale: float = 1, **spec) -> Path:
    """A work folder with random weights and 110 training images: ten held out, 49, 49 and two in a batch."""
    content = {
        "model": {"architecture": NETWORK},
        "defense": defense,
        "threat": threat,
        "training": {
            "epochs": 2,
            "batch_size": 49,
            "held_out": 10,
            "optimizer": {"name": "sgd", "lr": 0.02},
            "schedule": "constant",
            "augment": [],
            "select": "last",
            **(training or {}),
        },
        "evaluation": {"samples": 20, "allow_low_baseline": True, "diagnose": False},
        **spec,
    }
    if defense == "none":
        content["training"] = None
    root.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    net = JobSpec.model_validate(content).model.architecture.build(10, ImageShape(1, 28, 28))
    checkpoint = save(root / "model.pt", {key: value * scale for key, value in net.state_dict().items()})
    make_workdir(root, content, checkpoint, small_data(root / "data.npz", arrays, 110, 40))
    return root


def start(*arguments: str) -> subprocess.Popen:
    """A Python program beside this one, as the supervisor starts it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, arrays) -> Path:
    """Jobs done by three ranks, some of them begun or ended by one process; ``NAME.RANK.json`` has the results."""
    folder, jobs = tmp_path_factory.mktemp("parallel"), []

    def job(name: str, kind: str, root: Path, **stop: int) -> None:
        jobs.append({"name": name, "kind": kind, "root": str(root), "stop": stop})

    for name, (defense, threat, training) in TRAIN.items():
        whole = make(folder / name, arrays, defense, threat, training)
        shutil.copytree(whole, folder / f"one-{name}")
        if name in RESUMED:
            begun = shutil.copytree(whole, folder / f"begun-by-one-{name}")
            assert do({"kind": "train", "root": begun, "stop": {"steps": 5}}, ALONE)["ended"] == "Stopped"
            job(f"begun-by-one-{name}", "train", begun)
            job(f"begun-{name}", "train", shutil.copytree(whole, folder / f"begun-{name}"), steps=5)
        job(name, "train", whole)
    job("stopped", "train", make(folder / "stopped", arrays, "natural"), questions=3 + 2)
    job("one-rank-fails", "one_rank_fails", make(folder / "one-rank-fails", arrays, *TRAIN["aft"]))
    report = make(folder / "report", arrays, *TRAIN["aft"], evaluation={"samples": 4, "allow_low_baseline": True})
    shutil.copytree(report, folder / "one-report")
    assert do({"kind": "whole_run", "root": report, "stop": {"questions": 70}}, ALONE)["status"] == EXIT_STOPPED
    job("report", "whole_run", report)
    job("batch-norm", "batch_norm", folder)
    job("other-norm", "other_norm", folder)
    job("evaluate", "evaluate", make(folder / "evaluate", arrays, "none"))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    with start("tests.core.ranks", "start", str(folder), str(RANKS)) as process:
        assert process.wait(timeout=300) == 0
    return folder


def results(folder: Path, name: str) -> dict:
    """What all ranks came to."""
    first, *others = (json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(RANKS))
    assert others == [first] * (RANKS - 1)
    return first


def end_of(root: Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The shipped weights, and the state that the defense left."""
    saved = torch.load(Workdir(root).saved_training()[0], weights_only=True)
    return torch.load(Workdir(root).checkpoint("pt"), weights_only=True), saved["defense"]


def assert_equal(one: Path, other: Path, tolerance: float = TOLERANCE) -> None:
    for expected, got in zip(end_of(one), end_of(other), strict=True):
        assert expected.keys() == got.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                got[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}"
            )


@pytest.fixture(scope="module")
def alone(folder) -> dict[str, dict]:
    """The same jobs by one process."""
    return {name: do({"kind": "train", "root": folder / f"one-{name}"}, ALONE) for name in TRAIN}


@pytest.mark.parametrize("name", TRAIN)
def test_three_ranks_train_as_one_does(name, folder, alone):
    """Batches of 49 leave uneven parts, and one of two images cannot be split; state and counts are whole."""
    got, expected = results(folder, name), alone[name]
    assert_equal(folder / f"one-{name}", folder / name, COARSE.get(name, TOLERANCE))
    assert got["costs"]["training"] == expected["costs"]["training"]
    assert len(got["curves"]) == 2
    if name not in COARSE:
        assert got == about(expected)


@pytest.mark.parametrize("name", RESUMED)
def test_a_job_goes_on_with_another_number_of_ranks(name, folder, alone):
    """Stopped in the middle of the second epoch: the perturbations, dual variable and averages are all there."""
    results(folder, f"begun-by-one-{name}")
    assert_equal(folder / f"one-{name}", folder / f"begun-by-one-{name}")
    assert results(folder, f"begun-{name}")["ended"] == "Stopped"
    ended = do({"kind": "train", "root": folder / f"begun-{name}"}, ALONE)
    assert_equal(folder / f"one-{name}", folder / f"begun-{name}")
    assert ended["costs"]["training"] == alone[name]["costs"]["training"]


def test_all_stop_when_rank_0_is_asked_to_within_a_validation(folder):
    assert results(folder, "stopped")["ended"] == "Stopped"
    (saved,) = Workdir(folder / "stopped").saved_training()
    assert torch.load(saved, weights_only=True)["state"]["step"] == 3


def test_what_one_rank_alone_meets_ends_all_and_keeps_the_last_good_epoch(folder):
    """Rank 0 says how, after it has written that epoch; the others go quietly."""
    ended = [json.loads((folder / f"one-rank-fails.{rank}.json").read_text()) for rank in range(RANKS)]
    assert [each["status"] for each in ended] == [EXIT_FAILED, *[EXIT_OK] * (RANKS - 1)]
    assert ended[0]["last"]["code"] == "diverged"
    assert ended[0]["last"]["detail"].endswith("in epoch 2, step 2")
    workdir = Workdir(folder / "one-rank-fails")
    best = torch.load(workdir.saved_training()[0], weights_only=True)["best"]
    shipped = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert all(torch.equal(shipped[key], best[key]) for key in shipped)


def test_batch_norm_sees_the_images_of_all_ranks(folder):
    """Outputs, gradients and running statistics, with and without weights, momentum and statistics, frozen or not."""
    got, expected = results(folder, "batch-norm"), do({"kind": "batch_norm", "root": folder}, ALONE)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(torch.tensor(got[name]), torch.tensor(value), rtol=1e-5, atol=1e-6, msg=name)


def test_a_layer_that_several_devices_would_change_is_refused(folder):
    assert results(folder, "other-norm")["ended"] == "UnsupportedError"
    assert do({"kind": "other_norm", "root": folder}, ALONE) == {}


def test_an_evaluation_is_the_same_image_by_image(folder):
    """Whatever the attack, and with last batches that leave a rank without an image."""
    got, expected = results(folder, "evaluate"), do({"kind": "evaluate", "root": folder / "evaluate"}, ALONE)
    assert json.loads(json.dumps(expected)) == got
    assert 0 < sum(got["tallies"][0]["fooled"]) < 22


def lasting(report: object) -> object:
    """A report without times, memory, threads and digests, which differ from run to run."""
    if isinstance(report, dict):
        passing = ("seconds", "total_seconds", "peak_memory_bytes", "threads", "output")
        return {key: lasting(value) for key, value in report.items() if key not in passing}
    return [lasting(value) for value in report] if isinstance(report, list) else report


def about(report: object) -> object:
    """Its numbers as equal as float sums in another order are."""
    if isinstance(report, dict):
        return {key: about(value) for key, value in report.items()}
    if isinstance(report, list):
        return [about(value) for value in report]
    return pytest.approx(report, rel=TOLERANCE, abs=1e-6) if isinstance(report, float) else report


def test_the_report_is_the_same(folder):
    """Begun by one process, which was stopped within the baseline, and ended by three ranks."""
    assert {json.loads((folder / f"report.{rank}.json").read_text())["status"] for rank in range(RANKS)} == {EXIT_OK}
    assert do({"kind": "whole_run", "root": folder / "one-report"}, ALONE)["status"] == EXIT_OK
    files = [folder / name / "output/report.json" for name in ("report", "one-report")]
    got, expected = (lasting(json.loads(file.read_text())) for file in files)
    assert got["before"]["diagnosis"]
    assert got["before"] == expected["before"]
    assert got == about(expected)


def slow_job(root: Path, arrays) -> Path:
    """Eighteen steps that take a while, so that a signal comes in the middle; small ones: rounding grows with each."""
    calm = {"name": "sgd", "lr": 0.01}
    return make(
        root, arrays, {"name": "aft", "steps": 20}, LINF, {"epochs": 6, "optimizer": calm, **AUGMENT}, devices=2
    )


def until(process: subprocess.Popen, phase: str) -> list[int]:
    """Read the command's events until it makes progress in a phase; returns its ranks."""
    phases = []
    for event in map(json.loads, process.stdout):
        phases += [event["phase"]] if event["type"] == "phase" else []
        if event["type"] == "progress" and phases[-1] == phase:
            break
    ranks = children(process.pid, "core rank")
    assert len(ranks) == 2
    return ranks


def without_log(lines: Iterable[str]) -> list[dict]:
    return [event for event in map(json.loads, lines) if event["type"] != "log"]


def test_sigterm_saves_and_one_process_goes_on(tmp_path, arrays):
    root = slow_job(tmp_path / "ranks", arrays)
    shutil.copytree(root, tmp_path / "one")
    with start("core", "run", str(root)) as process:
        ranks = until(process, "training")
        process.terminate()
        events = without_log(process.stdout)
        assert process.wait(timeout=60) == EXIT_STOPPED
    assert not any(map(alive, ranks))
    assert events[-1]["type"] == "state"
    saved = torch.load(Workdir(root).saved_training()[0], weights_only=True)["state"]
    assert (saved["epoch"], saved["step"]) < (6, 0), "it was to be stopped"
    for each in (root, tmp_path / "one"):
        do({"kind": "train", "root": each}, ALONE)
    assert_equal(tmp_path / "one", root)


@pytest.mark.parametrize("victim", ["rank", "launcher"])
def test_when_one_process_dies_all_do(victim, tmp_path, arrays):
    """Even ranks that can do nothing about it."""
    with start("core", "run", str(slow_job(tmp_path, arrays))) as process:
        ranks = until(process, "baseline")
        if victim == "launcher":
            for rank in ranks:
                os.kill(rank, signal.SIGSTOP)
        os.kill(process.pid if victim == "launcher" else ranks[1], signal.SIGKILL)
        assert process.wait(timeout=20) == (-signal.SIGKILL if victim == "launcher" else EXIT_LOST)
    deadline = time.monotonic() + 20  # for the kernel to end them
    while any(map(alive, ranks)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, ranks))


def test_a_loss_that_is_not_finite_fails_the_job(tmp_path, arrays):
    """With the events of a single process, and one failure."""
    layers = [layer for layer in NETWORK["sequential"] if layer != "batch_norm2d"]
    model, sgd = {"architecture": {"sequential": layers}}, {"name": "sgd", "lr": 100}
    root = make(tmp_path / "ranks", arrays, "natural", LINF, {"optimizer": sgd}, scale=1e18, model=model, devices=2)
    one, expected = shutil.copytree(root, tmp_path / "one"), []
    with start("core", "run", str(root)) as process:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == EXIT_FAILED
    assert work(one, expected.append, expected.append, lambda: False, ALONE) == EXIT_FAILED
    got = without_log(output.splitlines())
    assert [event["type"] for event in got] == [event["type"] for event in expected]
    assert got[-1] == expected[-1]
    assert got[-1]["code"] == "diverged"


def test_too_few_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch.check_devices(2)
    with pytest.raises(TooFewDevicesError, match="asks for 3 devices, there are 2") as error:
        launch.check_devices(3)
    assert (error.value.blame, error.value.hint) == ("user", "set devices to 2")

"""The pictures: every image is in them, equal inputs give equal bytes, and nothing a user sent can break them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from core.embedding import Embedding, Placed
from core.pictures import draw_curves, draw_embedding, write_curves, write_embedding
from core.report import EpochCurve, Training

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
NAMES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def embedding(images=1000, classes=10, *, attacked=False, seed=0):
    rng = np.random.default_rng(seed)

    def placed():
        points = (rng.normal(size=(images, 2)) * [9, 3] + [5, 0]).round(4)
        return Placed(points=tuple(map(tuple, points.tolist())), separation=0.5)

    return Embedding(
        ids=tuple(range(images)),
        labels=tuple(rng.integers(0, classes, images).tolist()),
        clean=placed(),
        adversarial=placed() if attacked else None,
        fitted_on=2000,
        features=128,
        dimensions=classes - 1,
        kept=0.6,
    )


def training(epochs, selected=1, selected_by="robust"):
    """Every accuracy a function of the epoch of its own, whatever fields a curve has; many epochs are noisy."""
    numbers = dict.fromkeys(EpochCurve.model_fields, 0.5)
    curves = []
    for epoch in range(1, epochs + 1):
        t = epoch / epochs if epochs < 100 else 0.5 + 0.5 * math.sin(epoch**2)
        held_out = {"held_out_clean": 0.6 + 0.2 * t, "held_out_robust": 0.2 + 0.3 * t}
        train = {"train_clean": 0.7 + 0.25 * t, "train_robust": 0.25 + 0.5 * t}
        curves.append(EpochCurve(**{**numbers, **held_out, **train, "epoch": epoch, "lr": 1e-3 * t}))
    return Training(
        curves=tuple(curves), selected_epoch=selected, selected_by=selected_by, train_images=900, held_out_images=100
    )


def parse(svg):
    return ElementTree.fromstring(svg.encode())


def marks(root, gid):
    """The marks of a group: (what is drawn, x, y), and the group's style."""
    (group,) = root.findall(f".//{SVG}g[@id='{gid}']")
    uses = [(use.get(f"{XLINK}href"), float(use.get("x")), float(use.get("y"))) for use in group.iter(f"{SVG}use")]
    return uses, [inner.get("style") for inner in group.findall(f"{SVG}g")]


def line(root, gid):
    """The corners (n, 2) of a line."""
    path = root.find(f".//{SVG}g[@id='{gid}']/{SVG}path").get("d")
    return np.array(re.findall(r"[ML] ([-.\d]+) ([-.\d]+)", path), float)


def groups(root, pattern):
    return [g.get("id") for g in root.iter(f"{SVG}g") if re.fullmatch(pattern, g.get("id", ""))]


@pytest.mark.parametrize("attacked", [False, True])
def test_every_image_is_drawn_in_its_class_at_its_place(attacked):
    sides = {"before": embedding(attacked=attacked), "after": embedding(attacked=attacked, seed=1)}
    svg = draw_embedding(sides["before"], sides["after"], NAMES)
    assert len(svg) < 300_000
    root = parse(svg)
    for name, side in sides.items():
        for kind, placed in (("clean", side.clean), ("attacked", side.adversarial)):
            found = groups(root, rf"{name}-{kind}-\d+")
            assert len(found) == (10 if placed else 0)
            shown = []
            for gid in found:
                label = int(gid.rpartition("-")[2])
                uses, _ = marks(root, gid)
                points = [point for point, its in zip(placed.points, side.labels, strict=True) if its == label]
                assert len(uses) == len(points)
                shown += [(*point, x, y) for point, (_, x, y) in zip(points, uses, strict=True)]
            if shown:
                assert len(shown) == 1000
                a, b, x, y = np.array(shown).T
                (scale, _), (down, _) = np.polyfit(a, x, 1), np.polyfit(b, y, 1)
                np.testing.assert_allclose(np.polyval(np.polyfit(a, x, 1), a), x, atol=0.06)
                np.testing.assert_allclose(np.polyval(np.polyfit(b, y, 1), b), y, atol=0.06)
                assert down == pytest.approx(-scale, rel=1e-3), "one unit on both axes"


def test_both_rows_of_a_plane_have_one_scale():
    near = embedding(attacked=True)
    far = near.model_copy(update={"adversarial": Placed(points=((90.0, 0.0),) * 1000, separation=None)})
    root = parse(draw_embedding(far, None, NAMES))
    clean = [x for label in range(10) for _, x, _ in marks(root, f"before-clean-{label}")[0]]
    attacked = [x for label in range(10) for _, x, _ in marks(root, f"before-attacked-{label}")[0]]
    assert min(attacked) > max(clean)


def test_classes_differ_in_colour_and_in_shape():
    """Ten classes in grey print still have ten shapes; up to a hundred have a pair of their own."""
    root = parse(draw_embedding(embedding(3000, 100), None, None))
    shapes = {f"#{path.get('id')}": path.get("d") for path in root.iter(f"{SVG}path") if path.get("id")}
    pairs = []
    for label in range(100):
        uses, (style,) = marks(root, f"before-clean-{label}")
        pairs.append((shapes[uses[0][0]], style))
    assert len(set(pairs)) == 100
    for part in (0, 1):
        assert len({pair[part] for pair in pairs[:10]}) == 10
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "57" not in texts, "no legend of a hundred classes"


def test_title_description_and_legend():
    root = parse(draw_embedding(embedding(), embedding(seed=1), NAMES))
    assert root.get("role") == "img"
    titled, described = root.get("aria-labelledby").split()
    assert (root[0].tag, root[0].get("id"), root[1].tag, root[1].get("id")) == (
        f"{SVG}title", titled, f"{SVG}desc", described,
    )  # fmt: skip
    assert "1000 test images of 10 classes" in root[1].text
    assert "Before: separation 0.50; the plane shows 60% of the variance" in root[1].text
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert [text for text in texts if text in NAMES] == NAMES
    assert not list(root.iter(f"{SVG}image")), "nothing is rasterised"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a<b>&\"c'", "a<b>&\"c'"),
        ("</text><script>alert(1)</script>", "</text><script>alert(1)\u2026"),
        ("$\\frac{1$", "$\\frac{1$"),
        ("_hidden", "_hidden"),
        ("\u30b7\u30e3\u30c4", "\u30b7\u30e3\u30c4"),
        ("\x01tab\tline\nend\udcff\u202e", "?tab?line?end??"),
        ("x" * 80, "x" * 23 + "\u2026"),
    ],
)
def test_names_that_users_sent(name, shown, tmp_path):
    paths = write_embedding(tmp_path, embedding(50, 2), None, [name, "other"])
    root = parse(paths[1].read_text(encoding="utf-8"))
    assert [text.text for text in root.iter(f"{SVG}text")].count(shown) == 1
    assert not [element for element in root.iter() if "script" in str(element.tag)]
    assert json.loads(paths[0].read_text())["class_names"] == [name, "other"]


def test_the_json_holds_what_was_drawn(tmp_path):
    before, after = embedding(attacked=True), embedding(seed=1)
    write_embedding(tmp_path, before, after, None)
    write_curves(tmp_path, training(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.svg", "embedding.json", "embedding.svg"]
    data = json.loads((tmp_path / "embedding.json").read_text())
    assert Embedding.model_validate(data["before"]) == before
    assert Embedding.model_validate(data["after"]) == after
    assert (tmp_path / "embedding.svg").read_text() == draw_embedding(before, after, None)


def test_equal_inputs_give_equal_bytes_whatever_the_settings():
    """In another process too, with other settings, another hash seed, and a date in the environment."""
    pictures = draw_embedding(embedding(200), None, NAMES), draw_curves(training(5))
    settings = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.markersize": 20, "savefig.dpi": 300}):
        assert (draw_embedding(embedding(200), None, NAMES), draw_curves(training(5))) == pictures
    assert dict(matplotlib.rcParams) == settings
    code = (
        "import sys\nfrom tests.core.test_pictures import *\nsys.stdout.reconfigure(encoding='utf-8')\n"
        "sys.stdout.write(draw_embedding(embedding(200), None, NAMES) + draw_curves(training(5)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "86400", "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment, cwd=Path(__file__).parents[2], check=True
    )
    assert done.stdout.decode("utf-8") == "".join(pictures)
    assert not re.search(r"\d{4}-\d\d-\d\d|Matplotlib|DOCTYPE", "".join(pictures))


def test_the_curves_are_the_epochs_and_the_choice_is_marked():
    root = parse(draw_curves(training(8, selected=5)))
    places = []
    for field in ("held_out_clean", "held_out_robust", "train_clean", "train_robust"):
        uses, _ = marks(root, field)
        assert len(uses) == 8
        places += [(getattr(curve, field), y) for curve, (_, _, y) in zip(training(8).curves, uses, strict=True)]
    accuracy, height = np.array(places).T
    slope, foot = np.polyfit(accuracy, height, 1)
    np.testing.assert_allclose(slope * accuracy + foot, height, atol=0.06)
    frame = line(root, "patch_2")[:, 1]
    np.testing.assert_allclose([foot, foot + slope], [frame.max(), frame.min()], atol=0.2)  # the axis is 0 to 1
    assert len({marks(root, field)[0][0][0] for field in ("held_out_clean", "held_out_robust", "train_clean")}) == 3
    assert len(marks(root, "lr")[0]) == 8
    for gid, of in (("selected", "held_out_robust"), ("selected-lr", "lr")):
        np.testing.assert_allclose(line(root, gid)[:, 0], marks(root, of)[0][4][1], atol=0.06)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "Epoch 5 ships" in texts
    assert "Epoch 5 ships, selected by robust" in root[1].text
    assert "72.5% clean and 38.8% under PGD-10" in root[1].text
    assert "selected by <a> & b" in parse(draw_curves(training(2, selected_by="<a> & b")))[1].text


@pytest.mark.parametrize(("epochs", "selected"), [(1, 1), (2, 2), (1201, 604), (10_000, 9_998)])
def test_few_and_many_epochs(epochs, selected):
    svg = draw_curves(training(epochs, selected))
    assert len(svg) < 300_000
    root = parse(svg)
    assert f"Epoch {selected} ships" in [text.text for text in root.iter(f"{SVG}text")]
    last = parse(draw_curves(training(epochs, epochs)))
    assert line(last, "train_clean")[-1, 0] == line(last, "selected")[0, 0], "up to the last epoch"


def test_many_classes_stay_small():
    assert len(draw_embedding(embedding(1000, 1000), embedding(1000, 1000, seed=1), None)) < 300_000


def test_all_images_at_one_place():
    flat = Placed(points=((0.0, 0.0),) * 20, separation=None)
    side = embedding(20, 2).model_copy(update={"clean": flat})
    root = parse(draw_embedding(side, side, None))
    assert sum(len(marks(root, gid)[0]) for gid in groups(root, r"after-clean-\d")) == 20
    assert "Before: separation not defined" in root[1].text

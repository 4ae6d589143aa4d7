"""Views: what a crop and a flip did can be undone, in either order."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from core.augmentation import augment, canvas_padding
from core.rng import Rng


@pytest.mark.parametrize("operations", [(), ("flip",), ("crop",), ("crop", "flip"), ("flip", "crop")])
def test_a_view_shows_the_augmented_image_and_puts_it_back(operations):
    x = torch.rand(50, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    augmented, view = augment(x, operations, Rng.for_images(0, torch.arange(50)))
    assert view.padding == canvas_padding(operations)
    canvas = F.pad(x, [view.padding] * 4)
    assert torch.equal(view.look(canvas, 8), augmented)
    marked = view.put(canvas, augmented + 1)
    assert torch.equal(view.look(marked, 8), augmented + 1)
    assert ((marked != canvas).flatten(1).sum(1) == 3 * 8 * 12).all(), "nothing else on the canvas changes"


def test_what_one_epoch_marks_the_next_sees_at_the_same_pixel_of_the_object():
    """A mark left through one crop and flip lies on the same pixel of the unaugmented image for another."""
    x = torch.zeros(100, 1, 8, 8)
    x[:, :, 3, 5] = 1
    canvas = torch.zeros(100, 1, 16, 16)
    for epoch in range(2):
        augmented, view = augment(x, ("crop", "flip"), Rng.for_images(epoch, torch.arange(100)))
        if epoch == 0:
            canvas = view.put(canvas, augmented)
        else:
            visible = augmented.flatten(1).sum(1) == 1
            seen = canvas.flatten(1).sum(1) == 1
            both = visible & seen
            assert both.sum() > 20
            assert torch.equal(view.look(canvas, 8)[both], augmented[both])


def test_resizing_leaves_no_view():
    x = torch.rand(4, 3, 8, 8)
    assert augment(x, ("resized-crop", "flip"), Rng.for_images(0, torch.arange(4)))[1] is None

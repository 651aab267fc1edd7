"""Augmentation: whole batches, each picture by a draw of its own."""

from experiments.ingredients.augmentation import augmented, cropped

import numpy as np
import torch


def test_crops_are_those_of_a_loop():
    torch.manual_seed(0)
    pictures, padding = torch.rand(9, 3, 5, 7), 2
    corners = torch.randint(0, 2 * padding + 1, (2, 9))
    crops = cropped(pictures, padding, corners)
    for picture, crop, (row, column) in zip(pictures, crops, corners.t().tolist(), strict=True):
        padded = np.pad(picture.numpy(), ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
        np.testing.assert_array_equal(crop.numpy(), padded[:, row : row + 5, column : column + 7])


def test_the_middle_corner_changes_nothing_and_nothing_is_the_default():
    pictures = torch.rand(4, 1, 6, 6)
    assert torch.equal(cropped(pictures, 3, torch.full((2, 4), 3)), pictures)
    assert torch.equal(augmented(pictures, flip=False, shift=0), pictures)


def test_half_of_the_pictures_are_mirrored():
    torch.manual_seed(0)
    pictures = torch.rand(1000, 1, 2, 3)
    changed = augmented(pictures, flip=True, shift=0)
    mirrored = (changed == pictures.flip(3)).flatten(1).all(dim=1)
    same = (changed == pictures).flatten(1).all(dim=1)
    assert torch.equal(mirrored, ~same)
    assert 420 < mirrored.sum() < 580

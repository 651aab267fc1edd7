"""Training pictures that differ a little every time: flipped and shifted on the device, a whole batch at once."""

from experiments.configuration import at_least
from experiments.errors import UserError

import torch
import torch.nn.functional as F
from sacred import Ingredient
from torch import Tensor

augmentation = Ingredient("augmentation", save_git_info=False)
augmentation.add_config(
    flip=False,  # mirror every second picture, drawn at random
    shift=0,  # crop each picture anew after padding it by so many reflected pixels on all sides
)
augmentation.rules = {"augmentation.shift": at_least(0)}


@augmentation.capture
def augmented(inputs: Tensor, flip: bool, shift: int) -> Tensor:
    """A batch `[B, C, H, W]`, each picture flipped and shifted by a draw of its own.

    Raises:
        UserError: a shift as large as the pictures.
    """
    if flip:
        mirrored = torch.rand(len(inputs), 1, 1, 1, device=inputs.device) < 0.5
        inputs = torch.where(mirrored, inputs.flip(3), inputs)
    if shift >= min(inputs.shape[2:]):
        raise UserError(f"augmentation.shift={shift} is as large as the pictures: lower it")
    if shift:
        inputs = cropped(inputs, shift, torch.randint(0, 2 * shift + 1, (2, len(inputs)), device=inputs.device))
    return inputs


def cropped(inputs: Tensor, padding: int, corners: Tensor) -> Tensor:
    """Pictures `[B, C, H, W]`, padded by reflection, then cropped to their size at `corners` `[2, B]` (row, column)."""
    height, width = inputs.shape[2:]
    padded = F.pad(inputs, [padding] * 4, mode="reflect").permute(0, 2, 3, 1)
    picture = torch.arange(len(inputs), device=inputs.device)[:, None, None]
    rows = (corners[0][:, None] + torch.arange(height, device=inputs.device))[:, :, None]
    columns = (corners[1][:, None] + torch.arange(width, device=inputs.device))[:, None, :]
    return padded[picture, rows, columns].permute(0, 3, 1, 2)

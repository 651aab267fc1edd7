"""Products by NumPy's library equal PyTorch's, gradients, counted operations and exported programs included."""

from models.products import product

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SHAPES = {
    "matrices": ((5, 3), (3, 4)),
    "batches": ((2, 5, 3), (2, 3, 4)),
    "one for a batch": ((5, 3), (2, 3, 4)),
    "a batch for one": ((2, 5, 3), (3, 4)),
    "nothing to sum": ((5, 0), (0, 4)),
}
LAYOUTS = {
    "rows": lambda values: values,
    "columns": lambda values: values.mT.contiguous().mT,
    "with gaps": lambda values: torch.stack([values, values], -1)[..., 0],
    "batch last": lambda values: values.movedim(0, -1).contiguous().movedim(-1, 0),
}


def factors(shapes: str) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in SHAPES[shapes]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shapes", SHAPES)
def test_values_and_gradients_are_those_of_pytorchs_product(shapes, layout):
    left, right = factors(shapes)
    expected = left @ right
    weights = LAYOUTS[layout](torch.randn_like(expected))
    result = product(LAYOUTS[layout](left), LAYOUTS[layout](right))
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(
        torch.autograd.grad((result * weights).sum(), (left, right)),
        torch.autograd.grad((expected * weights).sum(), (left, right)),
    )


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_wanted_gradient_is_computed(wanted):
    left, right = factors("batches")
    (left, right)[1 - wanted].requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        product(left, right).sum().backward()
    assert (left.grad is None, right.grad is None) == ((False, True) if wanted == 0 else (True, False))
    assert counter.get_total_flops() == 2 * (2 * 2 * 5 * 3 * 4)  # forward and one gradient


@pytest.mark.parametrize("shapes", ["matrices", "batches"])
def test_its_operations_are_counted_like_pytorchs(shapes):
    counts = []
    for multiply in (product, torch.matmul):
        with FlopCounterMode(display=False) as counter:
            multiply(*factors(shapes)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_an_exported_program_holds_pytorchs_product():
    class Multiply(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return product(left, right)

    left, right = (values.detach() for values in factors("batches"))
    program = torch.export.export(Multiply(), (left, right))
    assert "models" not in str(program.graph)
    torch.testing.assert_close(program.module()(left, right), left @ right)

"""Long short-term memory (Hochreiter and Schmidhuber, 1997) with the gate activation as a choice.

PyTorch's own layer has the logistic sigmoid only; Keras' first one, in which T-DPSOM was written, a piecewise linear.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def hard_sigmoid(inputs: Tensor) -> Tensor:
    """Keras' `clip(0.2 x + 0.5, 0, 1)`; PyTorch's is `clip(x / 6 + 0.5, 0, 1)`."""
    return F.hardsigmoid(1.2 * inputs)


RECURRENT_ACTIVATIONS = {"sigmoid": torch.sigmoid, "hard_sigmoid": hard_sigmoid}


class LSTM(nn.Module):
    """One layer; with `s` the recurrent activation,

        i, f, g, o = W x_t + R h_(t-1) + b
        c_t = s(f) * c_(t-1) + s(i) * tanh(g)
        h_t = s(o) * tanh(c_t)

    Weights start as in Keras: W Glorot-uniform, R orthogonal, b zero but 1 for the forget gate.

    Args:
        inputs: size of `x_t`.
        units: H, size of `h_t`.
        recurrent_activation: `sigmoid`, as `torch.nn.LSTM`, or `hard_sigmoid`.
    """

    def __init__(self, inputs: int, units: int, recurrent_activation: str) -> None:
        super().__init__()
        self.units = units
        self.activation = RECURRENT_ACTIVATIONS[recurrent_activation]
        self.input_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(4 * units, inputs)))
        self.recurrent_weight = nn.Parameter(nn.init.orthogonal_(torch.empty(4 * units, units)))
        self.bias = nn.Parameter(torch.zeros(4 * units))
        nn.init.ones_(self.bias.data[units : 2 * units])

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """All `h_t`, `[B, T, H]`, of inputs `[B, T, D]`, and the last `(h, c)`, each `[B, H]`, which start at zero.

        The inputs of all steps are projected by one matrix product.
        """
        if state is None:
            zeros = inputs.new_zeros(len(inputs), self.units)
            state = zeros, zeros
        hidden, cell = state
        recurrent_weight = self.recurrent_weight.t()
        outputs = []
        for projected in F.linear(inputs.transpose(0, 1), self.input_weight, self.bias).unbind():
            into, forget, candidate, out = torch.addmm(projected, hidden, recurrent_weight).chunk(4, dim=1)
            cell = self.activation(forget) * cell + self.activation(into) * candidate.tanh()
            hidden = self.activation(out) * cell.tanh()
            outputs.append(hidden)
        return torch.stack(outputs, dim=1), (hidden, cell)

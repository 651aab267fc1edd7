"""The optimiser of the originals: one Adam for all phases."""

import math
from collections.abc import Iterable

import torch
from torch import nn


class PhasedAdam(torch.optim.Adam):
    """Adam in TensorFlow's form, its moments and its step counter shared by all phases.

    The update is `lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`: epsilon is added to the biased root
    ("epsilon-hat" in Kingma and Ba, section 2). The counter t advances with every step of any phase, for all
    parameters; a parameter without gradient keeps its value and its moments.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], epsilon: float = 1e-8) -> None:
        super().__init__(parameters, fused=True)
        self.param_groups[0].update(epsilon_hat=epsilon, count=0)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def step_at(self, learning_rate: float) -> None:
        """One update of every parameter that has a gradient, at this learning rate."""
        group = self.param_groups[0]
        group["count"] += 1
        group["lr"] = learning_rate
        group["eps"] = group["epsilon_hat"] / math.sqrt(1.0 - group["betas"][1] ** group["count"])
        torch._foreach_zero_(self._counters)
        torch._foreach_add_(self._counters, float(group["count"] - 1))
        self.step()

    @property
    def _counters(self) -> list[torch.Tensor]:
        return [self.state[parameter]["step"] for parameter in self.param_groups[0]["params"]]

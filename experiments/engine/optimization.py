"""The optimisers of the phase runner, and the staircase decay of their learning rate."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import nn


def staircase_decay(learning_rate: float, step: int, decay_factor: float, decay_steps: int) -> float:
    """`learning_rate * decay_factor ^ floor(step / decay_steps)`; steps are counted over all phases."""
    return learning_rate * decay_factor ** (step // decay_steps)


class PhasedAdam(torch.optim.Adam):
    """Adam as TensorFlow computes it, its moments and its step counter t shared by all phases.

    The update is `lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`: epsilon is added to the biased root
    ("epsilon-hat" in Kingma and Ba, section 2), and b1, b2 and their powers are float32 numbers. The counter advances
    with every step of any phase, for all parameters; a parameter without gradient keeps its value and its moments.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], epsilon: float = 1e-8) -> None:
        betas = (float(np.float32(0.9)), float(np.float32(0.999)))
        super().__init__(parameters, betas=betas, fused=True)
        group = self.param_groups[0]
        group.update(epsilon_hat=epsilon, count=0, beta_powers=list(betas))
        for parameter in group["params"]:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def step_at(self, learning_rate: float) -> None:
        """One update of every parameter that has a gradient, at this learning rate."""
        group = self.param_groups[0]
        group["count"] += 1
        exact = [1.0 - beta ** group["count"] for beta in group["betas"]]  # what torch.optim.Adam will divide by
        rounded = [1.0 - power for power in group["beta_powers"]]
        group["lr"] = learning_rate * math.sqrt(rounded[1] / exact[1]) * exact[0] / rounded[0]
        group["eps"] = group["epsilon_hat"] / math.sqrt(exact[1])
        group["beta_powers"] = [
            float(np.float32(power) * np.float32(beta))
            for power, beta in zip(group["beta_powers"], group["betas"], strict=True)
        ]
        counters = [self.state[parameter]["step"] for parameter in group["params"]]
        torch._foreach_zero_(counters)
        torch._foreach_add_(counters, group["count"] - 1)
        self.step()


class MomentumSGD(torch.optim.SGD):
    """Gradient descent with momentum, shared by all phases: `v = 0.9 v + gradient`, `w = w - learning_rate v`."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, momentum=0.9)

    def step_at(self, learning_rate: float) -> None:
        """One update of every parameter that has a gradient, at this learning rate."""
        self.param_groups[0]["lr"] = learning_rate
        self.step()


OPTIMIZERS = {"adam": PhasedAdam, "sgd": MomentumSGD}

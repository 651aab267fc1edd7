"""The shared optimisers: Adam against TensorFlow's formula written out in NumPy, momentum against its own."""

import io

from experiments.engine.optimization import MomentumSGD, PhasedAdam, staircase_decay

import numpy as np
import pytest
import torch
from torch import nn

FIRST, SECOND, BOTH = (0,), (1,), (0, 1)
PHASES = [FIRST] * 4 + [SECOND] * 3 + [BOTH] * 5 + [FIRST] * 2 + [SECOND]


class Reference:
    """`tf.compat.v1.train.AdamOptimizer`: one counter for all, slots and values untouched without a gradient."""

    def __init__(self, values, epsilon=1e-8):
        self.values = [value.astype(np.float64) for value in values]
        self.first, self.second = ([np.zeros_like(value) for value in self.values] for _ in range(2))
        self.count, self.epsilon = 0, epsilon
        self.betas = [float(np.float32(beta)) for beta in (0.9, 0.999)]

    def step(self, gradients, rate):
        self.count += 1
        beta1, beta2 = self.betas
        rate *= np.sqrt(1 - beta2**self.count) / (1 - beta1**self.count)
        for index, gradient in gradients.items():
            self.first[index] = beta1 * self.first[index] + (1 - beta1) * gradient
            self.second[index] = beta2 * self.second[index] + (1 - beta2) * gradient**2
            self.values[index] -= rate * self.first[index] / (np.sqrt(self.second[index]) + self.epsilon)


def start():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,))]


def gradients_of(step, parameters, part, scale=1.0):
    generator = torch.Generator().manual_seed(100 + step)
    return {index: scale * torch.randn(parameters[index].shape, generator=generator) for index in part}


def rate_at(step):
    return 0.1 / (1 + step)


def run(optimizer, parameters, steps, scale=1.0):
    for step in steps:
        optimizer.zero_grad()
        for index, gradient in gradients_of(step, parameters, PHASES[step], scale).items():
            parameters[index].grad = gradient
        optimizer.step_at(rate_at(step))


@pytest.mark.parametrize("scale", [1.0, 1e-7], ids=["", "gradients as small as epsilon"])
def test_equals_tensorflow_over_phases_with_disjoint_parameters(scale):
    parameters = start()
    reference = Reference([parameter.detach().numpy() for parameter in parameters])
    optimizer = PhasedAdam(parameters)
    for step in range(len(PHASES)):
        run(optimizer, parameters, [step], scale)
        gradients = gradients_of(step, parameters, PHASES[step], scale)
        reference.step({index: gradient.numpy() for index, gradient in gradients.items()}, rate_at(step))
        for parameter, value in zip(parameters, reference.values, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=2e-5, atol=2e-6)
    for index, parameter in enumerate(parameters):
        state = optimizer.state[parameter]
        np.testing.assert_allclose(state["exp_avg"].numpy(), reference.first[index], rtol=1e-4)
        np.testing.assert_allclose(state["exp_avg_sq"].numpy(), reference.second[index], rtol=1e-4)


def test_a_parameter_without_gradient_keeps_its_value_and_its_moments():
    parameters = start()
    optimizer = PhasedAdam(parameters)
    run(optimizer, parameters, range(4))
    value = parameters[0].detach().clone()
    moments = {key: optimizer.state[parameters[0]][key].clone() for key in ("exp_avg", "exp_avg_sq")}
    run(optimizer, parameters, range(4, 7))
    assert torch.equal(parameters[0], value)
    assert all(torch.equal(optimizer.state[parameters[0]][key], moment) for key, moment in moments.items())


def test_momentum_is_a_running_sum_of_gradients():
    parameters = start()
    value = parameters[0].detach().double().numpy()
    optimizer, velocity = MomentumSGD(parameters), np.zeros_like(value)
    for step in range(4):  # of the first phase
        run(optimizer, parameters, [step])
        velocity = 0.9 * velocity + gradients_of(step, parameters, FIRST)[0].numpy()
        value = value - rate_at(step) * velocity
    np.testing.assert_allclose(parameters[0].detach().numpy(), value, rtol=1e-5)
    assert torch.equal(parameters[1], start()[1])


@pytest.mark.parametrize("make", [PhasedAdam, MomentumSGD])
@pytest.mark.parametrize("stop", range(1, len(PHASES)))
def test_saved_and_loaded_it_continues_identically(stop, make):
    parameters = start()
    optimizer = make(parameters)
    run(optimizer, parameters, range(stop))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)

    continued = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    restored = make(continued)
    restored.load_state_dict(torch.load(file, weights_only=True))
    run(optimizer, parameters, range(stop, len(PHASES)))
    run(restored, continued, range(stop, len(PHASES)))
    assert all(torch.equal(one, other) for one, other in zip(parameters, continued, strict=True))


def test_the_learning_rate_falls_in_steps():
    rates = [staircase_decay(0.5, step, decay_factor=0.1, decay_steps=3) for step in range(8)]
    assert rates == pytest.approx([0.5] * 3 + [0.05] * 3 + [0.005] * 2)

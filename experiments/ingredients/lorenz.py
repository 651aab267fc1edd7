"""Trajectories on Lorenz' attractor: a generated data set whose states move smoothly and jump between two wings.

    dx/dt = 10 (y - x)    dy/dt = x (28 - z) - y    dz/dt = x y - 8/3 z

Source: Lorenz, "Deterministic nonperiodic flow", 1963. No public code of SOM-VAE has its Lorenz experiment, so step,
noise and lengths are our own.
"""

from experiments.configuration import at_least, positive

import numpy as np
import torch
from sacred import Ingredient
from scipy.integrate import solve_ivp
from torch import Tensor

lorenz = Ingredient("lorenz", save_git_info=False)
lorenz.add_config(
    trajectories=[200, 50, 50],  # for training, validation and test; each starts at a random point
    length=72,  # points of one trajectory
    step=0.05,  # time between two points; one turn around a wing takes about 0.75
    transient=10.0,  # time before the first point, in which a trajectory reaches the attractor
    noise=0.1,  # standard deviation of the noise on every value, in units of the normalised data
)
lorenz.rules = {
    "lorenz.trajectories": at_least(1),
    "lorenz.length": at_least(2),
    "lorenz.step": positive,
    "lorenz.transient": at_least(0.0),
    "lorenz.noise": at_least(0.0),
}

WINGS = ("left (x < 0)", "right (x ≥ 0)")
SEED = 42  # of starts and noise, whatever the seed of the run: a data set is one


@lorenz.capture
def lorenz_trajectories(
    trajectories: list[int], length: int, step: float, transient: float, noise: float
) -> tuple[Tensor, Tensor]:
    """`inputs` [N, T, 3] float32, x, y and z, and `labels` [N, T] int64, the wing; first training, then the others.

    Each coordinate has mean 0 and standard deviation 1 over the training trajectories before noise is added; the wing
    is that of the noiseless point.
    """
    generator = np.random.default_rng(SEED)
    starts = generator.uniform([-15, -15, 10], [15, 15, 40], (sum(trajectories), 3))
    times = transient + step * np.arange(length)
    solution = solve_ivp(
        lambda time, state: derivative(state.reshape(3, -1)).ravel(),
        (0, times[-1]),
        starts.T.ravel(),
        method="DOP853",
        t_eval=times,
        rtol=1e-6,
        atol=1e-6,
    )
    states = solution.y.reshape(3, len(starts), length).transpose(1, 2, 0)  # [N, T, 3]
    training = states[: trajectories[0]]
    inputs = (states - training.mean(axis=(0, 1))) / training.std(axis=(0, 1))
    inputs += noise * generator.standard_normal(inputs.shape)
    return torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy((states[..., 0] >= 0).astype(np.int64))


def derivative(state: np.ndarray) -> np.ndarray:
    """d/dt of states `[3, ...]`."""
    x, y, z = state
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

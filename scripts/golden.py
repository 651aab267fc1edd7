"""Compares a model of ours with golden numbers that the original TensorFlow code computed; knows no particular model.

A golden file (`tests/fixtures/*.npz`) holds a recipe for weights and inputs, and what the original computed from them:
forward arrays, loss terms, gradients, a short training with the shared Adam, and steps across a learning-rate decay.
A `Port` puts one of our models in the original's place; `compare` returns every deviation, with its tolerance.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.engine.optimization import PhasedAdam, staircase_decay
from experiments.errors import UserError

import numpy as np
import torch
from torch import Tensor, nn

QUANTITIES = {
    "forward arrays": ("max abs / max", 1e-5),
    "winners, neighbours and other indices": ("number that differ", 0),
    "loss terms": ("relative", 1e-5),
    "target p": ("max abs / max", 1e-5),
    "variables a loss reaches": ("number that differ", 0),
    "gradients": ("l2; sum, proj over l1; first 8 over max", 1e-4),
    "whole gradients of the map": ("max abs / max", 1e-4),
    "learning rates": ("relative", 1e-6),
    "loss along the training": ("relative", 1e-4),
    "winners along the training": ("number that differ", 0),
    "q and p at the start of the joint phase": ("max abs / max", 1e-3),
    "final variables": ("l2; sum, proj over l1", 1e-4),
    "first 8 of final variables": ("max abs / max", 1e-3),
    "final map": ("RMS", 3e-4),
    "change of the map across the decay": ("RMS / RMS", 2e-3),
}
"""What is compared, how, and the tolerance."""

TARGET_QUANTITIES = ("target p", "q and p at the start of the joint phase")
"""Quantities of models that have a target distribution."""

MAP_VARIABLES = {"embeddings": "som/embeddings", "transition_logits": "transition_logits"}
"""Variables of which a file holds whole gradients and values, by the name of the array."""


@dataclass(frozen=True)
class Deviation:
    """How far one item (an array, a loss, a step) lies from the original, in the measure of its quantity."""

    quantity: str
    item: str
    value: float

    @property
    def within(self) -> bool:
        return self.value <= QUANTITIES[self.quantity][1]

    def __str__(self) -> str:
        measure, tolerance = QUANTITIES[self.quantity]
        return f"{self.quantity}: {self.item} deviates by {self.value:.3g} ({measure}; tolerance {tolerance:g})"


@dataclass(frozen=True)
class Variable:
    """One trainable variable of the original: how to make its starting value, and its shape in TensorFlow's layout."""

    index: int
    name: str
    shape: tuple[int, ...]
    kind: str
    seed: int
    scale: float
    offset: float
    check_l2: float
    check_first4: list[float]

    def value(self) -> np.ndarray:
        """The starting value, float32.

        Raises:
            UserError: it is not the value the file was made with.
        """
        value = np.random.RandomState(self.seed).standard_normal(self.shape).astype(np.float32)
        value *= np.float32(self.scale)
        if self.offset:
            value += np.float32(self.offset)
        check_recipe(self.name, [statistics(value)[0]], [self.check_l2])
        check_recipe(self.name, value.flat[:4], self.check_first4)
        return value


class Golden:
    """A golden file: arrays by name, remembering which ones were asked for.

    Raises:
        UserError: the file is missing or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path) as file:
                self._arrays = {name: file[name] for name in file.files}
            self.meta = json.loads(str(self._arrays.pop("meta")))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is not a golden file ({error}): restore it from git, or correct PARITY_FIXTURES"
            ) from error
        fields = Variable.__dataclass_fields__
        self.variables = [
            Variable(**{name: tuple(entry[name]) if name == "shape" else entry[name] for name in fields})
            for entry in self.meta["variables"]
        ]
        self.hyper = self.meta["hyper"]
        self.batch_size = self.meta["B"]
        self.unused = set(self._arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        self.unused.discard(name)
        return self._arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def below(self, folder: str) -> list[str]:
        """Names directly below a folder: `below("loss")` lists the loss terms, `below("grad")` the folders in it."""
        inside = (name.removeprefix(f"{folder}/") for name in self._arrays if name.startswith(f"{folder}/"))
        return list(dict.fromkeys(name.partition("/")[0] for name in inside))

    def noise(self, name: str) -> Tensor | None:
        """Standard-normal numbers the original was given; None for a model without noise."""
        return torch.from_numpy(self[name]) if name in self else None

    def check_input(self, inputs: np.ndarray) -> None:
        """Raises UserError unless the file was made with these inputs."""
        check = self.meta["input_check"]
        check_recipe("the input", [inputs.sum(dtype=np.float64)], [check["sum"]])
        check_recipe("the input", inputs.flat[:4], check["first4"])


def check_recipe(name: str, ours: Iterable[float], theirs: Iterable[float]) -> None:
    """Raises UserError unless the numbers agree to float32 precision."""
    if not np.allclose(list(ours), list(theirs), rtol=1e-6, atol=1e-9):
        raise UserError(
            f"{name} made from the recipe is not what the golden file was made with: the file is not of this format"
        )


KERNEL_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}
"""TensorFlow's axes in PyTorch's order: dense (in, out), convolution HWIO."""
TRANSPOSED_AXES = (2, 3, 0, 1)
"""Those of a transposed convolution, HWOI, whose kernel turned by half a turn is that of our convolution."""


@dataclass(frozen=True)
class Slot:
    """One of our parameters, or a part of it, in the place of a variable; translates between the two layouts.

    `order[i]` is the place among our outputs of the original's i-th output; None where they agree.
    """

    variable: Variable
    parameter: nn.Parameter
    order: Tensor | None = None

    def load(self) -> None:
        value = torch.from_numpy(self.variable.value())
        if self.variable.kind == "kernel":
            value = self._turned(value.permute(self._axes()))
        with torch.no_grad():
            if self.order is None:
                self.parameter.copy_(value.reshape(self.parameter.shape))
            else:
                self.parameter[self.order] = value

    def to_tensorflow(self, tensor: Tensor) -> np.ndarray:
        """A value or gradient of the parameter in TensorFlow's layout."""
        tensor = tensor.detach()
        if self.order is not None:
            tensor = tensor[self.order]
        if self.variable.kind == "kernel":
            axes = self._axes()
            tensor = self._turned(tensor).permute([axes.index(axis) for axis in range(tensor.dim())])
        return tensor.reshape(self.variable.shape).numpy()

    @property
    def _transposed(self) -> bool:
        return "/convt" in self.variable.name

    def _axes(self) -> tuple[int, ...]:
        return TRANSPOSED_AXES if self._transposed else KERNEL_AXES[len(self.variable.shape)]

    def _turned(self, kernel: Tensor) -> Tensor:
        return kernel.flip(2, 3) if self._transposed else kernel


class Port(ABC):
    """One of our models in the place of an original; `slots` are in the order of the file's variables.

    `noise` is standard-normal, `[rows, latent]` (None for a model without); `target` is p, `[rows, K]`.
    """

    model: nn.Module
    slots: list[Slot]

    @abstractmethod
    def forward(self, noise: Tensor | None) -> dict[str, Tensor]:
        """Arrays by their names below `fwd/` in the file, or outside all folders."""

    @abstractmethod
    def losses(self, noise: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        """Scalars by their names below `loss/`, with the graph for those below `grad/`."""

    @abstractmethod
    def phase_loss(self, phase: str, noise: Tensor | None, target: Tensor | None) -> Tensor:
        """What a phase minimises."""

    @abstractmethod
    def winners(self, noise: Tensor | None) -> Tensor:
        """Winning unit of every row."""

    def assign(self, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Soft assignment q and the target p that follows from it, of a model whose joint phase needs p."""
        raise NotImplementedError


def compare(golden: Golden, port: Port) -> list[Deviation]:
    """Every deviation of a port that stands at the recipe's weights; trains it."""
    return [
        *compare_forward(golden, port),
        *compare_losses(golden, port),
        *compare_gradients(golden, port),
        *compare_training(golden, port),
    ]


def compare_forward(golden: Golden, port: Port) -> Iterator[Deviation]:
    with torch.no_grad():
        arrays = port.forward(golden.noise("fwd/eps"))
    for name, ours in arrays.items():
        ours, theirs = ours.numpy(), golden[f"fwd/{name}" if f"fwd/{name}" in golden else name]
        if np.issubdtype(theirs.dtype, np.integer):
            yield Deviation("winners, neighbours and other indices", name, number_differing(ours, theirs))
        else:
            yield Deviation("target p" if name == "p" else "forward arrays", name, over_maximum(ours, theirs))


def compare_losses(golden: Golden, port: Port) -> Iterator[Deviation]:
    with torch.no_grad():
        losses = port.losses(golden.noise("fwd/eps"), golden.noise("fwd/p"))
    for name in golden.below("loss"):
        yield Deviation("loss terms", name, relative(losses[name].item(), golden[f"loss/{name}"]))


def compare_gradients(golden: Golden, port: Port) -> Iterator[Deviation]:
    losses = port.losses(golden.noise("fwd/eps"), golden.noise("fwd/p"))
    parameters = [slot.parameter for slot in port.slots]
    for loss in golden.below("grad"):
        folder = f"grad/{loss}"
        gradients = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
        reached = np.array([gradient is not None for gradient in gradients])
        yield Deviation("variables a loss reaches", loss, number_differing(reached, golden[f"{folder}/has"]))
        for slot, gradient in zip(port.slots, gradients, strict=True):
            if gradient is None:
                continue
            gradient, variable = slot.to_tensorflow(gradient), slot.variable
            theirs = golden[f"{folder}/stats"][variable.index]
            first = golden[f"{folder}/first8"][variable.index]
            value = max(over_norms(statistics(gradient), theirs), over_first_8(gradient, first, theirs[4]))
            yield Deviation("gradients", f"{loss}, {variable.name}", value)
            for name in _map_arrays(golden, folder, variable):
                value = over_maximum(gradient, golden[f"{folder}/{name}"])
                yield Deviation("whole gradients of the map", f"{loss}, {variable.name}", value)


def compare_training(
    golden: Golden, port: Port, optimizer: Callable[[Iterable[nn.Parameter]], PhasedAdam] = PhasedAdam
) -> Iterator[Deviation]:
    """The recorded steps with one Adam, first from step 0, then across a decay of the learning rate."""
    adam = optimizer(dict.fromkeys(slot.parameter for slot in port.slots))
    yield from _compare_steps(golden, port, adam, "traj", global_step=0)
    before = _map_values(golden, port)
    yield from _compare_steps(golden, port, adam, "decay", global_step=golden.hyper["decay_steps"] - 1)
    for name, after in _map_values(golden, port).items():
        ours, theirs = after - before[name], golden[f"decay/final/{name}"] - golden[f"traj/final/{name}"]
        yield Deviation("change of the map across the decay", name, over(rms(ours - theirs), 0.0, rms(theirs)))


def _compare_steps(golden: Golden, port: Port, adam: PhasedAdam, folder: str, global_step: int) -> Iterator[Deviation]:
    target = golden.noise("traj/p") if folder == "decay" else None
    for index, step in enumerate(golden.meta[f"{folder}_steps"]):
        item = f"{folder} step {index}, {step['phase']}"
        if step["phase"] == "joint" and target is None and "traj/p" in golden:
            with torch.no_grad():
                soft, target = port.assign(golden.noise("traj/p_eps"))
            for name, ours in (("p_q", soft), ("p", target)):
                value = over_maximum(ours.numpy(), golden[f"traj/{name}"])
                yield Deviation("q and p at the start of the joint phase", name, value)
        noise = golden.noise(f"{folder}/eps")
        noise = None if noise is None else noise[index]
        with torch.no_grad():
            winners = port.winners(noise).numpy()
        yield Deviation("winners along the training", item, number_differing(winners, golden[f"{folder}/k"][index]))
        loss = port.phase_loss(step["phase"], noise, target)
        yield Deviation("loss along the training", item, relative(loss.item(), golden[f"{folder}/loss"][index]))
        rate = staircase_decay(step["lr"], global_step, golden.hyper["decay_factor"], golden.hyper["decay_steps"])
        yield Deviation("learning rates", item, relative(rate, step["lr_effective"]))
        port.model.zero_grad()
        loss.backward()
        adam.step_at(rate)
        global_step += 1
    port.model.zero_grad()
    yield from _compare_final(golden, port, f"{folder}/final")


def _compare_final(golden: Golden, port: Port, folder: str) -> Iterator[Deviation]:
    for slot in port.slots:
        value, variable = slot.to_tensorflow(slot.parameter), slot.variable
        item = f"{folder}, {variable.name}"
        theirs = golden[f"{folder}/stats"][variable.index]
        yield Deviation("final variables", item, over_norms(statistics(value), theirs))
        first = golden[f"{folder}/first8"][variable.index]
        yield Deviation("first 8 of final variables", item, over_first_8(value, first, theirs[4]))
        for name in _map_arrays(golden, folder, variable):
            yield Deviation("final map", item, rms(value - golden[f"{folder}/{name}"]))


def _map_arrays(golden: Golden, folder: str, variable: Variable) -> list[str]:
    return [name for name, owner in MAP_VARIABLES.items() if owner == variable.name and f"{folder}/{name}" in golden]


def _map_values(golden: Golden, port: Port) -> dict[str, np.ndarray]:
    return {
        name: slot.to_tensorflow(slot.parameter).copy()
        for slot in port.slots
        for name in _map_arrays(golden, "traj/final", slot.variable)
    }


# ---------------------------------------------------------------------------------------------- statistics and measures


CHUNK = 1 << 13
WAVE = np.stack([np.sin(np.arange(CHUNK)), np.cos(np.arange(CHUNK))])


def statistics(value: np.ndarray) -> np.ndarray:
    """float64 l2 norm, sum, projection `sum_i value_i sin(i + 1)`, l1 norm, max abs of a flattened array.

    The projection betrays a permuted layout. It is summed in chunks by sin(a + b) = sin a cos b + cos a sin b.
    """
    flat = value.reshape(-1)
    sums = np.zeros(4)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        sine, cosine = WAVE[:, : part.size] @ part
        projection = np.sin(start + 1.0) * cosine + np.cos(start + 1.0) * sine
        sums += part @ part, part.sum(), projection, np.abs(part).sum()
    return np.array([np.sqrt(sums[0]), *sums[1:], np.abs(flat).max()])


def over(ours: np.ndarray | float, theirs: np.ndarray | float, norm: np.ndarray | float) -> float:
    """Largest absolute difference over a norm; where the norm is 0, only 0 agrees."""
    difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
    norm = np.broadcast_to(norm, difference.shape)
    ratio = np.divide(difference, norm, out=np.where(difference == 0, 0.0, np.inf), where=norm != 0)
    return float(ratio.max())


def over_maximum(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference over the largest absolute value of the original."""
    if ours.shape != theirs.shape:
        raise ValueError(f"the original has shape {theirs.shape}, ours {ours.shape}")
    return over(ours, theirs, np.abs(theirs).max())


def over_norms(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Statistics relative to themselves, but sum and projection, which cancel, to the l1 norm."""
    l2, _, _, l1, maximum = theirs
    return over(ours, theirs, np.array([l2, l1, l1, l1, maximum]))


def over_first_8(ours: np.ndarray, first_8: np.ndarray, maximum: float) -> float:
    """Deviation of the first entries (the file pads a shorter array) over the array's largest absolute value."""
    size = min(8, ours.size)
    return over(ours.reshape(-1)[:size], first_8[:size], maximum)


def relative(ours: float, theirs: float) -> float:
    return over(ours, theirs, abs(theirs))


def rms(value: np.ndarray) -> float:
    return float(np.sqrt(np.square(value, dtype=np.float64).mean()))


def number_differing(ours: np.ndarray, theirs: np.ndarray) -> int:
    if ours.shape != theirs.shape:
        raise ValueError(f"the original has shape {theirs.shape}, ours {ours.shape}")
    return int((ours != theirs).sum())

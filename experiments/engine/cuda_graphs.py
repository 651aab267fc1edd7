"""Training steps as CUDA graphs: recorded once, then replayed as a whole instead of launched kernel by kernel.

The networks here are so small that a GPU computes a step faster than Python asks for it. A replay draws the random
numbers that the launched step would have drawn.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from experiments.errors import UserError

import torch
from torch import Tensor, nn

WARM_UP = 3  # calls before recording, in which libraries choose their kernels and reserve their memory


class Recorded:
    """A function that is recorded at its first call and replayed at every one.

    Args:
        step: takes tensors by name, of the same shapes at every call; returns tensors by name and leaves gradients in
            the model. It never waits for the device.
        model: its parameters' gradients and its buffers may change in a step, the parameters themselves not.
    """

    def __init__(self, step: Callable[..., dict[str, Tensor]], model: nn.Module) -> None:
        self.step, self.model = step, model
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, **values: Tensor) -> dict[str, Tensor]:
        """What `step` returns; the tensors, like the gradients, are overwritten by the next call.

        Raises:
            UserError: the step does something that cannot be recorded.
        """
        if self.graph is None:
            self._record(values)
        for name, value in values.items():
            self.values[name].copy_(value)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return dict(self.terms)

    def _record(self, values: dict[str, Tensor]) -> None:
        self.values = {name: value.clone() for name, value in values.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with _unchanged(self.model):
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    self.step(**self.values)
            torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self.terms = self.step(**self.values)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"a training step cannot be recorded ({reason}): use compute.graphs=False") from error
        self.gradients = [(parameter, parameter.grad) for parameter in self.model.parameters()]
        self.graph = graph


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Afterwards the model's buffers and the GPU's random numbers are what they were."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    random_numbers = torch.cuda.get_rng_state()
    yield
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    torch.cuda.set_rng_state(random_numbers)

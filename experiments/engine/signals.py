"""Signals that wait until a step is finished."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Signals:
    """What has arrived, `received`, None so far."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self.previous:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.received = number

    def restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def deliver(self) -> None:
        """Hand the signal to whom it was meant for."""
        self.restore()
        signal.raise_signal(self.received)


@contextmanager
def deferred_signals() -> Iterator[Signals]:
    """SIGINT and SIGTERM as a flag that a training loop reads between two steps."""
    signals = Signals()
    try:
        yield signals
    finally:
        signals.restore()

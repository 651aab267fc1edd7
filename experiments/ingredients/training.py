"""The phase runner that all models share.

Training is data: a list of phases, each with its epochs, learning rates and loss function. `Trainer` runs them in order
with one optimiser, one progress bar, checkpoints, and a resume that ends with the numbers of an uninterrupted run.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.configuration import at_least, between, positive
from experiments.engine import checkpoint
from experiments.engine.optimization import MomentumSGD, PhasedAdam, staircase_decay
from experiments.engine.processes import RANK, Parallel
from experiments.engine.signals import deferred_signals
from experiments.errors import UserError
from experiments.files import shown
from experiments.ingredients.compute import autocast, compiled, compute, recorded
from experiments.ingredients.tracking import Tracker
from experiments.observers.run_folder import CHECKPOINT

import torch
from sacred import Ingredient
from torch import Tensor, nn
from tqdm import tqdm


def training_ingredient(**phase_settings: Any) -> Ingredient:
    """The `training` part of an experiment's configuration: what all share, and the settings of its own phases."""
    training = Ingredient("training", ingredients=[compute], save_git_info=False)
    training.add_config(
        batch_size=300,  # samples per step; an incomplete last batch is dropped
        shuffle=True,  # a new order every epoch; false keeps the order of the data set
        learning_rate=0.001,  # of the optimiser
        decay_factor=0.99,  # the learning rate is multiplied by this ...
        decay_steps=5000,  # ... every so many steps, counted over all phases
        fresh_optimizer=False,  # forget Adam's moments and step counter at the start of every phase
        checkpoint_every=10,  # epochs between checkpoints; every phase ends with one too
        **phase_settings,
    )
    training.rules = {
        "training.batch_size": at_least(1),
        "training.learning_rate": positive,
        "training.decay_factor": between(0, 1),
        "training.decay_steps": at_least(1),
        "training.checkpoint_every": at_least(1),
    }
    return training


Terms = dict[str, Tensor]
FAILED_FILE_NAME = "failed.pt"
SHOWN = ("loss", "validation/classifier_accuracy", "validation/nmi_geometric", "validation/purity")  # in the bar


@dataclass(frozen=True)
class Update:
    """One optimiser step per batch.

    Attributes:
        loss: called with the batch's columns by name; returns scalar terms, the one called `loss` is minimised.
        learning_rates: spread evenly over the phase's epochs (more than there are epochs: over its steps), each decayed
            by `training.decay_factor`.
        schedules: further values that the loss takes by name, as scalar tensors; spread as the learning rates are.
    """

    loss: Callable[..., Terms]
    learning_rates: tuple[float, ...]
    schedules: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """A stage of training.

    Attributes:
        name: appears in the progress bar, in TensorBoard tags and in `seconds`.
        epochs: passes over the training set.
        updates: optimiser steps per batch, in order; what is logged as `loss` is the first one's.
        columns: called at the start of every epoch; returns further per-sample tensors `[N, ...]` that the losses take.
        prepare: called once per step with the batch's columns by name; returns what all its losses take instead.
        same_shapes: whether the losses see tensors of the same shapes in every step and never wait for the device, so
            that a GPU can replay a recorded step.
    """

    name: str
    epochs: int
    updates: tuple[Update, ...]
    columns: Callable[[], dict[str, Tensor]] | None = None
    prepare: Callable[..., dict[str, Tensor]] | None = None
    same_shapes: bool = True


@dataclass
class Epoch:
    """What an epoch has fixed at its start and gathered so far."""

    order: Tensor | None
    columns: dict[str, Tensor]
    totals: Terms = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0  # until the run was interrupted


@dataclass
class Progress:
    """Where a training stands, beside the weights; plain values, so that a checkpoint can hold it."""

    phase: int = 0
    epoch: int = 0
    global_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class Trainer:
    """Runs phases on a training set, logs them, and can stop and continue anywhere; alone or in several processes.

    Args:
        model: trained in place. With `config["resume"]` the constructor restores it, so whatever initialises it, from
            data for instance, comes before.
        phases: run in this order.
        inputs: the training set `[N, ...]` on the model's device; batches of it reach the losses as `inputs`.
        tracker: receives every epoch's means of all loss terms and what `evaluate` returns.
        evaluate: called after every epoch with the phase and the number of its finished epochs; may return nothing.
        config: the whole configuration; `config["resume"]` names the run folder to continue, or is None.
        data_checksum: of the data set; a run continues on no other.
        optimizer: makes the optimiser of the model's parameters.

    Raises:
        UserError: the batch is larger than the set or cannot be divided among the processes, or the checkpoint to
            resume does not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        phases: list[Phase],
        inputs: Tensor,
        tracker: Tracker,
        evaluate: Callable[[Phase, int], dict[str, float]],
        config: dict[str, Any],
        data_checksum: str,
        optimizer: Callable[[Iterable[nn.Parameter]], PhasedAdam | MomentumSGD] = PhasedAdam,
    ) -> None:
        settings = config["training"]
        self.batch_size = settings["batch_size"]
        if self.batch_size > len(inputs):
            raise UserError(f"training.batch_size={self.batch_size} exceeds the {len(inputs)} samples: lower it")
        self.model, self.phases, self.inputs = model, phases, inputs
        self.tracker, self.evaluate, self.settings = tracker, evaluate, settings
        self.decay = settings["decay_factor"], settings["decay_steps"]
        self.steps_per_epoch = len(inputs) // self.batch_size
        self.parallel = Parallel(model, self.batch_size)
        self.make_optimizer = optimizer
        self.optimizer = optimizer(model.parameters())
        self.progress = Progress()
        self.epoch: Epoch | None = None
        self.fingerprint = checkpoint.fingerprint(config)
        self.data_checksum = data_checksum
        if config["resume"]:
            self._restore(Path(config["resume"]) / CHECKPOINT)

    def run(self) -> Progress:
        """Train until the last phase ends; return the history and the seconds by phase.

        Raises:
            UserError: a loss is not finite.
            KeyboardInterrupt: after a checkpoint was saved, when the process was asked to stop.
        """
        total = sum(phase.epochs for phase in self.phases) * self.steps_per_epoch
        done = len(self.progress.history) * self.steps_per_epoch + (self.epoch.step if self.epoch else 0)
        with deferred_signals() as signals, _bar(total, done) as bar:
            self.signals, self.bar = signals, bar
            while self.progress.phase < len(self.phases):
                self._run_phase(self.phases[self.progress.phase])
                self.progress.phase += 1
                self.progress.epoch = 0
                self.save()
            if self._asked_to_stop():  # during the last save
                signals.deliver()
        return self.progress

    def _run_phase(self, phase: Phase) -> None:
        gradients = [self._gradients(phase, update) for update in phase.updates]
        if self.settings["fresh_optimizer"] and self.progress.epoch == 0 and self.epoch is None:
            self.optimizer = self.make_optimizer(self.model.parameters())
        while self.progress.epoch < phase.epochs:
            self._run_epoch(phase, gradients)
            if self.progress.epoch % self.settings["checkpoint_every"] == 0 and self.progress.epoch < phase.epochs:
                self.save()

    def _gradients(self, phase: Phase, update: Update) -> Callable[..., Terms]:
        """The loss of an update as a function that leaves its gradients in the model."""
        loss, device = compiled(update.loss), self.inputs.device

        def gradients(**values: Tensor) -> Terms:
            with autocast(device_type=device.type):
                terms = self.parallel.call(loss, **values)
            self.model.zero_grad()
            terms["loss"].backward()
            return {name: term.detach() for name, term in terms.items()}

        return recorded(gradients, self.model, device) if phase.same_shapes else gradients

    def _run_epoch(self, phase: Phase, gradients: list[Callable[..., Terms]]) -> None:
        start = time.perf_counter()
        self.bar.set_description(f"{phase.name} {self.progress.epoch + 1}/{phase.epochs}")
        if self.epoch is None:
            self.epoch = Epoch(self._order(), phase.columns() if phase.columns else {})
        schedules = [
            {name: torch.tensor(values, device=self.inputs.device) for name, values in update.schedules.items()}
            for update in phase.updates
        ]
        self.model.train()
        while self.epoch.step < self.steps_per_epoch:
            self._train_step(phase, gradients, schedules)
            if self.epoch.step < self.steps_per_epoch and self._asked_to_stop():
                self._add_seconds(phase.name, time.perf_counter() - start)
                self.epoch.seconds += time.perf_counter() - start
                self.epoch.totals = {name: self.parallel.mean(total) for name, total in self.epoch.totals.items()}
                self._stop()
        if self.inputs.is_cuda:
            torch.cuda.synchronize()
        self._add_seconds(phase.name, time.perf_counter() - start)
        self._finish_epoch(phase, self.epoch.seconds + time.perf_counter() - start)
        self.epoch = None
        if self._asked_to_stop():
            self._stop()

    def _asked_to_stop(self) -> bool:
        self.signals.received = self.parallel.agreed(self.signals.received)
        return self.signals.received is not None

    def _stop(self) -> None:
        """Save, then hand the signal to whom it was meant for."""
        self.save()
        self.signals.deliver()

    def _train_step(self, phase: Phase, gradients: list[Callable[..., Terms]], schedules: list[Terms]) -> None:
        epoch, progress = self.epoch, self.progress
        batch = self._batch()
        if phase.prepare:
            batch = phase.prepare(**batch)
        batch = self.parallel.part(batch)
        for update, gradients_of, schedule in zip(phase.updates, gradients, schedules, strict=True):
            rate = update.learning_rates[self._place(len(update.learning_rates), phase)]
            values = {name: column[self._place(len(column), phase)] for name, column in schedule.items()}
            terms = gradients_of(**batch, **values)
            self.optimizer.step_at(staircase_decay(rate, progress.global_step, *self.decay))
            progress.global_step += 1
            if update is not phase.updates[0]:
                del terms["loss"]
            for name, value in terms.items():
                epoch.totals[name] = epoch.totals.get(name, 0.0) + value
        epoch.step += 1
        self.bar.update()

    def _finish_epoch(self, phase: Phase, seconds: float) -> None:
        """Read the epoch's means from the device once, check, evaluate and log them."""
        progress = self.progress
        names, totals = zip(*self.epoch.totals.items(), strict=True)
        sums = self.parallel.mean(torch.stack([total.float() for total in totals]))
        means = (sums / self.steps_per_epoch).tolist()
        row: dict[str, Any] = {"phase": phase.name, "epoch": progress.epoch + 1, "seconds": round(seconds, 3)}
        row |= dict(zip(names, means, strict=True))
        broken = [name for name, mean in zip(names, means, strict=True) if not math.isfinite(mean)]
        if not all(value.isfinite().all() for value in self.model.state_dict().values()):
            broken.append("the state of the model")
        if broken:
            raise self._failed(
                f"{', '.join(broken)} is not finite in {phase.name} epoch {row['epoch']}: lower "
                "training.learning_rate or the loss weights"
            )
        progress.epoch += 1
        start = time.perf_counter()
        try:
            row |= self.evaluate(phase, progress.epoch)
        except UserError as error:
            raise self._failed(str(error)) from error
        self._add_seconds("evaluation", time.perf_counter() - start)
        progress.history.append(row)
        self._log(row, len(progress.history))
        shown = {name: row[name] for name in SHOWN if name in row}
        rate = self.steps_per_epoch * self.batch_size / seconds
        postfix = {name.removeprefix("validation/"): f"{value:.4g}" for name, value in shown.items()}
        self.bar.set_postfix(postfix, speed=f"{rate:.0f} samples/s")

    def _failed(self, reason: str) -> UserError:
        """The error that ends the run; its state is kept for whoever looks for the cause."""
        self.save(FAILED_FILE_NAME)
        return UserError(f"{reason} (state kept in {shown(self.tracker.folder / FAILED_FILE_NAME)})")

    def _log(self, row: dict[str, Any], step: int) -> None:
        scalars = {key: value for key, value in row.items() if key not in ("phase", "epoch")}
        self.tracker.scalars(
            {key if "/" in key else f"{row['phase']}/{key}": value for key, value in scalars.items()}, step
        )

    def _order(self) -> Tensor | None:
        return torch.randperm(len(self.inputs), device=self.inputs.device) if self.settings["shuffle"] else None

    def _batch(self) -> dict[str, Tensor]:
        span = slice(self.epoch.step * self.batch_size, (self.epoch.step + 1) * self.batch_size)
        rows = span if self.epoch.order is None else self.epoch.order[span]
        return {name: column[rows] for name, column in {"inputs": self.inputs, **self.epoch.columns}.items()}

    def _place(self, length: int, phase: Phase) -> int:
        """Index into a schedule of this length: it moves between epochs, that of a longer one between steps."""
        if length <= phase.epochs:
            return self.progress.epoch * length // phase.epochs
        done = self.progress.epoch * self.steps_per_epoch + self.epoch.step
        return done * length // (phase.epochs * self.steps_per_epoch)

    def _add_seconds(self, name: str, seconds: float) -> None:
        self.progress.seconds[name] = self.progress.seconds.get(name, 0.0) + seconds

    def save(self, name: str = CHECKPOINT) -> None:
        """Write a checkpoint into the run folder."""
        state = {
            "fingerprint": self.fingerprint,
            "data_checksum": self.data_checksum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "epoch": vars(self.epoch) if self.epoch else None,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state() if self.inputs.is_cuda else None,
        }
        checkpoint.save(self.tracker.folder / name, state)

    def _restore(self, path: Path) -> None:
        state = checkpoint.load(path, self.fingerprint)
        if state.get("data_checksum", self.data_checksum) != self.data_checksum:
            raise UserError(f"{path} was trained on other data: put the files back, or start the run anew")
        if (state["cuda_rng"] is not None) != self.inputs.is_cuda:
            kinds = ("the CPU", "a GPU") if self.inputs.is_cuda else ("a GPU", "the CPU")
            raise UserError(f"{path} was trained on {kinds[0]} and this is {kinds[1]}: resume where it began")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
            if state["epoch"]:
                self.epoch = Epoch(**_moved(state["epoch"], self.inputs.device))
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} does not fit today's code: resume it with the code that began it, or start the run anew"
            ) from error
        for step, row in enumerate(self.progress.history, start=1):
            self._log(row, step)
        torch.set_rng_state(state["rng"])
        if self.inputs.is_cuda:
            torch.cuda.set_rng_state(state["cuda_rng"])
        self.save()


def _bar(total: int, done: int) -> tqdm:
    return tqdm(total=total, initial=done, unit="step", mininterval=1.0, disable=RANK > 0)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value

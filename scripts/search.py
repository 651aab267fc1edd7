"""Searches hyperparameters with Optuna; the best trial is the one with the best metric of the *validation* split.

    python scripts/search.py configs/searches/dpsom.yaml --trials 40
    python scripts/search.py configs/searches/dpsom.yaml --trials 40 --storage postgresql://host/optuna     many workers

A search is a YAML file in configs/searches/: the experiment, the named config that every trial changes, metric and
space. Its study lies in `runs/search/<name of the file>/`: `study.db` (SQLite, unless --storage names another database
that Optuna supports), the trials' run folders, `best.yaml` and plots. The same command continues after an
interruption: a trial that was interrupted or killed is taken up again from its checkpoint. Each worker is the same
command, started once more.

A trial that ends with an error of its own (not a number, a collapsed map) counts as pruned, one that dies is retried.
A mistake that the first trial brings to light (no data, say) ends the search.
Exit status: 0 all trials are done, 1 no trial ended with a metric, 2 a mistake in what was asked for, 130 interrupted.
"""

import argparse
import io
import shlex
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from experiments import PROJECT
from experiments.configuration import config_path, read_settings
from experiments.errors import UserError, one_line, reported
from experiments.observers.redaction import redact
from experiments.record import Provenance, state_of_code
from scripts.records import read_json, write_result
from scripts.scheduling.jobs import Job, Setting, died, last_line, log_of, relative, settle, train
from scripts.scheduling.plan import cores
from scripts.search_space import KEYS, Search, nested

import matplotlib.pyplot as plt
import numpy as np
import optuna
import yaml
from matplotlib.ticker import NullFormatter
from optuna.trial import TrialState
from sacred.utils import recursive_update
from tqdm import tqdm

HEARTBEAT_SECONDS, GRACE_SECONDS = 20, 60  # a trial that is silent for so long has lost its worker
MOST_RETRIES = 3
PLOTS = ("optimization_history", "slice", "param_importances")


class Study:
    """A search, where it is stored, and what has been tried so far."""

    def __init__(self, search: Search, folder: Path, storage: str | None, seed: int, threads: int):
        self.search, self.folder, self.seed = search, folder, seed
        self.threads, self.code = threads, state_of_code(Provenance.now())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder} ({error.strerror}): choose another --folder") from error
        self.retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES)
        url = storage or f"sqlite:///{folder / 'study.db'}"
        try:
            database = optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=self.retry,
            )
            self.study = optuna.create_study(
                storage=database, study_name=search.name, direction=search.direction, load_if_exists=True
            )
        except Exception as error:  # each database has its own
            reason = redact(one_line(error))
            raise UserError(
                f"cannot use the storage {redact(url)} ({reason}): check its URL and that it runs"
            ) from error
        about = {key: getattr(search, key) for key in KEYS} | {"seed": seed}
        former = self.study.user_attrs.get("search")
        if former not in (None, about):
            raise UserError(
                f"the study {search.name} was begun with {former}: give the file another name, or delete "
                f"the study in {relative(folder)}"
            )
        self.study.set_user_attr("search", about)

    def count(self, *states: TrialState) -> int:
        return len(self.study.get_trials(deepcopy=False, states=states))

    def run(self, trials: int) -> None:
        """Until `trials` trials are done, here or by other workers."""
        with tqdm(total=trials, unit="trial", desc=self.search.name) as bar:
            while (done := self.count(TrialState.COMPLETE, TrialState.PRUNED)) < trials:
                bar.update(done - bar.n)
                optuna.storages.fail_stale_trials(self.study)
                if done + self.count(TrialState.RUNNING) < trials:
                    self.study.optimize(self.objective, n_trials=1, callbacks=[tell])
                else:
                    time.sleep(1)  # for other workers, or until a lost one is noticed
            bar.update(done - bar.n)

    def objective(self, trial: optuna.Trial) -> float:
        """Trains one configuration and returns its metric; Ctrl-C puts the trial back into the queue."""
        try:
            return self.metric_of(trial)
        except KeyboardInterrupt:
            self.requeue(self.frozen(trial))
            raise

    def requeue(self, trial: optuna.trial.FrozenTrial) -> None:
        """As the retry of a trial that died does, but without counting among its retries."""
        again = {"failed_trial": trial.number} | trial.system_attrs
        self.study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=again,
            )
        )

    def frozen(self, trial: optuna.Trial) -> optuna.trial.FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def metric_of(self, trial: optuna.Trial) -> float:
        parameters = self.search.suggested(trial)
        taken_up = self.retry.retried_trial_number(self.frozen(trial))
        number = trial.number if taken_up is None else taken_up
        config = self.search.resolved(parameters, self.seed)
        job = Job(self.search.experiment, self.search.config, self.seed, config)
        job.updates = [f"{key}={value!r}" for key, value in parameters.items()] + ["tracking.figures=False"]
        setting = Setting(self.folder / "trials" / str(number), self.threads, self.code)
        settle(job, setting)
        while job.action != "collect":
            status = finish(train(job, setting))
            settle(job, setting)
            if status == 2 and not self.count(TrialState.COMPLETE) and not any(setting.runs_dir.rglob("failed.pt")):
                raise UserError(f"the first trial ends with: {last_line(log_of(job, setting))}")
            if job.action != "collect" and (not died(status) or job.deaths == MOST_RETRIES):
                trial.set_user_attr("error", last_line(log_of(job, setting)))
                raise optuna.TrialPruned
            job.deaths += 1
        metrics = read_json(job.folder / "record.json")["metrics"]
        if self.search.metric not in metrics:
            names = ", ".join(name for name in metrics if name.startswith("validation/"))
            raise UserError(f"{self.search.experiment} has no metric {self.search.metric}: there are {names}")
        if metrics[self.search.metric] is None:
            trial.set_user_attr("error", f"{self.search.metric} is undefined")
            raise optuna.TrialPruned
        return metrics[self.search.metric]

    def export_best(self) -> Path:
        """Writes the best trial as a YAML of the experiment; returns its path."""
        best, search = self.study.best_trial, self.search
        base = config_path(search.experiment, search.config)
        content = recursive_update(read_settings(base), nested(search.suggested(best)))
        path = self.folder / "best.yaml"
        header = [
            f"# Best of {self.count(TrialState.COMPLETE)} trials of the search {search.name}, which changed "
            f"{', '.join(search.parameters)} of {search.config}.",
            f"# {search.metric} {best.value:.4f} with seed {self.seed}; the test split was not looked at.",
            f"# python experiments/{search.experiment}.py with {relative(path)}",
        ]
        write_result(path, ("\n".join(header) + "\n" + yaml.safe_dump(content, sort_keys=False)).encode())
        return path

    def draw(self) -> None:
        """Optuna's plots of the study as PNG files."""
        for name in PLOTS:
            if name == "param_importances" and self.count(TrialState.COMPLETE) < 2:
                continue
            plot = getattr(optuna.visualization.matplotlib, f"plot_{name}")
            axes = np.ravel(plot(self.study, target_name=self.search.metric))
            for axis in axes:  # on short logarithmic axes these labels lie upon one another
                axis.xaxis.set_minor_formatter(NullFormatter())
            buffer = io.BytesIO()
            axes[0].figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
            write_result(self.folder / "figures" / f"{name}.png", buffer.getvalue())
            plt.close(axes[0].figure)


def finish(process: subprocess.Popen) -> int:
    """The exit status of a training, which on Ctrl-C saves its state first."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """One line about a trial that has ended."""
    found = f"{trial.value:.4f}" if trial.value is not None else trial.user_attrs.get("error", trial.state.name.lower())
    tqdm.write(f"trial {trial.number}: {found}  {trial.params}", file=sys.stderr)


@reported
def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description="Search hyperparameters on the validation split.")
    parser.add_argument("search", type=Path, help="file such as configs/searches/dpsom.yaml")
    parser.add_argument("--trials", type=int, default=20, help="trials of the whole study (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of every trial (default: 0)")
    parser.add_argument(
        "--storage", metavar="URL", help="database of Optuna's (default: study.db in the study's folder)"
    )
    parser.add_argument(
        "--folder", type=Path, default=PROJECT / "runs" / "search", help="of studies (default: runs/search)"
    )
    parser.add_argument("--threads", type=int, default=cores(), help="of each trial (default: all cores)")
    options = parser.parse_args(arguments)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        for name in ("trials", "threads"):
            if (value := getattr(options, name)) < 1:
                raise UserError(f"--{name} {value}: at least 1 is needed")
        search = Search.read(options.search)
        search.check(options.seed)
        study = Study(search, options.folder.absolute() / search.name, options.storage, options.seed, options.threads)
        study.run(options.trials)
        if not study.count(TrialState.COMPLETE):
            print("error: every trial failed; trials/*/logs/ in the study's folder say why", file=sys.stderr)
            return 1
        best = study.export_best()
        study.draw()
    except KeyboardInterrupt:
        again = shlex.join(["python", "scripts/search.py", *arguments])
        print(f"interrupted; the trial has saved its state, continue with: {redact(again)}", file=sys.stderr)
        return 130
    print(f"best: {study.search.metric} {study.study.best_value:.4f} -> {relative(best)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

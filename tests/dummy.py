"""A Sacred experiment "dummy" with the observers of ours, for the tests of tracking."""

from pathlib import Path

from experiments.ingredients.tracking import Tracker, attach_observers, configure, tracking
from experiments.observers.run_folder import check_observers

from sacred import Experiment


def dummy_experiment() -> Experiment:
    experiment = Experiment("dummy", ingredients=[tracking], base_dir=Path(__file__).parent, save_git_info=False)
    configure(experiment)

    @experiment.config_hook
    def hook(config, command_name, logger):
        attach_observers(experiment, config)
        return {}

    return experiment


def run_dummy(body, runs_dir: Path, beat: float = 0.1, **options):
    """Run `body(tracker)` as the experiment's main function, with a heartbeat every `beat` seconds.

    `options` are those of `tracking`. Returns the finished Sacred run.
    """
    experiment = dummy_experiment()

    @experiment.main
    def main(_run):
        with Tracker(_run) as tracker:
            return body(tracker)

    updates = {"tracking": {"runs_dir": str(runs_dir), **options}}
    run = experiment.run(config_updates=updates, options={"--beat-interval": beat})
    check_observers(run)
    return run

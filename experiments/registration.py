"""What makes a Sacred experiment one of this repository's: named configs, strict checks, observers."""

from typing import Any

from experiments import PROJECT
from experiments.configuration import Rule, check_config, default_config
from experiments.ingredients.tracking import attach_observers, configure

from sacred import Experiment


def register(experiment: Experiment, rules: dict[str, Rule]) -> None:
    """Add `configs/<experiment>/*.yaml` as named configs; check every configuration before a run leaves any trace.

    Args:
        experiment: with all its defaults added.
        rules: by dotted key, for the experiment and its ingredients.
    """
    configure(experiment)
    for path in sorted((PROJECT / "configs" / experiment.path).glob("*.yaml")):
        experiment.add_named_config(path.stem, str(path))

    @experiment.config_hook
    def check_and_observe(config: dict[str, Any], command_name: str, logger: Any) -> dict[str, Any]:
        check_config(config, default_config(experiment), rules)
        if command_name == experiment.default_command:
            attach_observers(experiment, config)
        return {}

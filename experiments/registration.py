"""What makes a Sacred experiment one of this repository's: named configs, strict checks, observers."""

from contextlib import suppress
from typing import Any

from experiments.configuration import Rule, check_config, config_path, default_config, read_settings
from experiments.errors import UserError
from experiments.ingredients.tracking import attach_observers, configure

from sacred import Experiment


def register(experiment: Experiment, rules: dict[str, Rule]) -> None:
    """Add `configs/<experiment>/*.yaml` as named configs; check every configuration before a run leaves any trace.

    Args:
        experiment: with all its defaults added.
        rules: by dotted key, for the experiment and its ingredients.
    """
    configure(experiment)
    add_named_configs(experiment)

    @experiment.config_hook
    def check_and_observe(config: dict[str, Any], command_name: str, logger: Any) -> dict[str, Any]:
        check_config(config, default_config(experiment), rules)
        if command_name == experiment.default_command:
            attach_observers(experiment, config)
        return {}


def add_named_configs(experiment: Experiment) -> None:
    """Add the experiment's YAMLs, but those that cannot be read: whoever asks for one is told why by `launch`."""
    for path in sorted(config_path(experiment.path, "").parent.glob("*.yaml")):
        with suppress(UserError):
            experiment.add_named_config(path.stem, read_settings(path))

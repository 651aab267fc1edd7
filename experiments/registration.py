"""What makes a Sacred experiment one of this repository's: named configs, strict checks, observers."""

from contextlib import suppress
from functools import reduce
from operator import or_
from typing import Any

from experiments.configuration import (
    Rule,
    any_seed,
    check_config,
    config_folder,
    default_config,
    optional,
    read_settings,
    text,
)
from experiments.errors import UserError
from experiments.ingredients.tracking import attach_observers, configure

from sacred import Experiment

COMMON_RULES = {"seed": any_seed, "resume": optional(text)}


def register(experiment: Experiment, rules: dict[str, Rule]) -> None:
    """Add `configs/<experiment>/*.yaml` as named configs; check every configuration before a run leaves any trace.

    Args:
        experiment: with all its defaults added.
        rules: by dotted key, one for each of the experiment's own values that is no switch; an ingredient carries those
            of its values as `rules`.
    """
    configure(experiment)
    add_named_configs(experiment)

    @experiment.config_hook
    def check_and_observe(config: dict[str, Any], command_name: str, logger: Any) -> dict[str, Any]:
        defaults = default_config(experiment)
        of_ingredients = [getattr(ingredient, "rules", {}) for ingredient, _ in experiment.traverse_ingredients()]
        common = {key: rule for key, rule in COMMON_RULES.items() if key in defaults}
        check_config(config, defaults, reduce(or_, [common, *of_ingredients, rules]))
        if command_name == experiment.default_command:
            attach_observers(experiment, config)
        return {}


def add_named_configs(experiment: Experiment) -> None:
    """Add the experiment's YAMLs, but those that cannot be read: whoever asks for one is told why by `launch`."""
    for path in sorted(config_folder(experiment.path).glob("*.yaml")):
        with suppress(UserError):
            experiment.add_named_config(path.stem, read_settings(path))

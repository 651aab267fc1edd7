"""What a search is about: a file in configs/searches/ and the space of hyperparameters that it spans."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import UserError, one_line
from scripts.scheduling.plan import load_experiment, resolve_config

import optuna
import yaml
from sacred.utils import set_by_dotted_path

KEYS = ("experiment", "config", "metric", "direction", "parameters")


@dataclass(frozen=True)
class Search:
    """What is searched: the fields of a file in configs/searches/."""

    name: str
    experiment: str
    config: str
    metric: str
    direction: str
    parameters: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Search":
        """The search in a file.

        Raises:
            UserError: it is unreadable, lacks a key, or would choose by anything but the validation split.
        """
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"cannot read the search {path}: {one_line(error)}") from error
        if not isinstance(content, dict) or set(content) != set(KEYS):
            raise UserError(f"{path} must have exactly these keys: {', '.join(KEYS)}")
        search = cls(path.stem, **content)
        if not str(search.metric).startswith("validation/"):
            raise UserError(f"{path}: metric {search.metric!r} is no metric of the validation split (validation/...)")
        if search.direction not in ("maximize", "minimize"):
            raise UserError(f"{path}: direction is {search.direction!r}: write maximize or minimize")
        keys = search.parameters
        if not isinstance(keys, dict) or not keys or not all(isinstance(key, str) for key in keys):
            raise UserError(f"{path}: parameters must name values of the config, as model.alpha, each with its space")
        if "seed" in keys:
            raise UserError(f"{path}: the seed is no hyperparameter: give it as --seed")
        for key in keys:
            search.distribution(key)
            if inside := [other for other in keys if other.startswith(f"{key}.")]:
                raise UserError(f"{path}: {inside[0]} is a part of {key}: search one of them")
        return search

    def distribution(self, key: str) -> optuna.distributions.BaseDistribution:
        """Of one parameter: `{choices: [...]}`, or `{low:, high:}` with `log: true` or `step:`; integers stay integers.

        Raises:
            UserError: it is written otherwise.
        """
        entry = self.parameters[key]
        try:
            if set(entry) == {"choices"}:
                if not all(isinstance(choice, bool | int | float | str | list | None) for choice in entry["choices"]):
                    raise TypeError("choices are numbers, words, lists, true, false or null")
                return optuna.distributions.CategoricalDistribution([encoded(choice) for choice in entry["choices"]])
            whole = all(type(entry[name]) is int for name in ("low", "high"))
            kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
            return kind(**entry)
        except (TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{key}: {entry} is no space ({error}): write choices: [...], or low:, high: and maybe log: or step:"
            ) from error

    def suggested(self, trial: optuna.Trial | optuna.trial.FrozenTrial) -> dict[str, Any]:
        """The parameters of a trial, also of one that has ended."""
        return {key: self.suggest(trial, key) for key in self.parameters}

    def suggest(self, trial: optuna.Trial | optuna.trial.FrozenTrial, key: str) -> Any:
        space = self.distribution(key)
        if isinstance(space, optuna.distributions.CategoricalDistribution):
            lists = {encoded(choice): choice for choice in self.parameters[key]["choices"] if isinstance(choice, list)}
            choice = trial.suggest_categorical(key, space.choices)
            return lists.get(choice, choice)
        number = trial.suggest_int if isinstance(space, optuna.distributions.IntDistribution) else trial.suggest_float
        return number(key, space.low, space.high, step=space.step, log=space.log)

    def resolved(self, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
        """Every value of the configuration with these parameters; UserError when it is none."""
        return resolve_config(load_experiment(self.experiment), self.config, seed, nested(parameters))

    def check(self, seed: int) -> None:
        """UserError when the configuration does not know a parameter or would not take its first or last value."""
        for key in self.parameters:
            entry = self.parameters[key]
            for value in entry["choices"] if "choices" in entry else (entry["low"], entry["high"]):
                self.resolved({key: value}, seed)


def encoded(choice: Any) -> Any:
    """A choice as Optuna can store it: a list becomes its text."""
    return json.dumps(choice) if isinstance(choice, list) else choice


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"model.alpha": 10} -> {"model": {"alpha": 10}}."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        set_by_dotted_path(tree, key, value)
    return tree

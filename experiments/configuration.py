"""Strict checking of a configuration: unknown keys, wrong types and impossible values become one-line errors.

Sacred only warns about most of these. The defaults say which keys there are and of which type; rules, keyed by the
dotted name, say what else a value must satisfy:

    RULES = {"compute.device": one_of("auto", "cpu", "cuda"), "compute.threads": optional(at_least(1))}
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any

from experiments import PROJECT
from experiments.errors import UserError

from sacred import Ingredient
from sacred.config import load_config_file
from sacred.utils import get_by_dotted_path, iterate_flattened, recursive_update, set_by_dotted_path

KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "a string", NoneType: "None"}


@dataclass(frozen=True)
class Rule:
    """What a value must satisfy besides having the type of its default; of a list, each element must.

    `allowed` completes "it must be a number, ..."; `kind` is the type that counts where the default is None.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    kind: type
    none: bool = False
    any_length: bool = False


def at_least(minimum: float) -> Rule:
    """An integer `minimum` asks for integers where the default is None."""
    return Rule(f"at least {minimum:g}", lambda value: value >= minimum, type(minimum))


def between(low: float, high: float) -> Rule:
    """Both ends are allowed."""
    return Rule(f"between {low:g} and {high:g}", lambda value: low <= value <= high, float)


def inside(low: float, high: float) -> Rule:
    """Neither end is allowed."""
    return Rule(f"greater than {low:g} and less than {high:g}", lambda value: low < value < high, float)


def one_of(*values: str | bool) -> Rule:
    return Rule(f"one of {', '.join(map(repr, values))}", lambda value: value in values, type(values[0]))


any_seed = Rule("between 0 and 4294967295", lambda value: 0 <= value < 2**32, int)  # NumPy's
positive = Rule("greater than 0", lambda value: value > 0, float)
text = Rule("not empty", lambda value: value != "", str)


def optional(rule: Rule) -> Rule:
    """`rule`, or None; the default may then be either."""
    return replace(rule, none=True)


def any_length(rule: Rule) -> Rule:
    """`rule` for a list with one element or more, however many its default has."""
    return replace(rule, any_length=True)


def weights_of(loss: type) -> dict[str, Rule]:
    """Rules for the weights of a loss, the float fields of the dataclass `loss`: none may be negative."""
    return {f"loss.{field.name}": at_least(0.0) for field in fields(loss) if field.type is float}


def default_config(experiment: Ingredient) -> dict[str, Any]:
    """The nested defaults of an experiment and its ingredients, as given to `add_config`."""
    defaults: dict[str, Any] = {}
    for ingredient, depth in sorted(experiment.traverse_ingredients(), key=lambda pair: pair[1], reverse=True):
        path = ingredient.path if depth else ""
        if path and path not in defaults:
            set_by_dotted_path(defaults, path, {})
        group = get_by_dotted_path(defaults, path)
        for configuration in ingredient.configurations:
            recursive_update(group, configuration())
    return defaults


def config_folder(experiment: str) -> Path:
    """Where the files of an experiment's named configs lie."""
    return PROJECT / "configs" / experiment


def config_path(experiment: str, name: str) -> Path:
    """The file of a named config."""
    return config_folder(experiment) / f"{name}.yaml"


def read_settings(path: str | Path) -> dict[str, Any]:
    """The nested settings in a file of any format that Sacred reads (YAML, JSON).

    Raises:
        UserError: it cannot be read, or holds what no configuration has.
    """
    try:
        settings = load_config_file(str(path))
    except Exception as error:  # each format has its own
        raise UserError(f"cannot read the settings in the file {path}: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"cannot read the settings in the file {path}: it holds no mapping of keys to values")
    if settings.get("resume") is not None:
        raise UserError(f"the file {path} sets resume: remove it there and give resume=FOLDER alone")
    for key in _keys_within(settings):
        if not isinstance(key, str) or "." in key or key.startswith("$"):
            raise UserError(
                f"the file {path} has the key {key!r}: write names, and members below their group, as in "
                "model: {alpha: 3}"
            )
    return settings


def check_config(config: dict[str, Any], defaults: dict[str, Any], rules: dict[str, Rule]) -> None:
    """Compare a nested configuration with the defaults it was made from.

    A value must have the type of its default (an integer will do for a number, True and False will not; None only where
    the default is None or the rule is `optional`), and a list its default's length (unless the rule is `any_length`).

    Raises:
        UserError: the first unknown key with the closest valid one, else the first wrong value with what is allowed.
        ValueError: a rule for a key that does not exist.
    """
    values, expected = dict(iterate_flattened(config)), dict(iterate_flattened(defaults))
    if stray := rules.keys() - expected.keys():
        raise ValueError(f"rules for keys that do not exist: {sorted(stray)} (add_config names a key and its default)")
    for key in values:
        if key not in expected:
            raise UserError(_unknown_key(key, expected))
    for key, value in values.items():
        if not _fits(value, expected[key], rules.get(key)):
            raise UserError(f"{key} is {value!r}: it must be {_allowed(expected[key], rules.get(key))}{_hint(value)}")


def closest(name: str, names: Iterable[str]) -> str:
    """A hint that ends an error message: the most similar of `names`, or all of them."""
    similar = get_close_matches(name, names, n=1)
    return f"did you mean {similar[0]}?" if similar else f"there are {', '.join(sorted(names)) or 'none'}"


def _keys_within(settings: Mapping[Any, Any]) -> Iterator[Any]:
    """Every key of nested mappings, those in lists aside."""
    for key, value in settings.items():
        yield key
        if isinstance(value, Mapping):
            yield from _keys_within(value)


def _unknown_key(key: str, known: Iterable[str]) -> str:
    if members := [name for name in known if name.startswith(f"{key}.")]:
        return f"{key} is a group of settings and has no value of its own: set {', '.join(members)}"
    related = [name for name in known if key.rpartition(".")[2] in name]  # learning_rate for training.learning_rate
    nearest = get_close_matches(key, related or known, n=1, cutoff=0)[0]
    return f"unknown configuration key {key!r}: the closest valid one is {nearest} (print_config shows all)"


def _fits(value: Any, default: Any, rule: Rule | None) -> bool:
    if value is None:
        return default is None or (rule is not None and rule.none)
    if isinstance(default, list):
        if not isinstance(value, list) or not value:
            return False
        return (len(value) == len(default) or _any_length(rule)) and all(
            item is not None and _fits(item, default[0], rule) for item in value
        )
    return _is_a(_kind(default, rule), value) and (rule is None or rule.accepts(value))


def _hint(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+e[-+]?\d+", value):
        return f" (YAML takes {value} for text: write {Decimal(value):f})"
    return ""


def _any_length(rule: Rule | None) -> bool:
    return rule is not None and rule.any_length


def _kind(default: Any, rule: Rule | None) -> type:
    return rule.kind if default is None and rule else type(default)


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


def _allowed(default: Any, rule: Rule | None) -> str:
    if isinstance(default, list):
        length = "one or more" if _any_length(rule) else len(default)
        words = f"a list of {length} values, each {KINDS[type(default[0])]}"
    else:
        words = KINDS[_kind(default, rule)]
    if rule:
        words += f", {rule.allowed}" + (", or None" if rule.none else "")
    return words + (f", such as {default}" if isinstance(default, list) else "")

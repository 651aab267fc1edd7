"""What counts as a mistake in a configuration, and what is said about it."""

from experiments import PROJECT, registration
from experiments.configuration import (
    any_length,
    at_least,
    between,
    check_config,
    default_config,
    inside,
    one_of,
    optional,
    positive,
    text,
)
from experiments.errors import UserError
from scripts.scheduling.plan import load_experiment, resolve_config

import pytest
from sacred import Experiment, Ingredient
from sacred.utils import iterate_flattened

DEFAULTS = {
    "seed": 0,
    "resume": None,
    "compute": {"device": "auto", "threads": None, "compile": False},
    "model": {"map_size": [8, 8], "alpha": 10.0, "clip": 1.0},
    "training": {"share": 0.5, "learning_rate": 0.001, "decay": 0.99, "joint_epochs": 300},
}
RULES = {
    "resume": optional(text),
    "compute.device": one_of("auto", "cpu", "cuda"),
    "compute.threads": optional(at_least(1)),
    "model.map_size": at_least(1),
    "model.clip": optional(positive),
    "training.learning_rate": positive,
    "training.decay": between(0, 1),
    "training.share": inside(0, 1),
}


def changed(key, value):
    """The defaults with one (dotted) key changed or added."""
    group, _, name = key.rpartition(".")
    config = {name: dict(entry) if isinstance(entry, dict) else entry for name, entry in DEFAULTS.items()}
    (config.setdefault(group, {}) if group else config)[name] = value
    return config


def test_defaults_of_experiment_and_nested_ingredients():
    inner = Ingredient("outer.inner", save_git_info=False)
    inner.add_config(depth=2)
    outer = Ingredient("outer", ingredients=[inner], save_git_info=False)
    outer.add_config({"sizes": (1, 2), "nested": {"a": 1, "b": 2}})
    outer.add_config({"nested": {"b": 3}})
    outer.add_named_config("other", depth=5)
    experiment = Experiment("test", ingredients=[outer], save_git_info=False)
    experiment.add_config(seed=0, model={"alpha": 1.0})
    assert default_config(experiment) == {
        "seed": 0,
        "model": {"alpha": 1.0},
        "outer": {"sizes": [1, 2], "nested": {"a": 1, "b": 3}, "inner": {"depth": 2}},
    }


def test_defaults_equal_what_sacred_computes():
    outer = Ingredient("outer", save_git_info=False)
    outer.add_config({"nested": {"a": 1, "b": 2}})
    outer.add_config({"nested": {"b": 3}, "c": [1]})
    experiment = Experiment("test", ingredients=[outer], save_git_info=False)
    experiment.add_config(seed=0)

    @experiment.main
    def main(_config):
        return dict(_config)

    assert default_config(experiment) == experiment.run().config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("resume", "runs/dpsom/1"),
        ("compute.device", "cpu"),
        ("compute.threads", 2),
        ("compute.compile", True),
        ("model.map_size", [4, 5]),
        ("model.alpha", 3),
        ("model.clip", None),
        ("training.decay", 0),
        ("training.decay", 1),
    ],
)
def test_accepts(key, value):
    check_config(changed(key, value), DEFAULTS, RULES)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("seed", True, "an integer"),
        ("seed", 1.0, "an integer"),
        ("seed", None, "an integer"),
        ("resume", 3, "a string, not empty, or None"),
        ("resume", "", "a string, not empty, or None"),
        ("compute.device", "gpu", "a string, one of 'auto', 'cpu', 'cuda'"),
        ("compute.threads", 0, "an integer, at least 1, or None"),
        ("compute.threads", 1.5, "an integer, at least 1, or None"),
        ("compute.threads", True, "an integer, at least 1, or None"),
        ("compute.threads", "null", "an integer, at least 1, or None"),
        ("compute.compile", 1, "True or False"),
        ("compute.compile", "true", "True or False"),
        ("model.map_size", 8, "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", (8, 8), "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", [8], "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", [8, 8, 8], "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", [0, 8], "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", [8, 8.0], "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.map_size", [8, None], "a list of 2 values, each an integer, at least 1, such as [8, 8]"),
        ("model.alpha", "ten", "a number"),
        ("model.alpha", False, "a number"),
        ("model.alpha", float("nan"), "a number"),
        ("model.alpha", float("inf"), "a number"),
        ("model.alpha", 10**400, "a number"),
        ("model.clip", -1.0, "a number, greater than 0, or None"),
        ("training.learning_rate", 0, "a number, greater than 0"),
        ("training.learning_rate", None, "a number, greater than 0"),
        ("training.decay", 1.01, "a number, between 0 and 1"),
        ("training.decay", -0.01, "a number, between 0 and 1"),
        ("training.share", 1, "a number, greater than 0 and less than 1"),
        ("training.share", 0.0, "a number, greater than 0 and less than 1"),
    ],
)
def test_rejects_with_key_value_and_what_is_allowed(key, value, allowed):
    with pytest.raises(UserError) as error:
        check_config(changed(key, value), DEFAULTS, RULES)
    assert str(error.value) == f"{key} is {value!r}: it must be {allowed}"


def test_numbers_that_yaml_takes_for_text_are_explained():
    with pytest.raises(UserError, match=r"is '1e-3': it must be .* \(YAML takes 1e-3 for text: write 0\.001\)$"):
        check_config(changed("training.learning_rate", "1e-3"), DEFAULTS, RULES)


def test_lists_of_any_length():
    rules = {"rates": optional(any_length(positive))}
    for rates in ([0.5], [0.9, 0.3, 0.1], None):
        check_config({"rates": rates}, {"rates": [0.9, 0.1]}, rules)
    for rates in ([], [0.5, 0.0], [0.5, None], 0.5):
        with pytest.raises(UserError) as error:
            check_config({"rates": rates}, {"rates": [0.9, 0.1]}, rules)
        allowed = "a list of one or more values, each a number, greater than 0, or None, such as [0.9, 0.1]"
        assert str(error.value) == f"rates is {rates!r}: it must be {allowed}"


def test_none_only_where_the_default_is_none_without_a_rule():
    check_config({"limit": None}, {"limit": None}, {})
    with pytest.raises(UserError, match="limit is 5: it must be None"):
        check_config({"limit": 5}, {"limit": None}, {})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.lerning_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("rate", "training.learning_rate"),
        ("model.learning_rate", "training.learning_rate"),
        ("epochs", "training.joint_epochs"),
        ("sead", "seed"),
        ("trainig.decay", "training.decay"),
        ("model.map_size.height", "model.map_size"),
    ],
)
def test_unknown_key_names_the_closest(key, nearest):
    config = changed(key, 1) if key.count(".") < 2 else changed("model.map_size", {"height": 1})
    with pytest.raises(UserError) as error:
        check_config(config, DEFAULTS, RULES)
    assert str(error.value).startswith(f"unknown configuration key {key!r}: the closest valid one is {nearest} ")


def test_a_group_is_not_a_value():
    with pytest.raises(UserError, match=r"^model is a group .*: set model\.alpha, model\.clip, model\.map_size$"):
        check_config(changed("model", 3), DEFAULTS, RULES)


@pytest.mark.parametrize("name", sorted({folder.name for folder in (PROJECT / "configs").iterdir()} - {"searches"}))
def test_every_value_but_a_switch_has_a_rule(monkeypatch, name):
    checked = []
    monkeypatch.setattr(registration, "check_config", lambda *arguments: checked.append(arguments))
    experiment = load_experiment(name)
    resolve_config(experiment, next(iter(dict(experiment.gather_named_configs()))))
    ((_, defaults, rules),) = checked
    values = dict(iterate_flattened(defaults))
    assert [key for key, value in values.items() if key not in rules and not isinstance(value, bool)] == []


def test_a_rule_for_a_key_that_does_not_exist_is_a_programming_error():
    with pytest.raises(ValueError, match=r"model\.beta"):
        check_config(DEFAULTS, DEFAULTS, {"model.beta": positive})

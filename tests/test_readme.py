"""The README tells the truth: its commands resolve, its files and make targets exist; so does every shipped config."""

import re
import shlex
from pathlib import Path

from experiments.dpsom import ex
from experiments.errors import UserError
from scripts.reproduce import load_experiment, resolve_config

import pytest
from sacred.arg_parser import get_config_updates

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
CONFIGS = sorted((path.parent.name, path.stem) for path in (ROOT / "configs").glob("*/*.yaml"))
COMMANDS = re.findall(r"^python experiments/(\w+)\.py (.*?)(?: {2,}#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize(("experiment", "command"), COMMANDS)
def test_commands_resolve(experiment, command):
    words = shlex.split(command)
    updates, named_configs = get_config_updates(words[words.index("with") + 1 :])
    if "resume" in updates:
        assert updates == {"resume": "runs/dpsom/3"}
        assert not named_configs
        return
    options = {"--force": True, "--loglevel": "ERROR"}
    load_experiment(experiment).run("print_config", updates, named_configs, options=options)


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize(("experiment", "name"), CONFIGS)
def test_every_config_resolves_and_says_how_to_run_it(experiment, name):
    config = resolve_config(load_experiment(experiment), name)
    assert config["seed"] == 0
    header = (ROOT / "configs" / experiment / f"{name}.yaml").read_text().split("\ndata:")[0]
    assert f"python experiments/{experiment}.py with {name}" in header


def test_an_unknown_key_in_a_command_is_noticed():
    with pytest.raises(UserError, match=r"model\.map_sise"):
        ex.run("print_config", {"model": {"map_sise": [4, 4]}}, options={"--force": True, "--loglevel": "ERROR"})


def test_faithful_differs_from_corrected_where_the_readme_says():
    rows = re.findall(r"^\| `(model|training|evaluation)\.(\w+)`", README, re.MULTILINE)
    faithful, corrected = resolve_config(ex, "mnist_faithful"), resolve_config(ex, "mnist")
    assert len(rows) == 7
    for group, key in rows:
        assert faithful[group][key] != corrected[group][key]
    named = {f"{group}.{key}" for group, key in rows} | {"model.normalize_before", "evaluation.every"}
    different = {
        f"{group}.{key}"
        for group, values in faithful.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if value != corrected[group][key]
    }
    assert different <= named | {"evaluation.test_curve"}


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target

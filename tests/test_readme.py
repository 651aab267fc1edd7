"""The README tells the truth: its commands resolve, its files and make targets exist; so does every shipped config."""

import re
import shlex
from pathlib import Path

from experiments import PROJECT
from experiments.configuration import default_config
from experiments.dpsom import ex
from experiments.errors import UserError
from scripts.records import differing_keys
from scripts.scheduling.plan import load_experiment, resolve_config

import pytest
from sacred.arg_parser import get_config_updates

README = (PROJECT / "README.md").read_text()
EXPERIMENTS = sorted(
    path.stem for path in (PROJECT / "experiments").glob("*.py") if (PROJECT / "configs" / path.stem).is_dir()
)
CONFIGS = [(name, path.stem) for name in EXPERIMENTS for path in sorted((PROJECT / "configs" / name).glob("*.yaml"))]
QUIETLY = {"--force": True, "--loglevel": "ERROR"}
COMMANDS = re.findall(r"^python experiments/(\w+)\.py (.*?)(?: {2,}#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize(("experiment", "command"), COMMANDS)
def test_commands_resolve(experiment, command):
    words = shlex.split(command)
    updates, named_configs = get_config_updates(words[words.index("with") + 1 :])
    if "resume" in updates:
        assert updates == {"resume": "runs/dpsom/3"}
        assert not named_configs
        return
    load_experiment(experiment).run("print_config", updates, named_configs, options=QUIETLY)


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize(("experiment", "name"), CONFIGS)
def test_every_config_resolves_and_says_how_to_run_it(experiment, name):
    config = resolve_config(load_experiment(experiment), name)
    assert config["seed"] == 0
    header = (PROJECT / "configs" / experiment / f"{name}.yaml").read_text().split("\ndata:")[0]
    assert f"python experiments/{experiment}.py with {name}" in header


@pytest.mark.parametrize(("experiment", "name"), CONFIGS)
def test_every_value_of_a_config_can_be_overridden(experiment, name):
    """Given as updates, the defaults win against all that the config says."""
    loaded = load_experiment(experiment)
    defaults = default_config(loaded)
    assert differing_keys(resolve_config(loaded, name, updates=defaults), defaults | {"seed": 0}) == []


def test_an_unknown_key_in_a_command_is_noticed():
    with pytest.raises(UserError, match=r"model\.map_sise"):
        ex.run("print_config", {"model": {"map_sise": [4, 4]}}, options=QUIETLY)


@pytest.mark.parametrize(
    ("experiment", "faithful", "corrected", "unexplained"),
    [
        ("dpsom", "mnist_faithful", "mnist", {"model.normalize_before", "evaluation.every", "evaluation.test_curve"}),
        ("somvae", "mnist_faithful", "mnist_series", {"evaluation.every", "training.checkpoint_every"}),
        ("tdpsom", "eicu_faithful", "eicu", {"model.normalize_before", "evaluation.test_curve"}),
    ],
)
def test_faithful_differs_from_corrected_where_the_readme_says(experiment, faithful, corrected, unexplained):
    tables = re.findall(r"\| switch \| faithful .*\n((?:\|.*\n)+)", README)
    table = tables[["dpsom", "somvae", "tdpsom"].index(experiment)]
    named = set(re.findall(r"^\| `(\w+\.\w+)`", table, re.MULTILINE))
    assert len(named) >= 3
    experiment = load_experiment(experiment)
    different = set(differing_keys(resolve_config(experiment, faithful), resolve_config(experiment, corrected)))
    assert named <= different
    assert different <= named | unexplained


def test_what_the_readme_says_is_proven_has_its_test():
    section = README.partition("## Is that implementation correct?")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]+\? \|.*\| (`.*`) \|$", section, re.MULTILINE)
    tests = (PROJECT / "tests" / "test_topography.py").read_text()
    assert len(rows) == 8
    for name in re.findall(r"`(\w+)`", " ".join(rows)):
        assert f"def test_{name}(" in tests, name


def test_make_targets_exist():
    makefile = (PROJECT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a Markdown page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "results/README.md", "results/choices.md"])
def test_links_lead_somewhere(name):
    page = PROJECT / name
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link

"""An exported model is the trained one: same weights, same outputs, same metrics; with and without this repository."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from experiments import PROJECT, baselines, dpsom, somvae, stays_baselines, tdpsom, topography, tpae
from experiments.analyses.forecasting import forecast_metrics
from experiments.datasets.samples import FILE_NAME, Samples, read_samples
from experiments.errors import UserError
from experiments.ingredients import cohorts, data
from experiments.ingredients.compute import autocast
from experiments.measures.hours import Hours, agreement
from experiments.measures.metrics import clustering_metrics
from models import networks
from models.tpae import accuracy
from scripts import export
from scripts.export import load_exported, trained
from scripts.exporting.programs import EXPERIMENTS, PROGRAMS
from scripts.scheduling.plan import resolve_config

import command_line
import pytest
import torch
from safetensors.torch import load_file, save_file

CASES = {
    "dpsom": (dpsom.ex, {}),
    "somvae": (somvae.ex, {}),
    "convolutional SOM-VAE": (somvae.ex, {"model": {"network": "conv"}, "data": {"limit": 100}}),
    "stays_baselines": (stays_baselines.ex, {}),
    "tdpsom": (tdpsom.ex, {}),
    "topography": (topography.ex, {}),
    "tpae": (tpae.ex, {}),
    "plain CNN": (
        tpae.ex,
        {"model": {"network": "cnn"}, "training": {"reconstruct_epochs": 0, "organise_epochs": 0}},
    ),
    "MiniSom": (
        topography.ex,
        {"model": {"encoder": "dense", "latent_dim": 3}, "training": {"encoder_epochs": 1, "minisom_steps": 50}},
    ),
}


class Exported(NamedTuple):
    """A finished run of a `fast` config, where it was exported to, its programs, and what it is evaluated on."""

    run: Path
    folder: Path
    programs: dict[str, torch.nn.Module]
    parts: dict[str, data.Split | cohorts.Stays]

    @property
    def record(self):
        return json.loads((self.run / "record.json").read_text())

    def inputs(self, count: int, hours: int = 20) -> tuple[torch.Tensor, ...]:
        """Random arguments of the programs."""
        generator = torch.Generator().manual_seed(0)
        shape = read_samples(self.run).shape
        if len(shape) == 3:
            return (torch.rand(count, *shape, generator=generator),)
        series = torch.randn(count, hours, shape[1], generator=generator)
        return series, torch.randint(1, hours + 1, (count,), generator=generator)


@pytest.fixture(scope="module", autouse=True)
def narrow_networks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "DENSE_WIDTHS", (8, 8, 16))
        yield


@pytest.fixture(scope="module", params=CASES)
def exported(request, tmp_path_factory, in_process) -> Exported:
    ex, updates = CASES[request.param]
    folder = tmp_path_factory.mktemp(ex.path)
    tracking = {"runs_dir": str(folder), "tensorboard": False, "figures": False}
    done = ex.run(named_configs=["fast"], config_updates={"tracking": tracking, **updates}, options={"--force": True})
    if ex in (tdpsom.ex, stays_baselines.ex):
        parts = cohorts.load_parts(**done.config["data"])
    else:
        parts = data.load_dataset(**done.config["data"]).held_out
    run, exported = folder / ex.path / "1", folder / "out" / "model"
    assert export.main([str(run), "--to", str(exported)]) == 0
    files = {method: exported / name for method, name in PROGRAMS.items() if (exported / name).exists()}
    programs = {method: torch.export.load(file).module() for method, file in files.items()}
    return Exported(run, exported, programs, parts)


def only(*names):
    return pytest.mark.parametrize("exported", names, indirect=True)


def test_every_model_that_can_be_built_can_be_exported():
    built = {path.stem for path in (PROJECT / "experiments").glob("*.py") if "\ndef build(" in path.read_text()}
    assert built == EXPERIMENTS.keys(), "each build() has a line in EXPERIMENTS of scripts/exporting/programs.py"
    assert built == {ex.path for ex, _ in CASES.values()}, "and one in CASES above"


# ----------------------------------------------------------------------------------------------------------- the model


def test_the_loaded_model_is_the_trained_one(exported):
    (model, _, _), loaded = trained(exported.run), load_exported(exported.folder)
    state = torch.load(exported.run / "checkpoint.pt", weights_only=True)["model"]
    assert not loaded.training
    assert type(loaded) is type(model)
    assert loaded.state_dict().keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(loaded.state_dict()[name], value), name
    methods = [method for method in PROGRAMS if hasattr(model, method)]
    assert methods
    for method in methods:
        inputs = exported.inputs(40)
        assert torch.equal(getattr(loaded, method)(*inputs), getattr(model, method)(*inputs))


@only("tdpsom")
def test_the_forecaster_comes_along(exported):
    series, _ = exported.inputs(5)
    forecast = load_exported(exported.folder).forecast_hours(series, 4)
    assert forecast.shape == (5, 4, 3)
    assert torch.equal(forecast, trained(exported.run)[0].forecast_hours(series, 4))


def test_the_readme_loads_it_in_five_lines(exported):
    shape = read_samples(exported.run).shape
    (snippet,) = re.findall(r"```python\n(import torch\n.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) <= 5
    if not hasattr(load_exported(exported.folder), "winners"):
        snippet = snippet.replace("winners", "logits")
    names: dict = {}
    exec(
        snippet.replace("exported/mnist", str(exported.folder)).replace("1, 28, 28", ", ".join(map(str, shape))), names
    )
    assert len(names["units"]) == 16


@pytest.mark.parametrize("torus", [False, True])
@pytest.mark.parametrize("experiment", [dpsom, somvae, tdpsom, topography, tpae])
def test_the_map_is_the_one_that_was_asked_for(experiment, torus):
    asked = {"model": {"map_size": [2, 3], "torus": torus}}
    samples = Samples((20, 3)) if experiment is tdpsom else Samples((1, 8, 8), classes=("a", "b"))
    grid = experiment.build(resolve_config(experiment.ex, "fast", updates=asked), samples).grid
    assert (grid.shape, grid.torus) == ((2, 3), torus)


@pytest.mark.parametrize("experiment", [dpsom, tdpsom])
def test_assignment_and_target_are_those_of_the_configuration(in_process, tmp_path, monkeypatch, experiment):
    kinds, latents_of = [], experiment.latents_of

    def noting(net, samples, kind):
        kinds.append(kind)
        return latents_of(net, samples, kind)

    monkeypatch.setattr(experiment, "latents_of", noting)
    settings = "training.joint_epochs=1 model.assignment=sample training.target=mean tracking.figures=False"
    finished = command_line.run(experiment.ex, tmp_path, f"fast {settings}")
    assert finished.status == 0, finished.errors
    evaluations = len(finished.record["curve"]) + 2
    assert sorted(kinds) == ["mean"] + ["sample"] * evaluations


# -------------------------------------------------------------------------------------------------------- the programs


@pytest.mark.parametrize(("batch", "hours"), [(1, 1), (2, 33), (37, 20)])
def test_the_programs_compute_what_the_model_does_for_any_number_of_samples(exported, batch, hours):
    model, inputs = load_exported(exported.folder), exported.inputs(batch, hours)
    programs = exported.programs
    assert programs.keys() == {method for method in PROGRAMS if hasattr(model, method)}
    for method, program in programs.items():
        assert torch.equal(program(*inputs), getattr(model, method)(*inputs))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_programs_earn_the_metrics_of_the_record(exported, split, monkeypatch):
    monkeypatch.setattr(autocast, "config", {"precision": "fp32"})
    part, programs = exported.parts[split], exported.programs
    found = {}
    with torch.no_grad():
        if isinstance(part, cohorts.Stays):
            units = programs["winners"](part.inputs, part.lengths.long())
            found |= agreement(Hours.of(part, units[part.mask].numpy()), 12)
        elif "winners" in programs:
            units = programs["winners"](part.inputs)
            last = units if units.dim() == 1 else units[:, -1]
            found |= clustering_metrics(part.labels.numpy(), last.numpy(), 16)
        if "logits" in programs:
            found["classifier_accuracy"] = accuracy(programs["logits"](part.inputs), part.labels).item()
        model = load_exported(exported.folder)
        if hasattr(model, "forecast_hours"):
            found |= forecast_metrics(model, part)
    assert found
    for name, value in found.items():
        assert value == pytest.approx(exported.record["metrics"][f"{split}/{name}"]), name


@only("tpae")
def test_a_stack_has_a_unit_of_each_block(exported):
    model, (inputs,) = load_exported(exported.folder), exported.inputs(30)
    units = exported.programs["winners"](inputs)
    assert units.shape == (30, 2)
    with torch.no_grad():
        for block, seen, found in zip(model.blocks, model(inputs), units.unbind(dim=1), strict=True):
            assert torch.equal(torch.cdist(seen.latents, block.som.prototypes).argmin(dim=1), found)


@only("tdpsom")
def test_the_programs_need_nothing_of_this_repository(exported, tmp_path):
    inputs = exported.inputs(5)
    torch.save(inputs, tmp_path / "inputs.pt")
    script = (
        "import torch; inputs = torch.load('inputs.pt'); "
        f"print(torch.export.load({str(exported.folder / 'units.pt2')!r}).module()(*inputs).tolist()); "
        "import sys; assert not {'models', 'experiments', 'sacred'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == load_exported(exported.folder).winners(*inputs).tolist()


# ------------------------------------------------------------------------------------------------------ the model card


def test_the_card_tells_data_metrics_settings_and_limits(exported):
    card, record, samples = (exported.folder / "README.md").read_text(), exported.record, read_samples(exported.run)
    columns = re.search(r"^\| metric \| (.*) \|$", card, re.MULTILINE)[1].split(" | ")
    rows = {line.split(" | ")[0][2:]: line[2:-2].split(" | ")[1:] for line in card.splitlines() if line[:2] == "| "}
    for key, value in record["metrics"].items():
        split, _, name = key.partition("/")
        assert rows[name][columns.index(split.replace("_", " "))].strip() == f"{value:.4g}"
    splits = ", ".join(f"{count:,} {name}" for name, count in samples.splits.items())
    assert sum(samples.splits.values()) >= 60
    for words in (record["data_checksum"], str(record["git_commit"]), splits, *samples.classes, "spread over seeds"):
        assert words in card
    assert all(f"{name}: " in card for name in record["config"]["model"])
    assert ("a part of the data set" in card) == bool(record["config"]["data"]["limit"])
    for path in (exported.folder / "README.md", exported.folder / "config.json"):
        assert str(exported.run.parents[1]) not in path.read_text()
    assert sorted(path.name for path in exported.folder.parent.iterdir()) == ["model"], "nothing is left beside it"


def test_what_the_card_shows_runs(exported, monkeypatch):
    monkeypatch.chdir(exported.folder.parent)
    card, names = (exported.folder / "README.md").read_text(), {}
    for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        exec(snippet, names)
    for method, name in PROGRAMS.items():
        present = hasattr(names["model"], method)
        assert (Path(name).stem in names) == (f"`model.{method}(" in card) == present
        if present:
            assert len(names[Path(name).stem]) == 16


@only("tdpsom")
def test_the_card_of_stays_says_what_a_channel_is(exported):
    assert "Channels, in this order: x, y, z" in (exported.folder / "README.md").read_text()
    channels = json.loads((exported.folder / "config.json").read_text())["samples"]["channels"]
    assert [channel["name"] for channel in channels] == ["x", "y", "z"]
    assert all({"mean", "scale", "unit"} < channel.keys() for channel in channels)


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A run that a test may damage."""
    return shutil.copytree(exported.run, tmp_path / "run", ignore=shutil.ignore_patterns("*.npz", "*.png"))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def resave(path: Path, changed) -> None:
    state = torch.load(path, weights_only=True)
    changed(state)
    torch.save(state, path)


MISTAKES = {
    "is not a finished run but INTERRUPTED": lambda run: change(run / "run.json", status="INTERRUPTED"),
    "is no run folder: give one": lambda run: (run / "run.json").unlink(),
    "record.json cannot be read": lambda run: (run / "record.json").unlink(),
    "runs of baselines have no model to take up: only those of dpsom": lambda run: change(
        run / "record.json", experiment=baselines.ex.path
    ),
    "has no checkpoint.pt, so its trained model is lost": lambda run: (run / "checkpoint.pt").unlink(),
    "data.json is missing or damaged": lambda run: (run / FILE_NAME).write_text('{"shape": [8]}'),
    "checkpoint.pt is damaged": lambda run: (run / "checkpoint.pt").write_bytes(b"PK"),
    "checkpoint.pt belongs to another configuration": lambda run: change(run / "config.json", seed=1),
    "checkpoint.pt is not of the end of the run": lambda run: resave(
        run / "checkpoint.pt", lambda state: state["progress"]["history"].pop()
    ),
    "checkpoint.pt does not fit today's model: export it with the code of": lambda run: resave(
        run / "checkpoint.pt", lambda state: state["model"].update(centroids=torch.zeros(3, 3))
    ),
}


@only("topography")
@pytest.mark.parametrize("message", MISTAKES)
def test_what_cannot_be_exported_is_one_line(copy, message, capsys):
    MISTAKES[message](copy)
    assert export.main([str(copy), "--to", str(copy.parent / "out" / "model")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (copy.parent / "out").exists()


@only("topography")
def test_an_existing_folder_is_left_alone(exported, capsys):
    before = (exported.folder / "README.md").stat()
    assert export.main([str(exported.run), "--to", str(exported.folder)]) == 2
    assert "exists: delete it or choose another" in capsys.readouterr().err
    assert (exported.folder / "README.md").stat() == before


@only("topography")
def test_a_folder_that_appears_meanwhile_is_left_alone(exported, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "model"

    def card(*arguments):
        folder.mkdir()
        (folder / "README.md").write_text("another's")
        return ""

    monkeypatch.setattr(export, "card", card)
    assert export.main([str(exported.run), "--to", str(folder)]) == 2
    assert "choose another with --to" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "README.md"]


@only("stays_baselines")
def test_k_means_of_stays_has_no_model_to_take_up(copy, capsys):
    model = json.loads((copy / "config.json").read_text())["model"]
    change(copy / "config.json", model={**model, "name": "kmeans"})
    (copy / "checkpoint.pt").unlink()
    assert export.main([str(copy), "--to", str(copy.parent / "out")]) == 2
    assert "k-means leaves no model to take up" in capsys.readouterr().err


@only("topography")
def test_a_folder_that_cannot_be_written_is_one_line(exported, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert export.main([str(exported.run), "--to", str(tmp_path / "file" / "model")]) == 2
    assert "choose another with --to" in capsys.readouterr().err.splitlines()[-1]


@only("topography")
def test_a_damaged_export_is_one_line(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_exported(folder)
    assert "\n" not in str(error.value)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    save_file({name: tensor[:3] for name, tensor in tensors.items()}, weights)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_exported(folder)
    weights.unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_exported(folder)
    change(folder / "config.json", experiment="baselines")
    with pytest.raises(UserError, match="runs of baselines have no model"):
        load_exported(folder)
    change(folder / "config.json", experiment="topography", samples={})
    with pytest.raises(UserError, match="cannot be loaded"):
        load_exported(folder)

"""An exported model is the trained one: same weights, same outputs, same units; with and without this repository."""

import json
import re
import subprocess
import sys
from pathlib import Path

from experiments import baselines, dpsom, somvae, topography
from experiments.errors import UserError
from experiments.ingredients.metrics import winners
from scripts import export
from scripts.export import build_model, load_exported, trained

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = {"dpsom": dpsom.ex, "somvae": somvae.ex, "topography": topography.ex}


@pytest.fixture(scope="module", params=EXPERIMENTS)
def exported(request, tmp_path_factory, in_process) -> tuple[Path, Path]:
    """A finished run of the experiment's `fast` config, and the folder it was exported to."""
    folder = tmp_path_factory.mktemp(request.param)
    run(EXPERIMENTS[request.param], folder)
    run_folder = folder / request.param / "1"
    assert export.main([str(run_folder), "--to", str(folder / "out" / "model")]) == 0
    return run_folder, folder / "out" / "model"


def run(ex, folder: Path, config: str = "fast", **updates) -> None:
    tracking = {"runs_dir": str(folder), "tensorboard": False, "figures": False}
    ex.run(named_configs=[config], config_updates={"tracking": tracking, **updates}, options={"--force": True})


def samples(run_folder: Path, count: int) -> torch.Tensor:
    return torch.rand(count, *trained(run_folder)[2]["input_shape"], generator=torch.Generator().manual_seed(0))


def test_the_loaded_model_is_the_trained_one(exported):
    run_folder, folder = exported
    model, loaded = trained(run_folder)[0], load_exported(folder)
    assert not loaded.training
    assert type(loaded) is type(model)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    inputs = samples(run_folder, 40)
    assert torch.equal(loaded.winners(inputs), model.winners(inputs))
    state = torch.load(run_folder / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("batch", [1, 2, 37])
def test_the_program_assigns_the_same_units_to_any_batch(exported, batch):
    run_folder, folder = exported
    inputs = samples(run_folder, batch)
    program = torch.export.load(folder / "units.pt2").module()
    assert torch.equal(program(inputs), load_exported(folder).winners(inputs))


def test_the_readme_loads_it_in_five_lines(exported):
    run_folder, folder = exported
    shape = trained(run_folder)[2]["input_shape"]
    (snippet,) = re.findall(r"```python\n(import torch\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) <= 5
    names: dict = {}
    exec(snippet.replace("exported/mnist", str(folder)).replace("1, 28, 28", ", ".join(map(str, shape))), names)
    assert names["units"].shape == (16,)


@pytest.mark.parametrize("exported", ["dpsom"], indirect=True)
def test_the_program_needs_nothing_of_this_repository(exported, tmp_path):
    run_folder, folder = exported
    inputs = samples(run_folder, 5)
    torch.save(inputs, tmp_path / "inputs.pt")
    script = (
        "import torch; inputs = torch.load('inputs.pt'); "
        f"print(torch.export.load({str(folder / 'units.pt2')!r}).module()(inputs).tolist()); "
        "import sys; assert not {'models', 'experiments', 'sacred'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == load_exported(folder).winners(inputs).tolist()


def test_units_are_those_that_the_metrics_are_about(exported):
    run_folder, folder = exported
    model, inputs = load_exported(folder), samples(run_folder, 40)
    with torch.no_grad():
        if run_folder.parent.name == "topography":
            latents, centroids = model.features(inputs), model.units()
        else:
            latents, centroids = (model.mean if hasattr(model, "mean") else model.encode)(inputs), model.centroids
    assert model.winners(inputs).tolist() == winners(latents.numpy(), centroids.detach().numpy())[0].tolist()


def test_the_card_tells_metrics_data_code_and_how_to_load(exported):
    run_folder, folder = exported
    card, record = (folder / "README.md").read_text(), json.loads((run_folder / "record.json").read_text())
    for name in ("nmi_geometric", "purity", "reconstruction_error"):
        numbers = [f"{record['metrics'][f'{split}/{name}']:.4g}" for split in ("validation", "test")]
        assert f"| {name} | {numbers[0]} | {numbers[1]} |" in card
    for words in (record["data_checksum"], str(record["git_commit"]), 'load_exported("model")', "units.pt2"):
        assert words in card
    for path in (folder / "README.md", folder / "config.json"):
        assert str(run_folder.parents[1]) not in path.read_text()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"], "nothing is left beside it"


def test_an_existing_folder_is_left_alone(exported, capsys):
    run_folder, folder = exported
    assert export.main([str(run_folder), "--to", str(folder)]) == 2
    assert "exists: delete it or choose another" in capsys.readouterr().err


def test_damaged_weights_are_one_line(exported, tmp_path):
    _, folder = exported
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="cannot be loaded"):
        load_exported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        load_exported(tmp_path)
    assert "\n" not in str(error.value)


def test_what_cannot_be_exported_is_one_line(exported, tmp_path, capsys, in_process):
    run_folder, _ = exported
    assert export.main([str(tmp_path / "nothing")]) == 2
    assert "there is no run folder" in capsys.readouterr().err
    unfinished = tmp_path / "1"
    unfinished.mkdir()
    for name in ("record.json", "config.json"):
        (unfinished / name).write_bytes((run_folder / name).read_bytes())
    (unfinished / "run.json").write_text('{"status": "RUNNING"}')
    with pytest.raises(UserError, match="not a finished run"):
        trained(unfinished)
    (unfinished / "run.json").write_text('{"status": "COMPLETED"}')
    with pytest.raises(UserError, match=r"has no checkpoint\.pt"):
        trained(unfinished)


def test_an_experiment_takes_part_by_its_build(monkeypatch):
    with pytest.raises(UserError, match="baselines has no model to export"):
        build_model("baselines", {}, {})
    monkeypatch.setattr(baselines, "build", lambda model, classes, channels: (model, classes, channels), raising=False)
    facts = {"input_shape": (24, 9), "channels": 9, "classes": 4}
    assert build_model("baselines", {"model": {"name": "kmeans"}}, facts) == ({"name": "kmeans"}, 4, 9)
    monkeypatch.setattr(baselines, "build", lambda optimizer: None)
    with pytest.raises(UserError, match="asks for optimizer, and export knows only model, input_shape"):
        build_model("baselines", {"model": {}}, facts)

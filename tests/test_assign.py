"""The units of pictures in a folder, by a trained map."""

import csv

from experiments import dpsom, tpae
from models import networks
from scripts import assign
from scripts.export import trained

import numpy as np
import pytest
import torch
from command_line import run
from PIL import Image

pytestmark = pytest.mark.usefixtures("in_process")
QUIETLY = "tracking.figures=False"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of grey pictures, 8 x 8, in folders of two levels, and their values [N, 1, 8, 8] in the files' order."""
    folder, values = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0).integers(0, 200, (7, 8, 8), np.uint8)
    for number, picture in enumerate(values):
        path = folder / ("cat" if number < 4 else "dog/old") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder, torch.from_numpy(values)[:, None].float()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Finished runs on the digits, by experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "DENSE_WIDTHS", (8, 8, 16))
        runs = {
            "dpsom": run(dpsom.ex, tmp_path_factory.mktemp("runs"), f"fast training.joint_epochs=1 {QUIETLY}"),
            "tpae": run(tpae.ex, tmp_path_factory.mktemp("runs"), f"fast training.joint_epochs=1 {QUIETLY}"),
        }
        assert [one.status for one in runs.values()] == [0, 0]
        yield {name: one.folder for name, one in runs.items()}


def rows_of(run_folder, folder, target):
    assert assign.main([str(run_folder), str(folder), "--to", str(target)]) == 0
    return list(csv.DictReader(target.open()))


def test_a_picture_has_the_unit_that_the_model_gives_it_prepared_as_in_training(finished, pictures, tmp_path):
    folder, values = pictures
    rows = rows_of(finished["dpsom"], folder, tmp_path / "units.csv")
    assert [row["file"] for row in rows] == [f"cat/{n}.png" for n in range(4)] + [f"dog/old/{n}.png" for n in (4, 5, 6)]
    model, record, _ = trained(finished["dpsom"])
    assert record["config"]["data"]["scaling"] == "per_image_max"
    units = model.winners(values / values.amax((1, 2, 3), keepdim=True))
    assert [int(row["unit"]) for row in rows] == units.tolist()
    width = record["config"]["model"]["map_size"][1]
    assert all(int(row["unit"]) == int(row["row"]) * width + int(row["column"]) for row in rows)


def test_tpae_has_a_unit_in_every_block(finished, pictures, tmp_path):
    folder, values = pictures
    rows = rows_of(finished["tpae"], folder, tmp_path / "units.csv")
    model, record, _ = trained(finished["tpae"])
    assert record["config"]["data"]["scaling"] == "unit"
    with torch.no_grad():
        units = model.winners(values / 255)
    assert [(row["block"], int(row["unit"])) for row in rows] == [
        (str(block), unit) for blocks in units.tolist() for block, unit in enumerate(blocks, start=1)
    ]


def test_chunks_change_nothing(finished, pictures, tmp_path, monkeypatch):
    at_once = rows_of(finished["dpsom"], pictures[0], tmp_path / "units.csv")
    monkeypatch.setattr(assign, "CHUNK", 2)
    assert rows_of(finished["dpsom"], pictures[0], tmp_path / "units.csv") == at_once


def test_mistakes_are_one_line(finished, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "large").mkdir()
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large" / "0.png")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0.png").write_bytes(b"no picture")
    for arguments, message in (
        ([tmp_path, pictures[0]], f"{tmp_path} is no run folder"),
        ([finished["dpsom"], tmp_path / "empty"], f"there are no pictures in {tmp_path / 'empty'}"),
        ([finished["dpsom"], tmp_path / "missing"], f"there are no pictures in {tmp_path / 'missing'}"),
        ([finished["dpsom"], tmp_path / "large"], "has the shape (1, 9, 8), the model takes (1, 8, 8)"),
        ([finished["dpsom"], tmp_path / "damaged"], "cannot be read as a picture"),
    ):
        target = tmp_path / "units.csv"
        assert assign.main([*map(str, arguments), "--to", str(target)]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
        assert not target.exists()

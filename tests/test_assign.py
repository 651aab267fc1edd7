"""The units of pictures in a folder, and of the hours of new stays, by a trained map."""

import csv

from experiments import dpsom, stays_baselines, tdpsom, tpae
from experiments.datasets.stays_table import load_stays_table
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
RNG = np.random.default_rng(0)
HOSPITAL = "stay,hour,HR [1/min],Temp,label.state\n" + "".join(
    f"p{stay:02},{hour},{heart:.1f},{temp:.1f},{RNG.integers(3)}\n"
    for stay in range(40)
    for hour, (heart, temp) in enumerate(RNG.normal((80, 37), (9, 1), (RNG.integers(2, 9), 2)), start=3)
)


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
    """Finished runs on the digits, by experiment, and two on the hours of a hospital."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "DENSE_WIDTHS", (8, 8, 16))
        runs = {
            "dpsom": run(dpsom.ex, tmp_path_factory.mktemp("runs"), f"fast training.joint_epochs=1 {QUIETLY}"),
            "tpae": run(tpae.ex, tmp_path_factory.mktemp("runs"), f"fast training.joint_epochs=1 {QUIETLY}"),
        }
        hospital = tmp_path_factory.mktemp("hospital")
        (hospital / "hours.csv").write_text(HOSPITAL)
        table = f"data.name=stays_table data.root={hospital} {QUIETLY}"
        runs |= {
            "tdpsom": run(tdpsom.ex, tmp_path_factory.mktemp("runs"), f"fast {table}"),
            "stays_baselines": run(
                stays_baselines.ex, tmp_path_factory.mktemp("runs"), f"lorenz_somvae {table} training.joint_epochs=1"
            ),
            "lorenz": run(tdpsom.ex, tmp_path_factory.mktemp("runs"), f"fast {QUIETLY}"),
        }
        assert [one.status for one in runs.values()] == [0] * 5
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


@pytest.mark.parametrize("experiment", ["tdpsom", "stays_baselines"])
def test_the_hours_of_the_training_stays_have_their_units_again(finished, tmp_path, experiment):
    (tmp_path / "hours.csv").write_text(HOSPITAL)
    rows = rows_of(finished[experiment], tmp_path, tmp_path / "units.csv")
    model, record, _ = trained(finished[experiment])
    stays = load_stays_table(tmp_path)
    with torch.no_grad():
        units = model.winners(stays.inputs, stays.lengths.long())[stays.mask]
    width = record["config"]["model"]["map_size"][1]
    found = [(row["stay"], int(row["hour"]), int(row["unit"])) for row in rows]
    hours = [(stay, hour) for stay, hour, *_ in (line.split(",") for line in HOSPITAL.splitlines()[1:])]
    assert found == [(stay, int(hour), unit) for (stay, hour), unit in zip(hours, units.tolist(), strict=True)]
    assert all(int(row["unit"]) == int(row["row"]) * width + int(row["column"]) for row in rows)


def test_new_stays_are_filled_and_scaled_as_in_training(finished, tmp_path):
    """Columns in another order and one more, lines in any order, an hour without a line, one stay longer than all."""
    long = "".join(f"1,z,37,{60 + hour},{hour}\n" for hour in range(30))
    (tmp_path / "hours.csv").write_text(
        f"ward,stay,Temp,HR [1/min],hour\n1,new,,,-2\n2,new,39,,1\n1,new,,95,-1\n{long}"
    )
    rows = rows_of(finished["tdpsom"], tmp_path, tmp_path / "units.csv")
    assert [(row["stay"], int(row["hour"])) for row in rows] == [("new", hour) for hour in (-2, -1, 0, 1)] + [
        ("z", hour) for hour in range(30)
    ]
    model, _, samples = trained(finished["tdpsom"])
    heart, temp = samples.channels
    known = [(0, 0), (95, 0), (95, 0), (95, 39)]
    hours = [
        [
            (value - channel.mean) / channel.scale * (value > 0)
            for value, channel in zip(hour, (heart, temp), strict=True)
        ]
        for hour in known + [(60 + hour, 37) for hour in range(30)]
    ]
    with torch.no_grad():
        units = model.winners(torch.tensor(hours).clip(-5, 5)[None])[0]
    assert [int(row["unit"]) for row in rows] == units.tolist()


@pytest.mark.parametrize(
    ("run_name", "table", "message"),
    [
        ("tdpsom", "stay,hour,Temp\na,0,37\n", "lacks the variable HR: add it, empty if it was never measured"),
        ("tdpsom", "stay,hour,Temp,HR\na,0,37,80\n", "has HR in no unit, the training stays had it in 1/min"),
        ("tdpsom", "stay,hour,Temp [F],HR [1/min]\na,0,98,80\n", "has Temp in F, the training stays had it in none"),
        ("tdpsom", "stay,hour,Temp,HR [1/min]\na,0,warm,80\n", "Temp is 'warm', which is no number"),
        ("tdpsom", None, "cannot read"),
        ("lorenz", HOSPITAL, "learned from lorenz: only maps of pictures or of data.name=stays_table assign"),
    ],
)
def test_mistakes_with_stays_are_one_line(finished, tmp_path, capsys, run_name, table, message):
    if table:
        (tmp_path / "hours.csv").write_text(table)
    assert assign.main([str(finished[run_name]), str(tmp_path), "--to", str(tmp_path / "units.csv")]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert not (tmp_path / "units.csv").exists()


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

"""Reconstructions of several runs in one picture."""

import json
import shutil
from functools import partial

from experiments import tpae
from scripts import samplings

import pytest
from command_line import run as run_experiment
from PIL import Image

pytestmark = pytest.mark.usefixtures("in_process")
run = partial(run_experiment, tpae.ex)
SHORT = "fast training.joint_epochs=1 tracking.figures=False"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a native and a downsampled run, and of a plain CNN."""
    cnn = "model.network=cnn training.reconstruct_epochs=0 training.organise_epochs=0"
    found = [
        run(tmp_path_factory.mktemp("runs"), f"{SHORT} {settings}")
        for settings in ("", "model.sampling=downsampled", cnn)
    ]
    assert [one.status for one in found] == [0, 0, 0]
    return [one.folder for one in found]


def test_each_run_has_two_rows_below_the_pictures(runs, tmp_path, monkeypatch):
    drawn, draw = {}, samplings.figures.picture_rows

    def noting(title, note, rows):
        drawn.update(rows)
        return draw(title, note, rows)

    monkeypatch.setattr(samplings.figures, "picture_rows", noting)
    native, downsampled, _ = map(str, runs)
    assert samplings.main([native, downsampled, "--output", str(tmp_path / "both.png")]) == 0
    names = (f"{native}, native, 2 blocks", f"{downsampled}, downsampled, 2 blocks")
    assert list(drawn) == ["input", *(f"{name}: {decoder}" for name in names for decoder in ("fusion", "map alone"))]
    assert {pictures.shape for pictures in drawn.values()} == {drawn["input"].shape}
    assert min(Image.open(tmp_path / "both.png").size) > 300


def test_mistakes_are_one_line(runs, tmp_path, capsys):
    other = tmp_path / "other" / "1"
    shutil.copytree(runs[0], other)
    record = json.loads((runs[0] / "record.json").read_text()) | {"data_checksum": "another"}
    (other / "record.json").write_text(json.dumps(record))
    smaller = tmp_path / "smaller" / "1"
    shutil.copytree(runs[0], smaller)
    record = json.loads((runs[0] / "record.json").read_text())
    record["config"]["data"]["image_size"] = 12
    (smaller / "record.json").write_text(json.dumps(record))
    changed = tmp_path / "changed" / "1"
    shutil.copytree(runs[0], changed)
    (changed / "record.json").write_text((other / "record.json").read_text())
    (tmp_path / "file").touch()
    unwritable = tmp_path / "file" / "x.png"
    for arguments, message in (
        ([tmp_path], f"{tmp_path} is no run folder"),
        ([runs[2]], "is a run of the plain CNN, which reconstructs nothing"),
        ([runs[0], other], "these runs have different data"),
        ([runs[0], smaller], "these runs have different data"),
        ([changed], f"{changed} was trained on other data than"),
        ([runs[0], "--output", unwritable], f"cannot write {unwritable}"),
    ):
        assert samplings.main(list(map(str, arguments))) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1

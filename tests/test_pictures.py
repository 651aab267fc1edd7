"""The README's pictures are what the command draws."""

import shutil
from pathlib import Path

from experiments import PROJECT
from experiments.ingredients.trained_map import ARRAYS
from scripts import pictures

import numpy as np
import pytest
from PIL import Image

RESULTS = PROJECT / "results"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "results"
    for name in ("maps", "runs", "curves"):
        shutil.copytree(RESULTS / name, folder / name)
    assert pictures.main(["--results", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_committed_pictures_are_up_to_date(results, name):
    drawn, committed = (Image.open(folder / "figures" / name).convert("RGB") for folder in (results, RESULTS))
    assert drawn.size == committed.size
    difference = np.abs(np.subtract(drawn, committed, dtype=float)).mean()
    assert difference < 1, "run `make report` and commit what it writes"


def test_without_records_and_maps_nothing_is_drawn(tmp_path):
    shutil.copytree(RESULTS / "curves", tmp_path / "curves")
    assert pictures.main(["--results", str(tmp_path)]) == 0
    assert not (tmp_path / "figures").exists()


def test_a_broken_map_is_one_line(tmp_path, capsys):
    shutil.copytree(RESULTS / "curves", tmp_path / "curves")
    path = tmp_path / "maps" / "dpsom" / "mnist_faithful_104" / ARRAYS
    path.parent.mkdir(parents=True)
    path.write_text("no archive")
    assert pictures.main(["--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1

"""The README's pictures are what the command draws."""

import shutil
from pathlib import Path

from experiments import PROJECT
from experiments.drawing.trained_map import ARRAYS
from scripts import pictures
from scripts.rendering.curves import ORIGINAL, original_curve

import numpy as np
import pytest
from PIL import Image
from test_tables import make_record, write

RESULTS = PROJECT / "results"
MAP = Path("dpsom", "mnist", ARRAYS)
SAME = 1e-3  # share of pixels that may look different: processors round differently


def differing(one: Image.Image, other: Image.Image) -> float:
    """The share of pixels that a person could tell apart; all of them, if the sizes differ."""
    if one.size != other.size:
        return 1.0
    difference = np.subtract(one.convert("RGB"), other.convert("RGB"), dtype=float)
    return (np.abs(difference).max(axis=2) > 32).mean()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "results"
    for name in ("maps", "runs", "curves"):
        shutil.copytree(RESULTS / name, folder / name)
    assert pictures.main(["--results", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_committed_pictures_are_up_to_date(results, name):
    committed = Image.open(RESULTS / "figures" / name)
    difference = differing(Image.open(results / "figures" / name), committed)
    assert difference < SAME, "run `make report` and commit what it writes"


def test_another_curve_is_another_picture(tmp_path):
    rows = original_curve(RESULTS / ORIGINAL)
    for purity, folder in ((0.0, tmp_path / "one"), (0.002, tmp_path / "two")):
        shutil.copytree(RESULTS / "curves", folder / "curves")
        curve = [row | {"test/purity": row["test/purity"] + purity} for row in rows]
        write(folder, make_record("mnist_faithful", curve=curve))
        assert pictures.main(["--results", str(folder)]) == 0
    one, two = (Image.open(tmp_path / name / "figures" / "dpsom_learning_curve.png") for name in ("one", "two"))
    assert differing(one, two) > SAME


def test_without_records_and_maps_nothing_is_drawn(tmp_path):
    shutil.copytree(RESULTS / "curves", tmp_path / "curves")
    assert pictures.main(["--results", str(tmp_path)]) == 0
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("content", [b"no archive", b"", (RESULTS / "maps" / MAP).read_bytes()[:-2000]])
def test_a_broken_map_is_one_line(tmp_path, capsys, content):
    shutil.copytree(RESULTS / "curves", tmp_path / "curves")
    path = tmp_path / "maps" / MAP
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert pictures.main(["--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1

"""The learning curve of the faithful runs beside the original's."""

import shutil

from experiments import PROJECT
from scripts import curves, pictures
from scripts.records import load_records

import matplotlib.image
import pytest
from test_tables import make_record, write

ORIGINAL = PROJECT / "results" / curves.ORIGINAL
PICTURE = "figures/dpsom_learning_curve.png"


@pytest.fixture
def results(tmp_path):
    (tmp_path / "curves").mkdir()
    shutil.copy(ORIGINAL, tmp_path / curves.ORIGINAL)
    return tmp_path


def test_the_originals_curve_carries_our_names():
    rows = curves.original_curve(ORIGINAL)
    assert [row["phase"] for row in rows] == ["pretrain"] * 15 + ["som"] * 20 + ["joint"] * 104
    assert rows[-1]["test/purity"] == pytest.approx(0.954, abs=5e-4)
    assert rows[-1]["test/nmi_geometric"] == pytest.approx(0.687, abs=5e-4)


def test_faithful_runs_are_drawn_beside_it(results):
    write(results, *(make_record("mnist_faithful", seed, curve=curves.original_curve(ORIGINAL)) for seed in (0, 1)))
    assert pictures.main(["--results", str(results)]) == 0
    height, width, _ = matplotlib.image.imread(results / PICTURE).shape
    assert min(height, width) > 400


def test_of_two_runs_of_a_seed_the_longer_one_counts(results):
    curve = curves.original_curve(ORIGINAL)
    runs = (
        ("mnist_faithful_104", 0, 100),
        ("mnist_faithful", 0, 130),
        ("mnist_faithful_104", 1, 100),
        ("mnist", 2, 130),
    )
    write(results, *(make_record(name, seed, curve=curve[:length]) for name, seed, length in runs))
    found = curves.faithful_curves(load_records(results / "runs"))
    assert [len(one) for one in found] == [130, 100]


def test_nothing_is_drawn_without_the_original(results):
    (results / curves.ORIGINAL).unlink()
    assert pictures.main(["--results", str(results)]) == 0
    assert not (results / PICTURE).exists()


def test_nothing_is_drawn_without_a_faithful_run(results):
    write(results, make_record("mnist"))
    assert pictures.main(["--results", str(results)]) == 0
    assert not (results / PICTURE).exists()


@pytest.mark.parametrize("content", ["phase,epoch\nae,1\n", "phase,epoch,nmi,purity\nwarm-up,1,0.1,0.2\n"])
def test_a_broken_file_is_one_line(results, capsys, content):
    (results / curves.ORIGINAL).write_text(content)
    assert pictures.main(["--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1

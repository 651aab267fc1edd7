"""The learning curve of the faithful runs beside the original's."""

import shutil

from experiments import PROJECT
from scripts import pictures
from scripts.records import load_records
from scripts.rendering import curves

import matplotlib.image
import pytest
from test_figures import render
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


def curve(offset=0.0, joint_epochs=4):
    rows = [{"phase": "pretrain", "epoch": epoch, "loss": 10.0 - epoch} for epoch in (1, 2, 3)]
    return rows + [
        {"phase": "joint", "epoch": e, "loss": None, "validation/purity": e / 10, "test/purity": e / 20 + offset}
        for e in range(1, joint_epochs + 1)
    ]


def lines(axes):
    """Label → (epochs, values) of the curves of a panel, not of its guide lines."""
    drawn = {line.get_label(): line.get_data() for line in axes.lines if not line.get_label().startswith("_")}
    return {label: (list(map(int, x)), list(map(float, y))) for label, (x, y) in drawn.items()}


def test_comparison_draws_mean_range_and_difference():
    ours = [curve(0.02), curve(0.04, joint_epochs=6), curve(0.0)]
    figure = curves.curve_comparison(ours, curve(0.01, joint_epochs=3), ("ours", "original"), {"test/purity": "purity"})
    render(figure)
    above, below = figure.axes
    drawn = lines(above)
    assert drawn["ours, 3 seeds (mean, range)"] == ([4, 5, 6, 7], pytest.approx([0.07, 0.12, 0.17, 0.22]))
    assert drawn["original"] == ([4, 5, 6], pytest.approx([0.06, 0.11, 0.16]))
    assert lines(below)["difference"] == ([4, 5, 6], pytest.approx([0.01] * 3))
    band = below.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((-0.01, 0.03))


def test_comparison_of_a_single_seed_has_no_band():
    figure = curves.curve_comparison(
        [curve()], curve(), ("ours", "original"), dict.fromkeys(["test/purity", "validation/purity"], "")
    )
    render(figure)
    assert not any(axes.collections for axes in figure.axes)
    assert "ours, 1 seed" in lines(figure.axes[0])
    assert lines(figure.axes[3])["difference"][1] == [0, 0, 0, 0]


def test_comparison_refuses_what_cannot_be_compared():
    strange = [{"phase": "ae", "epoch": 1, "test/purity": 0.1}]
    with pytest.raises(ValueError, match="'ae'"):
        curves.curve_comparison([curve()], strange, ("ours", "original"), {"test/purity": "purity"})
    with pytest.raises(ValueError, match="no curves"):
        curves.curve_comparison([], curve(), ("ours", "original"), {"test/purity": "purity"})

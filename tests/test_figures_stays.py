"""Pictures of stays: what is drawn where."""

from experiments.drawing.figures_stays import (
    MOST_PLANES,
    Line,
    component_planes,
    forecast_fan,
    risk_map,
    trajectory,
    typical_stays,
)
from models.grid import Grid

import numpy as np
import pytest
from matplotlib.collections import LineCollection


def line(hours=20, name="HR"):
    values = np.linspace(60, 90, hours)
    return Line(f"{name} (1/min)", values, np.arange(hours) % 3 == 0)


def test_risk_map_hatches_units_without_hours():
    values = np.arange(6.0)
    values[4] = np.nan
    axes = risk_map(values, Grid(2, 3, torus=True), "Risk", "mean score").axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan).ravel(), values)
    assert [patch.get_xy() for patch in axes.patches] == [(0.5, 0.5)]


def test_component_planes_are_the_variables_that_vary_most():
    spread = np.arange(MOST_PLANES + 2.0)[::-1]
    planes = np.random.default_rng(0).normal(size=(len(spread), 6))
    names = [f"v{index}" for index in range(len(spread))]
    panels = [axes for axes in component_planes(planes, names, spread, Grid(2, 3, False)).axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == names[:MOST_PLANES]
    np.testing.assert_array_equal(panels[3].images[0].get_array().ravel(), planes[3])


@pytest.mark.parametrize(("torus", "length"), [(True, 1.0), (False, 3.0)])
def test_a_way_over_the_torus_takes_the_short_way(torus, length):
    soft = np.full((3, 4), 0.1)
    soft[[0, 1, 2], [0, 3, 3]] = 0.7  # column 0, then 3 of four
    figure = trajectory(soft, np.zeros(4), "score", Grid(1, 4, torus), "someone", np.array([1, -1, 2]), "state")
    leaving, entering = (
        [np.array(path.vertices) for path in drawn.get_paths()]
        for drawn in figure.axes[0].collections
        if isinstance(drawn, LineCollection)
    )
    step = leaving[0][1, 0] - leaving[0][0, 0]
    assert abs(step) == pytest.approx(length, abs=0.4)
    assert (step < 0) == torus
    assert entering[0][1, 0] == pytest.approx(3, abs=0.2)
    above, strip = figure.axes[1:3]
    assert above.get_ylabel() == "state"
    np.testing.assert_array_equal(above.lines[0].get_xydata(), [[0, 1], [2, 2]])
    assert [text.get_text() for text in strip.get_yticklabels()] == ["(0, 0)", "(0, 3)"]
    np.testing.assert_array_equal(strip.images[0].get_array(), soft[:, [0, 3]].T)


def test_fan_starts_at_the_last_known_hour():
    samples = np.random.default_rng(0).normal(80, 2, (50, 6, 2))
    figure = forecast_fan([line(), line(name="Temp")], samples, "someone")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["HR (1/min)", "Temp (1/min)"]
    median, persistence, seen = figure.axes[0].lines[:3]
    np.testing.assert_array_equal(median.get_xdata(), np.arange(13, 20))
    assert median.get_ydata()[0] == line().values[13]
    np.testing.assert_allclose(median.get_ydata()[1:], np.median(samples[:, :, 0], axis=0))
    assert set(persistence.get_ydata()) == {line().values[13]}
    np.testing.assert_array_equal(seen.get_ydata(), line().values)


def test_typical_stays_mark_their_hour():
    stays = {"unit (0, 1)": [(3, [line(), line(name="Temp")]), (5, [line(8), line(8, "Temp")])]}
    figure = typical_stays(stays)
    assert len(figure.axes) == 2
    assert [len(drawn.get_ydata()) for drawn in figure.axes[0].lines] == [20, 8]
    marks = [drawn.get_offsets()[0].tolist() for drawn in figure.axes[0].collections]
    assert marks == [[3, line().values[3]], [5, line(8).values[5]]]


def test_typical_stays_share_their_hours():
    stays = {"unit (0, 1)": [(3, [line()])], "unit (1, 1)": [(5, [line(8)])]}
    assert {axes.get_xlim() for axes in typical_stays(stays).axes} == {(-0.5, 19.5)}

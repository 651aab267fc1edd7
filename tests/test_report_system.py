"""The page of all results as a reader meets it, in a real Chromium. Needs Debian packages."""

import json
import re
import shutil

from experiments import PROJECT
from experiments.drawing.trained_map import pictures_of
from models.grid import Grid
from scripts import report
from scripts.rendering import curves

import chromium
import numpy as np
import pytest
from test_tables import make_record, write

DRAWN = "return ['#unit h3', '#ways-unit h3'].every((heading) => document.querySelector(heading))"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = chromium.start(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A page of the committed results, with faithful runs and an ablation that differ beyond doubt."""
    results = tmp_path_factory.mktemp("project") / "results"
    shutil.copytree(PROJECT / "results", results)
    for folder in (*results.glob("runs/dpsom/ablation_*"), *results.glob("runs/dpsom/*faithful*")):
        shutil.rmtree(folder)
    shutil.rmtree(results / "runs" / "dpsom" / "short", ignore_errors=True)
    curve = curves.original_curve(results / curves.ORIGINAL)
    for seed in range(3):
        ours = [row | {"test/purity": row["test/purity"] + 0.01 * seed} for row in curve]
        for name, nmi in (("mnist_faithful", 0.69), ("short", 0.60), ("ablation_posterior", 0.50)):
            write(results, make_record(name, seed, nmi + seed / 1000, curve=ours))
    phase = {"phase": "joint", "samples_per_second": 12345.6, "share_of_peak": 0.37}
    line = {
        "config": "mnist", "precision": "bf16", "phases": [phase], "peak_memory_megabytes": 812.3,
        "memory_growth_megabytes": -0.2, "hardware": {"gpu": None, "cpu": "A CPU"},
    }  # fmt: skip
    (results / "speed.json").write_text(json.dumps({"format": 1, "results": [line]}))
    assert report.main(["--results", str(results)]) == 0
    return (results / report.PAGE).as_uri()


@pytest.fixture
def page(browser, address):
    """The page at a desk's width in a light room, freshly opened; nothing may have been complained about afterwards."""
    look(browser, 1280, "light")
    browser.get(address)
    wait(browser, DRAWN)
    yield browser
    assert not chromium.complaints(browser)


def look(browser, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser, script: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(script), script)


def find(browser, selector: str):
    from selenium.webdriver.common.by import By

    return browser.find_element(By.CSS_SELECTOR, selector)


def move_to(browser, element) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(browser).move_to_element(element).perform()


def press(browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def column(browser, index: int) -> list[str]:
    """The cells of a column of the first table about the Topography layer, as they are read."""
    rows = "[...document.querySelector('#topography tbody').rows]"
    script = f"return {rows}.map(row => row.cells[arguments[0]].innerText)"
    return browser.execute_script(script, index)


def test_a_heading_sorts_its_column_both_ways_and_back(page):
    before = column(page, 0)
    for direction, sign in (("ascending", 1), ("descending", -1)):
        find(page, "#topography th:nth-child(4) button").click()
        assert find(page, "#topography th:nth-child(4)").get_attribute("aria-sort") == direction
        numbers = [sign * float(text.partition(" ")[0]) for text in column(page, 3) if text.strip()]
        assert numbers == sorted(numbers)
        assert column(page, 0) != before
    find(page, "#topography th:nth-child(4) button").click()
    assert column(page, 0) == before


def test_empty_cells_stay_last(page):
    for _ in range(2):
        find(page, "#dpsom_ablation th:nth-child(5) button").click()
        script = (
            "return [...document.querySelector('#dpsom_ablation tbody').rows].map(r => r.cells[4].innerText.trim())"
        )
        cells = page.execute_script(script)
        assert all(cells[:2])
        assert not any(cells[2:])


def test_a_number_leads_to_the_runs_behind_it(page):
    from selenium.webdriver.common.keys import Keys

    link = find(page, '#topography a.runs[data-runs="topography/digits"]')
    page.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", link)
    press(page, Keys.ENTER)
    popover = find(page, "#popover")
    assert popover.is_displayed()
    runs = sorted((PROJECT / "results/runs/topography/digits").glob("*.json"))
    record = json.loads(runs[-1].read_text())
    for expected in ("topography/digits", str(record["metrics"]["test/quantization_error"]), record["git_commit"][:8]):
        assert expected in popover.text
    links = page.execute_script(
        "return [...document.querySelectorAll('#popover td a')].map(a => a.getAttribute('href'))"
    )
    assert links == [f"../runs/topography/digits/{run.name}" for run in runs]
    assert page.execute_script("return document.activeElement.closest('#popover') !== null")
    press(page, Keys.ESCAPE)
    assert not popover.is_displayed()
    assert page.execute_script("return document.activeElement === arguments[0]", link)


def test_a_difference_shows_both_sides(page):
    link = find(page, "#dpsom_ablation a.runs[data-runs='dpsom/ablation_posterior dpsom/short']")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)
    link.click()
    text = find(page, "#popover").text
    assert "dpsom/ablation_posterior" in text
    assert "dpsom/short" in text
    find(page, "#popover h3 a").click()
    assert find(page, "details[open]").get_attribute("id") == "run/dpsom/ablation_posterior"


def choose_map(browser, name: str) -> None:
    """Show a map, and wait until it is drawn."""
    script = "window.shown = null; showMap(arguments[0]).then(() => { window.shown = arguments[0] })"
    browser.execute_script(script, name)
    wait(browser, f"return window.shown === {name!r}")


def test_pointing_at_a_unit_shows_it(page):
    with np.load(PROJECT / "results/maps/topography/mnist/map.npz") as arrays:
        counts, decoded = arrays["counts"][10], pictures_of(arrays["decoded"], Grid(8, 8, torus=False))[10] * 255
        nearest = np.ravel(arrays["nearest"][10])[0]
    choose_map(page, "topography/mnist")
    move_to(page, find(page, "#map-view button:nth-child(11)"))
    text = find(page, "#unit").text
    assert "row 1, column 2" in text
    assert f"wins {counts.sum():,} samples" in text
    assert f"nearest, no. {nearest}" in text
    bars = "return [...document.querySelectorAll('#unit tr')].map(r => r.cells[2].innerText)"
    assert page.execute_script(bars) == [f"{count:,}" if count else "" for count in counts]
    script = (
        "const c = document.querySelector('#unit canvas'); "
        "return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0)"
    )
    np.testing.assert_array_equal(page.execute_script(script), decoded.round().ravel())


def test_arrow_keys_walk_over_the_map(page):
    from selenium.webdriver.common.keys import Keys

    choose_map(page, "topography/digits")
    page.execute_script("document.querySelector('#map-view button').focus()")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert "row 2, column 1" in find(page, "#unit").text
    press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert "row 2, column 0" in find(page, "#unit").text, "this map has edges"


def test_the_map_that_was_chosen_last_stays(page):
    slow, fast, script = (
        "topography/mnist",
        "somvae/mnist",
        """
        const [slow, fast, done] = arguments, read = readMap;
        readMap = async (key) => {
          if (key === slow) await new Promise((resolve) => setTimeout(resolve, 300));
          return read(key);
        };
        Promise.all([showMap(slow), showMap(fast)]).then(() => { readMap = read; done(); });
    """,
    )
    page.execute_async_script(script, slow, fast)
    assert page.execute_script("return document.querySelectorAll('#map-view button').length") == 16


def test_every_map_and_every_layer_can_be_drawn(page):
    for option in page.execute_script("return [...document.querySelectorAll('#map-choice option')].map(o => o.value)"):
        choose_map(page, option)
        seen = set()
        for layer in ("decoded", "samples", "distances", "hits", "labels"):
            find(page, f"#map-layer input[value={layer}]").click()
            seen.add(page.execute_script("return document.querySelector('#map-view canvas').toDataURL()"))
        assert len(seen) == 5


def choose_ways(browser, name: str) -> dict[str, np.ndarray]:
    """Show a map of hours, wait until it is drawn, and return what its file holds."""
    script = "window.shown = null; showWays(arguments[0]).then(() => { window.shown = arguments[0] })"
    browser.execute_script(script, name)
    wait(browser, f"return window.shown === {name!r}")
    return dict(np.load(PROJECT / "results" / "maps" / name / "trajectories.npz"))


def test_a_chosen_trajectory_is_drawn_over_the_map(page):
    from selenium.webdriver.support.ui import Select

    arrays = choose_ways(page, "tdpsom/physionet2012")
    columns = int(arrays["map_size"][1])
    ends = arrays["lengths"].cumsum()
    Select(find(page, "#ways-path")).select_by_value("1")
    steps = "[...document.querySelectorAll('#ways-view circle:not(.end, .now)')]"
    script = f"return {steps}.map(c => [c.cy, c.cx].map(place => Math.floor(place.baseVal.value)))"
    expected = arrays["path_units"][ends[0] : ends[1]]
    assert page.execute_script(script) == [list(divmod(unit, columns)) for unit in expected.tolist()]
    assert (
        page.execute_script("return document.querySelectorAll('#ways-view rect:not(.end)').length")
        == (arrays["hits"] > 0).sum()
    )
    lines = page.execute_script("return document.querySelectorAll('#ways-view line:not(.casing)').length")
    assert lines >= len(expected) - 1
    Select(find(page, "#ways-path")).select_by_value("")
    assert not page.execute_script("return document.querySelectorAll('#ways-view line, #ways-view circle').length")
    assert not find(page, "#ways-time").is_displayed()


def test_a_trajectory_is_followed_by_keys(page):
    from selenium.webdriver.common.keys import Keys

    arrays = choose_ways(page, "tdpsom/physionet2012")
    length, start = int(arrays["lengths"][-1]), int(arrays["lengths"][:-1].sum())
    page.execute_script("document.querySelector('#ways-time input').focus()")
    press(page, Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    row, column = divmod(int(arrays["path_units"][start + 2]), int(arrays["map_size"][1]))
    reading = f"hour 2: row {row}, column {column}; score_1 {arrays['path_labels'][start + 2]}"
    assert find(page, "#ways-time output").text == reading
    assert find(page, "#ways-time input").get_attribute("aria-valuetext") == reading
    assert f"row {row}, column {column}" in find(page, "#ways-unit").text
    press(page, Keys.END)
    assert find(page, "#ways-time output").text.startswith(f"hour {length - 1}: ")


def test_pointing_at_a_unit_shows_its_hours(page):
    arrays = choose_ways(page, "tdpsom/physionet2012")
    unit = int(arrays["hits"].argmax())
    move_to(page, find(page, f"#ways-view button:nth-child({unit + 1})"))
    text = find(page, "#ways-unit").text
    assert f"row {unit // 16}, column {unit % 16}" in text
    assert f"wins {arrays['hits'][unit]:,} hours of {arrays['stays'][unit]:,} stays" in text
    bars = "return [...document.querySelectorAll('#ways-unit tr')].map(r => r.cells[2].innerText)"
    assert page.execute_script(bars) == [f"{count:,}" if count else "" for count in arrays["counts"][unit]]
    mean = float(re.search(r"mean score_1: ([\d.]+)", text)[1])
    assert mean == pytest.approx(arrays["means"][0, unit, 0], rel=0.01)


def test_every_map_of_hours_can_be_drawn_in_every_colour(page):
    picture = "document.querySelector('#ways-view svg').innerHTML"
    attractor = "document.querySelector('#attractor canvas').toDataURL()"
    for name in page.execute_script("return [...document.querySelectorAll('#ways-choice option')].map(o => o.value)"):
        arrays = choose_ways(page, name)
        assert find(page, "#attractor").is_displayed() == (arrays["points"].size > 0)
        layers = page.execute_script("return document.querySelectorAll('#ways-layer input').length")
        assert layers == 2 + len(arrays["quantities"]) + (arrays["points"].size > 0)
        seen = set()
        for layer in range(layers):
            find(page, f"#ways-layer input[value='{layer}']").click()
            seen.add(page.execute_script(f"return {picture} + {attractor}"))
        assert len(seen) == layers


def test_the_attractor_turns(page):
    from selenium.webdriver.common.keys import Keys

    choose_ways(page, "tdpsom/lorenz")
    picture = "return document.querySelector('#attractor canvas').toDataURL()"
    before = page.execute_script(picture)
    page.execute_script("document.querySelector('#attractor input').focus()")
    press(page, Keys.ARROW_RIGHT)
    assert page.execute_script(picture) != before
    press(page, Keys.ARROW_LEFT)
    assert page.execute_script(picture) == before


def test_curves_tell_their_values(page):
    from selenium.webdriver.common.keys import Keys

    move_to(page, find(page, "#original .chart"))
    assert "TensorFlow 0." in find(page, "#original .reading").text
    charts = "#original figure:nth-child(3) .chart"
    page.execute_script("document.querySelector(arguments[0]).scrollIntoView()", charts)
    press(page, Keys.TAB)
    page.execute_script("document.querySelector(arguments[0]).focus({focusVisible: true})", charts)
    press(page, Keys.END)
    text = find(page, "#original figure:nth-child(3) .reading").text
    assert text.startswith("epoch 139 (joint): faithful 0.96")
    assert "[0.95" in text
    for metric in ("purity", "topographic_error"):
        find(page, f"input[name=curve-metric][value={metric}]").click()
        groups = "[...document.querySelectorAll('[data-curve-metric]')]"
        shown = f"return {groups}.filter(group => !group.hidden).map(group => group.dataset.curveMetric)"
        assert page.execute_script(shown) == [metric]


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_follows_the_colour_scheme(page, address, width, scheme, tmp_path):
    look(page, width, scheme)
    page.get(address)
    wait(page, DRAWN)
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = (
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg, [popover]') "
        "&& e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200))"
    )
    assert page.execute_script(outside) == []
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(part) for part in paper.removeprefix("rgb(").removesuffix(")").split(",")])
    assert (brightness > 200) == (scheme == "light")
    for name in ("main", "topography", "curves", "maps", "trajectories", "speed"):
        page.execute_script("document.getElementById(arguments[0]).scrollIntoView()", name)
        page.save_screenshot(str(tmp_path / f"{width}-{scheme}-{name}.png"))


def test_a_page_without_runs_opens(browser, tmp_path):
    shutil.copy(PROJECT / "results" / "references.yaml", tmp_path)
    assert report.main(["--results", str(tmp_path)]) == 0
    browser.get((tmp_path / report.PAGE).as_uri())
    assert "0 recorded runs" in find(browser, "main").text
    assert not chromium.complaints(browser)

"""The page of all results: what is on it, that it is honest, and that it stands alone."""

import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

from experiments import PROJECT
from experiments.errors import UserError
from experiments.measures.hours import nmi_geometric
from scripts import report
from scripts.contents import TABLES
from scripts.records import load_records
from scripts.rendering import charts, curves
from scripts.rendering.results import Results
from scripts.tables import render_table

import numpy as np
import pytest
from test_tables import make_record, write

RESULTS = PROJECT / "results"


class Page(HTMLParser):
    """What the tests ask a page for: ids, links, addresses it would load, the tables' cells, the data."""

    def __init__(self, html: str):
        super().__init__()
        self.ids, self.links, self.loads, self.cells, self.stack = set(), [], [], [], []
        self.data, self.maps, self.inside = "", {}, None
        self.feed(html)
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            assert attributes["id"] not in self.ids, f"two elements are called {attributes['id']}"
            self.ids.add(attributes["id"])
        if tag == "a":
            self.links.append(attributes["href"])
        elif "src" in attributes or tag == "link":
            self.loads.append(attributes.get("src") or attributes["href"])
        if tag == "td":
            self.cells.append([attributes.get("data-value"), ""])
        key = attributes.get("data-map") or attributes.get("data-trajectories")
        held = key and (key, "map" if "data-map" in attributes else "trajectories")
        self.inside = "data" if attributes.get("id") == "data" else held or (tag == "td" and tag)
        if held:
            self.maps[held] = ""

    def handle_data(self, text):
        if self.inside == "data":
            self.data += text
        elif self.inside in self.maps:
            self.maps[self.inside] += text
        elif self.cells:
            self.cells[-1][1] += text

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture(scope="module")
def committed() -> str:
    return report.render(RESULTS)


@pytest.fixture(scope="module")
def page(committed) -> Page:
    return Page(committed)


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder without runs."""
    shutil.copy(RESULTS / "references.yaml", tmp_path)
    return tmp_path


def filled(results: Path) -> Path:
    """Runs in every kind of table, two seeds each, with curves."""
    for name in ("mnist", "mnist_faithful", "short", "ablation_posterior"):
        for seed in range(2):
            curve = [{"phase": "joint", "epoch": epoch, "validation/purity": 0.5 + 0.1 * seed} for epoch in (1, 2)]
            write(results, make_record(name, seed, 0.69123 + seed / 1000, curve=curve))
    return results


def test_every_table_and_every_record_is_there(page):
    assert set(TABLES) <= page.ids
    records = load_records(RESULTS / "runs")
    assert records
    for record in records:
        assert report.record_link(record) in page.links
        shown = next(run for run in page.data["runs"][record.key] if run["seed"] == record.seed)
        assert shown["metrics"] == record.metrics
        assert f"run/{record.key}" in page.ids
    assert sum(map(len, page.data["runs"].values())) == len(records)


def test_links_lead_somewhere(page):
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, link
        else:
            assert (RESULTS / "report" / link).resolve().exists(), link


def test_numbers_are_those_of_the_csv(results):
    filled(results)
    page = Page(report.render(results))
    shown = {float(value) for value, _ in page.cells if value is not None}
    checked = 0
    for name in TABLES:
        for row in csv.DictReader(io.StringIO(render_table(name, Results(results))[1])):
            if row.get("split") == "validation" and name == "dpsom_metrics":
                continue  # only in the file
            for key in ("mean", "difference"):
                if row.get(key):
                    assert float(row[key]) in shown, (name, row)
                    checked += 1
    assert checked > 50


def test_what_a_cell_shows_is_its_value_rounded(page):
    backed = [(float(value), text.strip()) for value, text in page.cells if value is not None]
    assert len(backed) > 100
    for value, text in backed:
        shown = report.NUMBER.match(text)[0]
        digits = len(shown.rstrip("%").partition("e")[0].partition(".")[2])
        number = float(re.sub("[,%]", "", shown).replace("−", "-"))
        assert number == pytest.approx(value, rel=10**-digits if "e" in shown else 0, abs=0.51 * 10**-digits)


def test_a_difference_leads_to_both_sides(results):
    html = report.render(filled(results))
    assert 'data-metric="test/purity" data-runs="dpsom/mnist dpsom/mnist_faithful"' in html
    assert 'data-metric="validation/purity" data-runs="dpsom/ablation_posterior dpsom/short"' in html


def test_a_number_of_an_epoch_leads_to_its_config_without_listing_the_final_numbers(results):
    curve = [{"phase": "joint", "epoch": 5, "validation/purity": 0.8125}]
    write(results, make_record(curve=curve))
    html = report.render(results)
    assert re.search(
        r'data-value="0.8125"><a class="curve" href="#run/dpsom/mnist"><span class="number">.81[23]</span>', html
    )


def test_an_empty_cell_stays_empty(results):
    page = Page(report.render(results))
    assert page.data["runs"] == {}
    golden = [text for _, text in page.cells if text.strip() in ("nan", "None", "0", "-")]
    assert not golden


def test_without_any_run_the_page_says_so(results):
    html = report.render(results)
    assert "stand on 0 recorded runs" in html
    assert "No run has been recorded yet." in html
    assert 'id="curves"' not in html
    assert 'id="maps"' not in html
    assert 'id="trajectories"' not in html
    assert 'id="speed"' not in html
    assert "0 of 50 runs" in html


def test_the_page_loads_nothing_and_tells_nothing_private(committed, page):
    assert page.loads == ["data:,"]
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", committed)
    text = re.sub(r"<script[^>]*data-(map|trajectories).*?</script>", "", committed, flags=re.DOTALL)
    assert not re.search(r"[\"'\s>(](/(?!/)[\w.-]+/[\w./-]+|[A-Z]:\\|file:)|://[^/\s]*@|mongodb(\+srv)?://", text)
    for part in (*PROJECT.parts[1:3], "localhost"):
        assert f"/{part}/" not in text


def test_the_same_files_give_the_same_bytes(committed):
    assert report.render(RESULTS) == committed


def test_maps_and_trajectories_are_the_committed_files(page):
    files = {("/".join(path.parts[-3:-1]), path.stem): path for path in RESULTS.glob("maps/*/*/*.npz")}
    assert page.maps.keys() == files.keys()
    assert {kind for _, kind in files} == {"map", "trajectories"}
    for held, path in files.items():
        assert base64.b64decode(page.maps[held]) == path.read_bytes()


def test_committed_trajectories_are_small_and_of_recorded_runs():
    recorded = {record.key for record in load_records(RESULTS / "runs") if record.seed == 0}
    paths = sorted(RESULTS.glob("maps/*/*/trajectories.npz"))
    assert paths
    for path in paths:
        assert path.stat().st_size < 100_000
        assert "/".join(path.parts[-3:-1]) in recorded
        with np.load(path, allow_pickle=False) as arrays:
            assert (arrays["points"].size > 0) == (arrays["label"].item() == "wing"), "only of generated data"


def test_committed_trajectories_agree_with_their_records():
    for path in RESULTS.glob("maps/*/*/trajectories.npz"):
        experiment, config = path.parts[-3:-1]
        metrics = json.loads((RESULTS / "runs" / experiment / config / "0.json").read_text())["metrics"]
        with np.load(path, allow_pickle=False) as arrays:
            counts, label = arrays["counts"], arrays["label"].item()
            assert (arrays["hits"] > 0).sum() == metrics["validation/used_units"]
        found = nmi_geometric(counts)
        assert found == pytest.approx(metrics[f"validation/nmi_geometric_{label}"], rel=1e-6)


def test_the_committed_page_is_up_to_date_and_small(committed):
    path = RESULTS / report.PAGE
    assert path.read_text() == committed, "run `make report` and commit what it writes"
    maps = sum(file.stat().st_size for file in RESULTS.glob("maps/*/*/*"))
    assert path.stat().st_size < 1_400_000 + 1.5 * maps


def test_the_command_writes_once_and_check_tells_drift(results, capsys):
    arguments = ["--results", str(results)]
    assert report.main([*arguments, "--check"]) == 1
    assert "make report" in capsys.readouterr().err
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    written = (results / report.PAGE).stat().st_mtime_ns
    assert report.main(arguments) == 0
    assert (results / report.PAGE).stat().st_mtime_ns == written
    write(results, make_record())
    assert report.main([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("maps/dpsom/mnist/map.npz", "no archive"),
        ("maps/tdpsom/lorenz/trajectories.npz", "no archive"),
        ("speed.json", '{"results": [{}]}'),
        ("speed.json", "{"),
    ],
)
def test_a_broken_file_is_one_line(results, capsys, name, content):
    path = results / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert report.main(["--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert path.name in message
    assert message.count("\n") == 1


def test_values_from_records_are_escaped(results):
    record = make_record(hardware={"device": "cpu", "cpu": "</script><b>", "threads": 2, "gpu": None})
    record["config"]["model"]["posterior"] = "<i>"
    write(results, record)
    html = report.render(results)
    assert "</script><b>" not in html.replace("</script>\n", "")
    assert "<dd>&lt;i&gt;</dd>" in html


def test_speed_is_shown_where_it_was_measured(results):
    phase = {"phase": "joint", "samples_per_second": 12345.6, "share_of_peak": 0.37}
    result = {
        "config": "mnist", "precision": "bf16", "phases": [phase], "peak_memory_megabytes": 812.3,
        "memory_growth_megabytes": -0.2, "hardware": {"gpu": None, "cpu": "A CPU"},
    }  # fmt: skip
    (results / "speed.json").write_text(json.dumps({"format": 1, "results": [result]}))
    page = Page(report.render(results))
    assert "speed" in page.ids
    assert [text.strip() for _, text in page.cells if text.strip() in ("12,346", "37%", "812")]


# --------------------------------------------------------------------------------------------------------------- curves


def test_a_band_reaches_from_the_least_to_the_greatest_seed():
    chart = charts.draw({"validation": {1: [0.2, 0.4], 3: [0.5, 0.9]}}, {"som": 0, "joint": 2})
    line = chart.lines[0]
    places = [tuple(map(float, point.split(","))) for point in line.path[1:].split("L")]
    band = [tuple(map(float, point.split(","))) for point in line.band[1:-1].split("L")]
    assert [x for x, _ in places] == chart.points["x"]
    assert places[0][1] > places[1][1], "larger values lie higher"
    upper, lower = band[:2], band[:1:-1]
    for (x, y), (x1, y1), (x2, y2) in zip(places, upper, lower, strict=True):
        assert x == x1 == x2
        assert y == pytest.approx((y1 + y2) / 2, abs=0.1)
        assert y1 < y < y2
    assert chart.points["values"] == [[[0.3, 0.2, 0.4], [0.7, 0.5, 0.9]]]
    assert len(chart.starts) == 1
    assert chart.points["x"][0] < chart.starts[0] < chart.points["x"][1]


def test_curves_of_hours_are_those_of_their_first_label():
    curve = [
        {"phase": "pretrain", "epoch": 1},
        {
            "phase": "joint",
            "epoch": 1,
            "validation/nmi_geometric_score_1": 0.2,
            "validation/nmi_geometric_score_6": 0.1,
        },
    ]
    found = report.learning_curves({"tdpsom/physionet2012": [SimpleNamespace(curve=curve)]})
    assert [group["metric"] for group in found] == ["nmi_geometric"]
    panel = found[0]["panels"][0]
    assert (panel["label"], panel["chart"].points["values"]) == ("score_1", [[[0.2]]])


def test_ticks_enclose_the_values_and_lie_inside_the_frame():
    for values in ([0.0, 1.0], [0.6912, 0.6913], [-0.3, 5.5], [0.5, 0.5]):
        chart = charts.draw({"validation": dict(enumerate(([value] for value in values), 1))}, {"joint": 0})
        labels = [float(text.replace("−", "-")) for _, text in chart.y_ticks]
        assert labels == sorted(set(labels))
        assert labels[0] <= min(values)
        assert max(values) <= labels[-1]
        assert all(charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM for y, _ in chart.y_ticks)
        assert all(charts.LEFT <= x <= charts.WIDTH - charts.RIGHT for x, _ in chart.x_ticks)
    assert charts.draw({"validation": {}}, {}) is None


def test_faithful_runs_stand_beside_the_original(results):
    (results / "curves").mkdir()
    shutil.copy(RESULTS / curves.ORIGINAL, results / curves.ORIGINAL)
    alone = report.render(results)
    assert "the original’s curve stands alone" in alone
    original = curves.original_curve(results / curves.ORIGINAL)
    ours = [row | {"test/purity": row["test/purity"] + 0.01} for row in original]
    write(results, make_record("mnist_faithful", 0, curve=ours))
    found = report.beside_the_original(results, {"dpsom/mnist_faithful": load_records(results / "runs")})
    titles = [panel["title"] for panel in found["panels"]]
    assert titles[2:] == ["purity, test", "purity, test: faithful − TensorFlow"]
    difference = found["panels"][3]["chart"].points["values"][0]
    assert len(difference) == len(original)
    assert all(value == pytest.approx([0.01], abs=1e-4) for value in difference)


def test_without_references_it_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"references\.yaml cannot be used"):
        report.render(tmp_path)


def test_committed_maps_agree_with_their_records():
    paths = sorted((PROJECT / "results").glob("maps/*/*/map.npz"))
    assert paths
    for path in paths:
        experiment, config = path.parts[-3:-1]
        record = json.loads((PROJECT / "results" / "runs" / experiment / config / "0.json").read_text())
        sampled = record["config"]["model"].get("assignment") == "sample"  # older code drew anew for the picture
        with np.load(path, allow_pickle=False) as arrays:
            counts = arrays["counts"]
        assert (counts.sum(axis=1) > 0).sum() == record["metrics"]["validation/used_units"], path
        purity = counts.max(axis=1).sum() / counts.sum()
        assert purity == pytest.approx(record["metrics"]["validation/purity"], abs=1e-3 if sampled else 1e-9), path

"""Records, the comparison of two sets of runs, and the tables rendered from them."""

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

from experiments import PROJECT
from experiments.errors import UserError
from scripts import tables
from scripts.comparison import Summary, compare, compare_ours, summarise
from scripts.contents import TABLES
from scripts.records import conflicting_keys, load_records, record_path
from scripts.rendering.cells import in_words
from scripts.rendering.metrics import CLUSTERING, TOPOLOGY
from scripts.rendering.results import ParityRow, Reference, Results
from scripts.scheduling.plan import named_config
from scripts.tables import render_all, render_table

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_record(config_name="mnist", seed=0, nmi=0.69, purity=0.96, **changes):
    """A record of a run with the given NMI and purity on both splits."""
    metrics = {f"{split}/{name}": 0.5 for split in ("validation", "test") for name in CLUSTERING | TOPOLOGY}
    for split in ("validation", "test"):
        metrics |= {f"{split}/nmi_geometric": nmi, f"{split}/purity": purity}
    return {
        "format": 1,
        "experiment": "dpsom",
        "config_name": config_name,
        "seed": seed,
        "status": "COMPLETED",
        "config": {
            "seed": seed,
            "resume": None,
            "model": {"map_size": [8, 8], "posterior": "diagonal"},
            "compute": {"precision": "fp32", "threads": 1 + seed},
            "tracking": {"runs_dir": "runs"},
        },
        "metrics": metrics,
        "curve": [],
        "seconds": {"pretrain": 60.0, "joint": 600.0 + seed},
        "git_commit": COMMIT,
        "git_dirty": False,
        "versions": {"torch": "2.13.0"},
        "hardware": {"device": "cpu", "cpu": "A CPU", "threads": 2, "gpu": None},
        "data_checksum": "abc",
    } | changes


def write(results: Path, *records: dict) -> None:
    for record in records:
        path = record_path(results / "runs", record["experiment"], record["config_name"], record["seed"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder without runs."""
    folder = tmp_path / "results"
    folder.mkdir()
    shutil.copy(PROJECT / "results" / "references.yaml", folder)
    return folder


def markdown(results: Path, name: str) -> str:
    return render_table(name, Results(results))[0]


def cells(text: str, *start: str) -> list[str]:
    """The cells of the first row that begins with these cells."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return next(row for row in rows if row[: len(start)] == list(start))


# ----------------------------------------------------------------------------------------------------------- statistics


def test_mean_and_standard_error_by_hand():
    assert summarise([]) is None
    assert summarise([0.5]) == Summary(0.5, None, 1)
    three = summarise([1.0, 2.0, 4.0])
    assert three.mean == pytest.approx(7 / 3)
    assert three.standard_error == pytest.approx(math.sqrt((16 + 1 + 25) / 9 / 2 / 3))


def test_interval_and_equivalence_are_scipys():
    generator = np.random.default_rng(0)
    verdicts = set()
    for _ in range(200):
        shift, spread = generator.uniform(-0.03, 0.03), generator.uniform(0.0005, 0.01)
        ours = generator.normal(0.7 + shift, spread, generator.integers(2, 7))
        reference = generator.normal(0.7, 0.004, generator.integers(2, 7))
        comparison = compare(summarise(ours), summarise(reference))
        expected = stats.ttest_ind(ours, reference, equal_var=False)
        assert comparison.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
        above = stats.ttest_ind(ours + 0.01, reference, equal_var=False, alternative="greater").pvalue
        below = stats.ttest_ind(ours - 0.01, reference, equal_var=False, alternative="less").pvalue
        equal = max(above, below) < 0.05
        significant = (
            {1: "better", -1: "worse"}[np.sign(comparison.difference)] if expected.pvalue < 0.05 else "undecided"
        )
        assert comparison.verdict == ("equal" if equal else significant)
        verdicts.add(comparison.verdict)
    assert verdicts == {"equal", "better", "worse", "undecided"}


def test_a_reference_without_spread_is_a_constant():
    values = [0.690, 0.694, 0.699]
    for reference in (Summary(0.68, None, 1), Summary(0.68, None, None), Summary(0.68, None, 10)):
        comparison = compare(summarise(values), reference)
        expected = stats.ttest_1samp(values, 0.68).confidence_interval(0.95)
        assert comparison.interval == pytest.approx(tuple(np.array(expected) - 0.68))
        assert comparison.note == "reference taken as a constant"


def test_one_run_of_ours_has_no_verdict():
    comparison = compare(Summary(0.9, None, 1), Summary(0.7, 0.001, 10))
    assert (comparison.verdict, comparison.interval) == ("undecided", None)
    assert comparison.difference == pytest.approx(0.2)


def test_a_single_run_of_ours_is_no_constant():
    comparison = compare_ours(Summary(0.695, 0.0005, 5), Summary(0.7082, None, 1))
    assert (comparison.verdict, comparison.interval) == ("undecided", None)
    one, two = Summary(0.695, 0.0005, 5), Summary(0.7082, 0.001, 3)
    assert compare_ours(one, two) == compare(one, two)


def test_a_certain_difference_below_the_margin_is_equal():
    assert compare(Summary(0.705, 0.0001, 5), Summary(0.7, 0.0001, 5)).verdict == "equal"
    assert compare(Summary(0.712, 0.0001, 5), Summary(0.7, 0.0001, 5)).verdict == "better"
    assert compare(Summary(0.5, 0.0, 3), Summary(0.5, 0.0, 3)).interval == (0.0, 0.0)


summaries = st.builds(Summary, st.floats(0, 1), st.floats(0, 0.05), st.integers(2, 20))


@given(summaries, summaries)
def test_swapping_the_sides_mirrors_the_verdict(one, two):
    forth, back = compare(one, two), compare(two, one)
    mirrored = {"better": "worse", "worse": "better"}
    assert back.verdict == mirrored.get(forth.verdict, forth.verdict)
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]), abs=1e-12)


@given(summaries, summaries, st.floats(0.001, 0.1))
def test_better_and_worse_exclude_zero_and_a_wider_margin_keeps_equal(one, two, margin):
    comparison = compare(one, two, margin)
    low, high = comparison.interval
    assert {"better": low > 0, "worse": high < 0, "equal": abs(comparison.difference) < margin}.get(
        comparison.verdict, low <= 0 <= high
    )
    if comparison.verdict == "equal":
        assert compare(one, two, 2 * margin).verdict == "equal"


# -------------------------------------------------------------------------------------------------------------- records


def test_only_completed_records_enter(results):
    write(
        results,
        make_record(seed=0, nmi=0.7),
        make_record(seed=1, nmi=0.1, status="INTERRUPTED"),
        make_record(seed=2, nmi=0.1, status="FAILED"),
        make_record(seed=3, nmi=0.1, status="RUNNING"),
    )
    assert [record.seed for record in load_records(results / "runs")] == [0]
    row = cells(markdown(results, "dpsom_parity"), "MNIST", "dense", "NMI", "validation")
    assert row[9] == ".7000, n = 1"


def test_an_undefined_metric_is_as_good_as_absent(results):
    record = make_record()
    record["metrics"]["test/topographic_error"] = None
    write(results, record)
    (loaded,) = load_records(results / "runs")
    assert set(record["metrics"]) - set(loaded.metrics) == {"test/topographic_error"}
    assert "`mnist`" in markdown(results, "dpsom_metrics")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"seed": True}, "whole number"),
        ({"config_name": None}, "was not recorded here"),
        ({"metrics": {"test/purity": float("nan")}}, "not a finite number"),
        ({"metrics": {"test/purity": "0.9"}}, "not a finite number"),
        ({"config": []}, "must be a JSON object"),
        ({"config": {"data": {"root": "/somewhere/data"}}}, "config.data.root"),
        (
            {"config": {"tracking": {"mongo_url": "mongodb://user:secret@db.example.org/runs"}}},
            "config.tracking.mongo_url",
        ),
        ({"config": {"tracking": {"mongo_url": "mongodb://db.example.org/runs"}}}, "config.tracking.mongo_url"),
    ],
)
def test_a_bad_record_is_one_line(results, change, message):
    write(results, make_record())
    path = results / "runs" / "dpsom" / "mnist" / "0.json"
    path.write_text(json.dumps(make_record() | change))
    with pytest.raises(UserError, match=message) as error:
        load_records(results / "runs")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_a_redacted_mongo_url_is_allowed(results):
    write(results, make_record(config={"tracking": {"mongo_url": "mongodb://***"}}))
    assert len(load_records(results / "runs")) == 1


@pytest.mark.parametrize("key", ["config", "metrics", "git_dirty", "data_checksum"])
def test_a_missing_key_is_named(results, key):
    record = make_record()
    write(results, record)
    del record[key]
    (results / "runs" / "dpsom" / "mnist" / "0.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"lacks {key}"):
        load_records(results / "runs")


def test_half_a_file_is_one_line(results):
    write(results, make_record())
    path = results / "runs" / "dpsom" / "mnist" / "0.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="cannot be read as JSON"):
        load_records(results / "runs")


@pytest.mark.parametrize("place", ["dpsom/mnist/1.json", "dpsom/fmnist/0.json", "dpsom/mnist/00.json", "0.json"])
def test_the_path_must_say_what_the_file_holds(results, place):
    path = results / "runs" / place
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(make_record()))
    with pytest.raises(UserError, match="belongs to"):
        load_records(results / "runs")


def test_records_of_one_row_must_agree(results):
    write(results, make_record(seed=0), make_record(seed=1))
    assert len(load_records(results / "runs")) == 2, "seed, threads and tracking may differ"
    other = make_record(seed=1)
    other["config"]["model"]["posterior"] = "full"
    write(results, other)
    with pytest.raises(UserError, match=r"disagree in model\.posterior"):
        load_records(results / "runs")
    write(results, make_record(seed=1, data_checksum="def"))
    with pytest.raises(UserError, match="different data"):
        load_records(results / "runs")


def test_every_committed_record_is_of_its_config_today():
    for record in load_records(PROJECT / "results" / "runs"):
        config = named_config(record.experiment, record.config_name)
        assert conflicting_keys(record.config, config) == [], record.key


def test_no_two_committed_seeds_and_no_two_splits_have_the_same_numbers():
    rows = {}
    for record in load_records(PROJECT / "results" / "runs"):
        assert record.config["seed"] == record.seed
        rows.setdefault(record.key, []).append(record.metrics)
        for name in ("quantization_error", "reconstruction_error", "persistence_data"):
            if f"test/{name}" in record.metrics:
                assert record.metrics[f"test/{name}"] != record.metrics[f"validation/{name}"], record.key
    for key, metrics in rows.items():
        assert all(one != other for place, one in enumerate(metrics) for other in metrics[:place]), key


# ----------------------------------------------------------------------------------------------------------- references


def reference_values(results: Results, **wanted) -> list[float]:
    return [r.value for r in results.references if all(getattr(r, key) == value for key, value in wanted.items())]


def test_the_published_tables_are_there(results):
    found = Results(results)
    port = {"source": "dpsom_torch_port", "split": "test", "n": 1, "status": "printed", "units": 64}
    original = port | {"source": "dpsom_tensorflow", "split": "validation"}
    assert reference_values(found, **port, metric="nmi_geometric") == [0.6946, 0.7267, 0.5673, 0.5712]
    assert reference_values(found, **port, metric="purity") == [0.9609, 0.9833, 0.7738, 0.7766]
    assert reference_values(found, **original, metric="nmi_geometric") == [0.6919, 0.6988, 0.5667, 0.5667]
    assert reference_values(found, **original, metric="purity") == [0.9626, 0.9676, 0.7809, 0.7809]
    repeated = [r for r in found.references if "repeats_dense" in r.notes]
    assert {(r.data, r.network, r.source) for r in repeated} == {("fmnist", "conv", "dpsom_tensorflow")}
    recalled = {"source": "somvae_paper", "units": 16, "n": 10, "status": "recalled", "data": "mnist"}
    assert reference_values(found, **recalled, metric="nmi_arithmetic") == [
        0.541,
        0.342,
        0.519,
        0.409,
        0.001,
        0.436,
        0.594,
    ]
    assert len(reference_values(found, source="dpsom_paper", status="recalled")) == 24


def test_a_standard_deviation_becomes_a_standard_error():
    entry = {
        "source": "s",
        "model": "m",
        "data": "d",
        "network": None,
        "split": "test",
        "units": 64,
        "metric": "purity",
    }
    reference = Reference(**entry, value=0.7, n=4, spread="standard_deviation", status="printed", error=0.02)
    assert reference.summary() == Summary(0.7, 0.01, 4)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("format: 1", "format: 2"),
        ("status: printed", "status: guessed"),
        ("spread: none", "spread: s.d."),
        ("value:", "valeu:"),
    ],
)
def test_wrong_references_are_one_line(results, old, new):
    path = results / "references.yaml"
    path.write_text(path.read_text().replace(f"{old}", new))
    with pytest.raises(UserError, match=r"references\.yaml cannot be used") as error:
        Results(results)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------------------------------- tables


def test_without_records_our_cells_are_empty_and_the_published_stand(results):
    text = markdown(results, "dpsom_parity")
    assert "from 0 records of finished runs, equivalence margin 0.01" in text
    row = cells(text, "Fashion-MNIST", "conv", "purity", "validation")
    assert row[4].startswith("TensorFlow .7809<sup>")
    assert row[5:] == [""] * 6
    for name in TABLES:
        assert "nan" not in markdown(results, name).lower().replace("nance", "")


def test_one_record_is_shown_without_interval_or_verdict(results):
    write(results, make_record(nmi=0.7))
    text = markdown(results, "dpsom_parity")
    assert "from 1 record of finished runs" in text
    row = cells(text, "MNIST", "dense", "NMI", "test")
    assert row[5:] == ["", "", "", "", ".7000, n = 1", "+.0054 **undecided**"]


def test_three_records_get_mean_error_interval_and_verdict(results):
    values = [0.690, 0.692, 0.694]
    write(results, *(make_record(seed=seed, nmi=value, purity=0.98) for seed, value in enumerate(values)))
    text = markdown(results, "dpsom_parity")
    low, high = stats.ttest_1samp(values, 0.6919).confidence_interval(0.95)
    row = cells(text, "MNIST", "dense", "NMI", "validation")
    assert row[9] == ".6920 ± .0012, n = 3"
    assert row[10] == f"+.0001 [−{0.6919 - low:.4f}, +{high - 0.6919:.4f}] **equal**".replace("0.", ".")
    assert cells(text, "MNIST", "dense", "purity", "test")[10].endswith("**better**")
    assert "0, 1, 2" in cells(text, "[mnist](../runs/dpsom/mnist/)")


def test_like_is_compared_with_like(results):
    record = make_record("mnist_faithful")
    record["metrics"] |= {"validation/nmi_geometric": 0.61, "test/nmi_geometric": 0.62}
    write(results, record)
    text = markdown(results, "dpsom_parity")
    assert cells(text, "MNIST", "dense", "NMI", "validation")[5] == ".6100, n = 1"
    assert cells(text, "MNIST", "dense", "NMI", "test")[5] == ".6200, n = 1"


@pytest.mark.parametrize(("old", "new"), [("split: test", "split: training"), ("units: 64", "units: 16")])
def test_another_split_or_size_of_map_gets_no_verdict(results, old, new):
    path = results / "references.yaml"
    path.write_text(path.read_text().replace(f"{old},", f"{new},"))
    write(results, *(make_record(seed=seed, nmi=0.69 + 0.001 * seed) for seed in range(3)))
    text = markdown(results, "dpsom_parity")
    split = "training" if "training" in new else "test"
    row = cells(text, "MNIST", "dense", "NMI", split)
    assert row[4].startswith("Torch port .6946")
    assert row[10] == ""


def test_corrected_is_compared_with_faithful_by_welch(results):
    faithful, corrected = [0.680, 0.684, 0.682], [0.700, 0.705, 0.702]
    write(results, *(make_record("mnist_faithful", seed, value) for seed, value in enumerate(faithful)))
    write(results, *(make_record("mnist", seed, value) for seed, value in enumerate(corrected)))
    low, high = stats.ttest_ind(corrected, faithful, equal_var=False).confidence_interval(0.95)
    _, _, own = markdown(results, "dpsom_parity").partition("## Corrected against faithful")
    expected = f"+.0203 [+{low:.4f}, +{high:.4f}] **better**".replace("0.", ".")
    assert cells(own, "MNIST", "dense", "NMI")[6] == expected


def test_stacks_show_each_split_and_each_block(results):
    metrics = {
        "train/classifier_accuracy": 0.97,
        "validation/classifier_accuracy": 0.7,
        "test/classifier_accuracy": 0.69,
    }
    for block, error in enumerate((0.1, 0.25, 0.3), start=1):
        metrics |= {f"test/block{block}_topographic_error": error, f"test/block{block}_used_units": 90.0 + block}
    config = {"model": {}, "training": {"joint_epochs": 5}}
    record = make_record("jpg_native", experiment="tpae", config=config, metrics=metrics, seconds={"joint": 510.0})
    write(results, record)
    row = cells(markdown(results, "tpae"), "`jpg_native`")
    assert row[2:6] == ["1", ".970", ".700", ".690"]
    assert row[8:] == [".100 / .250 / .300", "", "91 / 92 / 93", "102"]
    assert cells(markdown(results, "tpae"), "`jpg_plain_cnn`")[2:] == [""] * 10


def test_uncommitted_changes_are_flagged(results):
    write(results, make_record(seed=0), make_record(seed=1, git_dirty=True))
    for name in ("dpsom_parity", "dpsom_metrics", "dpsom_precision"):
        assert "† run with uncommitted changes" in markdown(results, name)
    row = cells(markdown(results, "dpsom_parity"), "MNIST", "dense", "NMI", "test")
    assert row[9].endswith("n = 2 †")
    short = render_table("dpsom_parity", Results(results))[2]
    assert "† run with uncommitted changes" in short


def test_the_ablation_names_what_the_recorded_configs_switch(results):
    base, row = (row.runs for row in TABLES["dpsom_ablation"].rows[:2])
    for seed, nmi in enumerate((0.60, 0.61, 0.62)):
        write(results, make_record(base.config_name, seed, nmi))
        switched = make_record(row.config_name, seed, nmi - 0.1)
        switched["config"]["model"]["posterior"] = "full"
        write(results, switched)
    text = markdown(results, "dpsom_ablation")
    assert cells(text, f"`{base.config_name}`")[:5] == [f"`{base.config_name}`", "(base)", "3", "11.0", ".6100 ± .0058"]
    line = cells(text, f"`{row.config_name}`")
    assert line[1] == "`model.posterior`: diagonal → **full**"
    assert line[5].startswith("−.1000 [")
    assert line[5].endswith("**worse**")


def test_the_ablation_shows_the_units_in_use_and_the_order_of_the_map(results):
    base, row = (row.runs for row in TABLES["dpsom_ablation"].rows[:2])
    for units in (50, 53):
        record = make_record(base.config_name, seed=units)
        record["metrics"]["validation/used_units"] = float(units)
        write(results, record)
    record = make_record(row.config_name)
    del record["metrics"]["validation/topographic_error"]
    write(results, record)
    text = markdown(results, "dpsom_ablation")
    assert cells(text, "config")[-2:] == ["used units, validation", "topographic error, validation"]
    assert cells(text, f"`{base.config_name}`")[-2] == "51.5 ± 1.5"
    assert cells(text, f"`{row.config_name}`")[-1] == ""


def test_the_ablation_names_a_switch_that_the_bases_older_code_had_not(results):
    base = TABLES["dpsom_ablation"].rows[0].runs
    write(results, make_record(base.config_name))
    switched = make_record("ablation_target")
    switched["config"]["training"] = {"target": "sample", "decay_steps": 1000, "of_no_concern": 1}
    write(results, switched)
    line = cells(markdown(results, "dpsom_ablation"), "`ablation_target`")
    assert line[1] == "`training.target`: **sample**"


def test_all_metrics_of_all_configs(results):
    write(results, make_record(seed=0), make_record(seed=1))
    text = markdown(results, "dpsom_metrics")
    assert cells(text, "`mnist`")[:3] == ["`mnist`", "2", ".690 ± .000"]
    assert cells(text, "`fmnist_conv_faithful`")[1:] == [""] * 8


def test_golden_comparison(results):
    assert "No comparison has been recorded yet" in markdown(results, "parity_golden")
    row = {"model": "DPSOM dense", "quantity": "loss terms", "measure": "relative", "worst": 3e-6, "tolerance": 1e-5}
    content = {"format": 1, "git_commit": COMMIT, "rows": [row, row | {"quantity": "gradients", "worst": 2e-5}]}
    (results / "parity_golden.json").write_text(json.dumps(content))
    text = markdown(results, "parity_golden")
    assert cells(text, "DPSOM dense", "loss terms")[3:] == ["3.0e-06", "1e-05", "yes"]
    assert cells(text, "DPSOM dense", "gradients")[3:] == ["2.0e-05", "1e-05", "**no**"]
    (results / "parity_golden.json").write_text(json.dumps({"format": 1, "rows": [{}]}))
    with pytest.raises(UserError, match="run the parity comparison again"):
        Results(results)


def test_every_table_row_has_as_many_cells_as_its_head(results):
    for config_name in ("mnist", "mnist_faithful", "short", "ablation_posterior", "mnist_bf16"):
        write(results, *(make_record(config_name, seed, 0.6 + seed / 100) for seed in range(3)))
    found = Results(results)
    for name in TABLES:
        text, _, short = render_table(name, found)
        for block in f"{text}\n\n{short}".split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1


def test_csv_holds_the_unrounded_numbers(results):
    values = [0.690123, 0.692456, 0.694789]
    write(results, *(make_record(seed=seed, nmi=value) for seed, value in enumerate(values)))
    rows = list(csv.DictReader(render_table("dpsom_parity", Results(results))[1].splitlines()))
    wanted = {"config": "mnist", "metric": "nmi_geometric", "split": "test", "compared_with": "dpsom_torch_port"}
    row = next(row for row in rows if wanted.items() <= row.items())
    assert float(row["mean"]) == pytest.approx(np.mean(values), abs=1e-15)
    assert (row["n"], row["compared_mean"], row["verdict"]) == ("3", "0.6946", "equal")
    assert row["note"] == "reference taken as a constant"


def test_csv_names_what_a_value_is_compared_with_only_where_it_is(results):
    write(results, *(make_record(name, seed, 0.69) for name in ("mnist", "mnist_faithful") for seed in range(3)))
    rows = list(csv.DictReader(render_table("dpsom_parity", Results(results))[1].splitlines()))
    assert {row["config"] for row in rows if row["compared_status"] == "ours" and row["verdict"]} == {"mnist"}
    for row in rows:
        if row["compared_status"] in {"ours", ""}:
            assert len({bool(row[key]) for key in ("compared_with", "compared_mean", "compared_n", "verdict")}) == 1


def curve(*lines: tuple[str, int, float]) -> list[dict]:
    return [{"phase": phase, "epoch": epoch, "validation/nmi_geometric": nmi} for phase, epoch, nmi in lines]


def test_by_the_epoch_it_is_the_joint_phase_that_counts(results):
    first = curve(("pretrain", 5, 0.1), ("joint", 5, 0.5), ("joint", 30, 0.6))
    second = curve(("joint", 5, 0.7), ("joint", 29, 0.9))
    second.append({"phase": "joint", "epoch": 60, "validation/nmi_geometric": None})
    write(results, make_record(seed=0, curve=first), make_record(seed=1, curve=second))
    row = cells(markdown(results, "dpsom_epochs"), "`mnist`")
    assert row == ["`mnist`", "2", ".600 ± .100", ".600, n = 1", "", "", "", ""]


def test_in_short_metrics_share_a_cell(results):
    lines = [line | {"validation/purity": 0.9} for line in curve(("joint", 5, 0.5), ("joint", 30, 0.6))]
    write(results, make_record(curve=lines))
    row = cells(render_table("dpsom_epochs", Results(results))[2], "`mnist`")
    assert row[1:5] == ["1", ".500 / .900", ".600 / .900", ""]


def test_pages_of_results_hold_tables_too(results):
    page = results / "choices.md"
    page.write_text("Before.\n\n<!-- table:dpsom_epochs -->\n<!-- /table -->\n")
    (results / "README.md").write_text("Without a table.\n")
    write(results, make_record(curve=curve(("joint", 5, 0.5))))
    files = render_all(results)
    assert files[page].startswith("Before.\n\n<!-- table:dpsom_epochs -->\n\n| config | n |")
    assert "| `mnist` | 1 | .500 |" in files[page]
    assert results / "README.md" not in files


def test_rendering_is_deterministic_and_check_tells_drift(results, capsys):
    readme = results.parent / "README.md"
    readme.write_text("# Name\n\n<!-- table:dpsom_parity -->\nold\n<!-- /table -->\n\nAfter.\n")
    arguments = ["--results", str(results)]
    write(results, make_record())
    assert tables.main([*arguments, "--check"]) == 1
    assert "README.md" in capsys.readouterr().err
    assert tables.main(arguments) == 0
    files = {path: path.read_text() for path in [readme, *(results / "tables").iterdir()]}
    assert tables.main([*arguments, "--check"]) == 0
    assert tables.main(arguments) == 0
    assert files == {path: path.read_text() for path in files}
    assert "| MNIST | dense | NMI | .6919" in files[readme]
    assert files[readme].endswith("<!-- /table -->\n\nAfter.\n")
    write(results, make_record(seed=1))
    assert tables.main([*arguments, "--check"]) == 1
    readme.write_text(files[readme].replace(".6919", ".6999"))
    assert readme in tables.out_of_date(render_all(results))


def test_an_unknown_table_in_the_readme_is_one_line(results, capsys):
    (results.parent / "README.md").write_text("<!-- table:nothing --><!-- /table -->")
    assert tables.main(["--results", str(results)]) == 2
    assert "asks for the table 'nothing'" in capsys.readouterr().err


def test_a_table_without_end_does_not_swallow_the_text_behind_it(results, capsys):
    readme = results.parent / "README.md"
    text = "<!-- table:dpsom_parity -->\n\nText.\n\n<!-- table:dpsom_metrics -->\n\n<!-- /table -->"
    readme.write_text(text)
    assert tables.main(["--results", str(results)]) == 2
    assert "has a table that does not end" in capsys.readouterr().err
    assert readme.read_text() == text


def test_what_cannot_be_written_is_one_line(results, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert tables.main(["--results", str(results), "--latex", str(tmp_path / "file" / "tables")]) == 2
    assert capsys.readouterr().err.startswith("error: cannot write")


def test_committed_tables_and_readme_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "scripts/tables.py", "--check"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_config_of_a_table_exists_and_every_ablation_is_in_one():
    asked = {(runs.experiment, runs.config_name) for table in TABLES.values() for runs in table.runs()}
    missing = [
        f"configs/{e}/{name}.yaml" for e, name in sorted(asked) if not (PROJECT / f"configs/{e}/{name}.yaml").exists()
    ]
    assert not missing
    ablations = {("dpsom", path.stem) for path in PROJECT.glob("configs/dpsom/ablation_*.yaml")}
    assert ablations <= asked


def test_no_script_hides_a_module_of_the_standard_library():
    """`python scripts/x.py` puts scripts/ first on the path: a statistics.py there would break torch.compile."""
    for folder in ("scripts", "experiments"):
        assert not {path.stem for path in (PROJECT / folder).glob("*.py")} & sys.stdlib_module_names


def test_a_single_base_run_decides_nothing_in_an_ablation_and_between_our_columns(results):
    base, row = (row.runs for row in TABLES["dpsom_ablation"].rows[:2])
    write(results, make_record(base.config_name, 0, 0.60), make_record("mnist_faithful", 0, 0.60))
    for seed, nmi in enumerate((0.70, 0.71, 0.72)):
        write(results, make_record(row.config_name, seed, nmi), make_record("mnist", seed, nmi))
    assert cells(markdown(results, "dpsom_ablation"), f"`{row.config_name}`")[5] == "+.1100 **undecided**"
    own = markdown(results, "dpsom_parity").partition("## Corrected against faithful")[2]
    assert cells(own, "MNIST", "dense", "NMI")[6] == "+.1100 **undecided**"


@pytest.mark.parametrize("name", TABLES)
def test_no_two_rows_of_a_table_stand_on_the_same_runs(name):
    runs = [
        (row.labels, runs.key)
        for row in TABLES[name].rows
        for runs in (row.runs.values() if isinstance(row, ParityRow) else [row.runs])
    ]
    assert len({key for _, key in runs}) == len(runs)


def test_seconds_of_training_are_without_the_evaluations_between(results):
    write(results, make_record("square", experiment="topography", seconds={"map": 60.0, "evaluation": 30.0}))
    assert cells(markdown(results, "topography"), "`square`")[8] == "60.0"


# --------------------------------------------------------------------------------------------------------------- stays


def stays_record(seed, value, experiment="tdpsom", config_name="physionet2012"):
    metrics = {
        f"{split}/{metric}": value
        for split in ("validation", "test")
        for metric in (
            "nmi_geometric_score_24", "nmi_geometric_score_24_low", "nmi_arithmetic_full_score_24", "forecast_measured",
            "persistence_measured",
        )
    }  # fmt: skip
    metrics["test/nmi_geometric_score_24_high"] = 0.3456
    return make_record(config_name, seed, experiment=experiment) | {"metrics": metrics}


def test_stays_have_an_interval_with_one_run_and_a_standard_error_with_two(results):
    write(results, stays_record(0, 0.2))
    table = markdown(results, "tdpsom")
    assert cells(table, "T-DPSOM", "1")[5] == ".2000 [.2000, .3456]"
    assert cells(table, "k-means of the raw hours", "")[5] == ""
    write(results, stays_record(1, 0.3))
    table = markdown(results, "tdpsom")
    assert cells(table, "T-DPSOM", "2")[5] == ".2500 ± .0500"
    forecasts = table.partition("## Forecast")[2]
    assert cells(forecasts, "T-DPSOM", "2")[2:4] == [".250 ± .050"] * 2
    assert not [line for line in forecasts.partition("## eICU")[0].splitlines() if line.startswith("| k-means")]


def test_stays_of_eicu_stand_beside_what_was_published(results):
    published = cells(markdown(results, "tdpsom").partition("## eICU")[2], "SOM-VAE-prob")
    assert published[1].startswith(".0474<sup>")
    assert published[5].startswith(".0421<sup>")
    assert published[2] == published[6] == ""
    write(results, stays_record(0, 0.05, "stays_baselines", "eicu_somvae_prob"))
    eicu = markdown(results, "tdpsom").partition("## eICU")[2]
    assert cells(eicu, "SOM-VAE-prob")[6] == ".0500"
    assert cells(eicu, "T-DPSOM")[1:] == [""] * 6


def test_what_a_run_ran_on_is_told_with_whatever_changes_its_numbers():
    hardware = {"cpu": "A CPU", "instructions": "AVX512", "threads": 1, "gpu": None}
    assert in_words(hardware) == in_words(hardware | {"matrix_products": "MKL"}) == "A CPU, AVX512, 1 thread"
    assert in_words(hardware | {"matrix_products": "oneDNN"}) == "A CPU, AVX512, 1 thread, products by oneDNN"
    assert in_words(hardware | {"gpu": "A GPU", "matrix_products": "oneDNN"}) == "A GPU"

"""Stays of one's own, from CSV files written here: filling, normalisation, splits, errors, and a run on them."""

from experiments import stays_baselines, tdpsom
from experiments.datasets import stays_table
from experiments.datasets.stays_table import load_stays_table
from experiments.errors import UserError

import command_line
import numpy as np
import polars as pl
import pytest
import torch

HEAD = "stay,hour,heart rate [1/min],Temp,label.state"
HOURS = ["b,7,90,,1", "a,1,,37.5,0", "a,0,70,,", "b,5,110,36,2", "a,3,74,,1", "c,0,80,37,0", "d,0,60,38,0"]
STAYS = ["stay,split,death,ward", "a,train,0,north", "b,train,1,", "c,validation,,south", "d,test,0,south"]


def write(folder, hours=(HEAD, *HOURS), stays=None):
    (folder / "hours.csv").write_text("\n".join(hours) + "\n")
    if stays:
        (folder / "stays.csv").write_text("\n".join(stays) + "\n")
    return folder


def many(count=40, hours=9):
    """Lines of `count` stays with values missing at random."""
    rng = np.random.default_rng(0)
    for stay in range(count):
        for hour in range(rng.integers(1, hours)):
            heart, temp = (f"{value:.1f}" if rng.random() < 0.6 else "" for value in rng.normal((80, 37), (9, 1)))
            yield f"p{stay:02},{hour},{heart},{temp},{rng.integers(3)}"


def test_hours_count_from_the_first_and_values_are_carried_forward(tmp_path):
    stays = load_stays_table(write(tmp_path, stays=STAYS))
    assert stays.lengths.tolist() == [4, 3, 1, 1]
    assert [(channel.name, channel.unit) for channel in stays.description.channels] == [
        ("heart rate", "1/min"), ("Temp", ""),
    ]  # fmt: skip
    mean, scale = np.array([(channel.mean, channel.scale) for channel in stays.description.channels]).T
    heart, temp = np.moveaxis(stays.inputs.numpy() * scale + mean, 2, 0)
    np.testing.assert_allclose(heart[:2], [[70, 70, 70, 74], [110, 110, 90, mean[0]]], rtol=1e-6)
    np.testing.assert_allclose(temp[0], [mean[1], 37.5, 37.5, 37.5], rtol=1e-6)
    assert stays.observed[1].tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert stays.labels["state"].tolist() == [[-1, 0, -1, 1], [2, -1, 1, -1], [0, -1, -1, -1], [0, -1, -1, -1]]
    assert stays.split.tolist() == [0, 0, 1, 2]
    assert [stays.part(part).name(0) for part in ("train", "validation", "test")] == ["a", "c", "d"]
    assert stays.first(2).description.stays == ("a", "b")
    np.testing.assert_array_equal(stays.outcomes["death"], np.array([0, 1, np.nan, 0], np.float32))


def test_cells_of_blanks_are_empty(tmp_path):
    plain = load_stays_table(write(tmp_path, [HEAD, "a,0,80,,0", "a,1,,37,1", "b,0,90,36,1", "c,0,85,38,0"]))
    blank = load_stays_table(write(tmp_path, [HEAD, "a,0, 80, ,0", "a, 1, NA,37 ,1", "b,0,90,36,1", "c,0,85,38,0"]))
    torch.testing.assert_close(blank.inputs, plain.inputs)
    assert torch.equal(blank.observed, plain.observed)


def test_filling_and_scaling_are_those_of_polars(tmp_path):
    lines = list(many())
    stays = load_stays_table(write(tmp_path, [HEAD, *np.random.default_rng(1).permutation(lines)]))
    table = pl.read_csv(tmp_path / "hours.csv", infer_schema_length=None).sort("stay", "hour")
    filled = table.with_columns(pl.col("heart rate [1/min]", "Temp").forward_fill().over("stay"))
    training = pl.DataFrame({"stay": table["stay"].unique().sort(), "split": stays.split.numpy()}).filter(split=0)
    used = filled.join(training, on="stay")
    for at, column in enumerate(("heart rate [1/min]", "Temp")):
        expected = (filled[column] - used[column].mean()) / used[column].std(ddof=0)
        found = stays.inputs[stays.mask][:, at].numpy()
        np.testing.assert_allclose(found, expected.fill_null(0).clip(-5, 5), atol=1e-4)


def test_without_a_column_15_percent_of_the_stays_validate_and_15_test(tmp_path):
    split = load_stays_table(write(tmp_path, [HEAD, *many()])).split
    assert split.bincount().tolist() == [28, 6, 6]
    (tmp_path / "stays.json").unlink()
    assert load_stays_table(tmp_path).split.equal(split)


def test_tables_are_read_again_only_when_they_change(tmp_path, monkeypatch):
    first = load_stays_table(write(tmp_path, stays=STAYS))
    with monkeypatch.context() as patch:
        patch.setattr(stays_table, "prepare", None)
        assert load_stays_table(tmp_path).inputs.equal(first.inputs)
    write(tmp_path, stays=[*STAYS[:-1], "d,train,0,south", "e,test,0,"], hours=(HEAD, *HOURS, "e,0,70,37,0"))
    assert load_stays_table(tmp_path).split.tolist() == [0, 0, 1, 0, 2]


def lines(**changed):
    """The table of hours, some lines of it replaced by number (`line3="..."`)."""
    return list(({f"line{number}": line for number, line in enumerate([HEAD, *HOURS], start=1)} | changed).values())


@pytest.mark.parametrize(
    ("hours", "stays", "message"),
    [
        (["stay,time,HR,label.x", "a,0,1,0"], None, "has no column hour, only stay, time, HR, label.x"),
        (["stay,hour,HR", "a,0,1"], None, r"has no label.<name>, the classes .*: add such a column"),
        (["stay,hour,label.x", "a,0,1"], None, "has no variable: add such a column"),
        (["stay,hour,HR [1/min],HR [bpm],label.x", "a,0,1,1,0"], None, "has the variable HR twice"),
        (["stay,hour,HR,HR,label.x", "a,0,1,1,0"], None, "has the column HR twice: give every column"),
        (lines(), ["stay,died", "a,0"], "neither a column split nor death, only stay, died"),
        ([HEAD], None, "has no lines below its header"),
        ([""], None, "cannot read .*hours.csv .*: it must be a CSV file"),
        (lines(line3="a,1,,37.5,0,9"), None, "cannot read"),
        (lines(line3="a,1,,high,0"), None, "line 3 of .*: Temp is 'high', which is no number: correct it"),
        (lines(line3="a,1,,inf,0"), None, "line 3 of .*: Temp is 'inf'"),
        (lines(line4=",0,70,,"), None, "line 4 of .* has no stay"),
        (lines(line4="a,0.5,70,,"), None, "line 4 of .*: hour is 0.5; give whole hours"),
        (lines(line4="a,1,70,,"), None, "has hour 1 of stay a twice"),
        (lines(line4="a,1e6,70,,"), None, "line 4 of .*: hour 1e\\+06 of stay a comes 999,997 hours after"),
        (lines(line4="a,0,70,,-1"), None, "line 4 of .*: label.state is -1; number the classes from 0"),
        (lines(line4="a,0,70,,0.5"), None, "line 4 of .*: label.state is 0.5"),
        (lines(line4="a,0,70,,calm"), None, "line 4 of .*: label.state is 'calm', which is no number"),
        (["stay,hour,HR,Temp,label.x", "a,0,1,,0", "b,0,1,NA,0"], None, "has no value of Temp: leave that column out"),
        (["stay,hour,HR,label.x", "a,0,1,0", "b,0,1,0"], None, "2 stays are too few"),
        (lines(), STAYS[:-1], "stays.csv lacks 1 stays of hours.csv, such as d: add a line for each"),
        (lines(), [*STAYS, STAYS[1]], "stays.csv has stay a twice"),
        (lines(), [*STAYS[:-1], "d,Test,0,"], "the split of stay d is 'Test', it must be one of train, valid"),
        (lines(), [*STAYS[:-1], "d,,0,"], "the split of stay d is None"),
        (lines(), [*STAYS[:-1], "d,train,0,"], "the test split of .* has no stays"),
        (lines(), [STAYS[0], *reversed(STAYS[1:-1]), "d,test,2,"], "line 5 of .*stays.csv: death is 2, it must be 0"),
        (lines(), [STAYS[0], "d,test,x,", *STAYS[1:-1]], "line 2 of .*stays.csv: death is 'x', which is no"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line_and_leaves_nothing(tmp_path, hours, stays, message):
    write(tmp_path, hours, stays)
    with pytest.raises(UserError, match=message) as caught:
        load_stays_table(tmp_path)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"hours.csv", "stays.csv"}


def test_one_typing_error_does_not_stretch_a_scale_unseen(tmp_path):
    hours = [HEAD, *many()]
    scale = load_stays_table(write(tmp_path, hours)).description.channels[0].scale
    far = 80 + stays_table.FARTHEST * 9 * 5  # the middle 98 % of these heart rates span 4.7 deviations of 9
    hours[20] = f"{','.join(hours[20].split(',')[:2])},{far},37,0"
    with pytest.raises(
        UserError, match=rf"line 21 of .*: heart rate \[1/min\] is {far}, and nearly all others are [56]"
    ):
        load_stays_table(write(tmp_path, hours))
    hours[20] = hours[20].replace(str(far), "130")
    assert load_stays_table(write(tmp_path, hours)).description.channels[0].scale == pytest.approx(scale, rel=0.2)


def test_a_folder_without_the_table_says_what_it_must_hold(tmp_path):
    with pytest.raises(UserError, match=r"hours.csv does not exist: data.root names a folder with that table"):
        load_stays_table(tmp_path)


@pytest.mark.parametrize(("experiment", "config"), [(tdpsom.ex, "fast"), (stays_baselines.ex, "lorenz_kmeans")])
def test_experiments_on_stays_take_the_table(in_process, tmp_path, experiment, config):
    write(tmp_path, [HEAD, *many()])
    finished = command_line.run(experiment, tmp_path / "runs", f"{config} data.name=stays_table data.root={tmp_path}")
    assert finished.status == 0, finished.errors
    record = finished.record
    assert 0 <= record["metrics"]["test/nmi_geometric_state"] <= 1
    assert record["data_checksum"] == load_stays_table(tmp_path).description.checksum

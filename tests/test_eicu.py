"""The preparation of eICU, on small tables in its schema."""

import csv
import gzip
import signal
import time
from pathlib import Path

from experiments.datasets.stays import read_stays
from scripts import prepare_eicu
from scripts.eicu import tensors
from scripts.eicu.constants import CHANNELS, CONSTANTS, CORRECTIONS, HORIZONS, MAXIMUM, MINIMUM, SCALE
from scripts.eicu.scores import points_of
from scripts.eicu.stages import Stages
from scripts.eicu.tensors import splits

import duckdb
import numpy as np
import pytest
from eicu import BANDS, SCHEMA, Source, plain_grid, plain_score, points_by_channel, random_stays, three_stays, within

pytestmark = pytest.mark.usefixtures("in_process")
FIRST = 141001  # of the three stays, whose order is that of their text: 1400001, 141001, 141002


def run(source: Path, output: Path, *arguments: str) -> int:
    return prepare_eicu.main(["--source", str(source), "--output", str(output), *arguments])


def prepared(source: Source, folder: Path, *arguments: str):
    """The stays that the command makes of the tables, and their values in clinical units `[N, 72, 98]`."""
    assert run(source.write(folder / "source"), folder / "output", *arguments) == 0
    stays = read_stays(folder / "output")
    return stays, stays.inputs.numpy() * SCALE + MINIMUM


def channel(values: np.ndarray, name: str, position: int = 1) -> np.ndarray:
    """`[72]`"""
    return values[position, :, CHANNELS.index(name)]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------------------------------------------------- constants


def test_the_channels_are_the_published_ones_in_their_order():
    assert len(CHANNELS) == 98
    assert sorted(CHANNELS) == CHANNELS
    assert [CHANNELS[index] for index in (0, 3, 87, 97)] == [
        "avs_noninvasivediastolic",
        "lab_-bands",
        "vs_cvp",
        "vs_temperature",
    ]
    assert (SCALE > 0).all()


@pytest.mark.parametrize("name", BANDS)
def test_points_are_those_of_the_printed_table(name):
    ends = CONSTANTS["score"][name]["bounds"]
    values = np.concatenate([np.array(ends), np.nextafter(ends, -np.inf), np.linspace(-5, 250, 3001)])
    expected = [next((points for points, band in BANDS[name].items() if within(band, value)), 0) for value in values]
    assert points_of(name, values, frozenset()).tolist() == expected


def test_hco3_counts_from_22_when_corrected():
    values = np.array([21.9, 22.0, 22.5, 23.0])
    assert points_of("lab_HCO3", values, frozenset()).tolist() == [2, 2, 2, 0]
    assert points_of("lab_HCO3", values, frozenset({"hco3"})).tolist() == [2, 0, 0, 0]


# ----------------------------------------------------------------------------------------------------------- selection


def test_stays_of_5_to_30_days_without_gaps_are_kept(tmp_path):
    source = three_stays()
    source.stay(11, hours=119)
    source.rows["vitalPeriodic"].append({"patientunitstayid": 11, "observationoffset": 7199, "heartrate": 80})
    source.stay(12, hours=720)
    source.stay(13, hours=720)
    source.vital(13, 43201, heartrate=80)
    source.stay(14, hours=60)
    for hour in range(60, 131):
        source.vital(14, 60 * hour + 1, heartrate=80)  # 60 is in: hour 60 is there, and 61 minutes lie nowhere
    source.stay(15, hours=60)
    for hour in range(61, 131):
        source.vital(15, 60 * hour + 1, heartrate=80)
    source.patient(16)
    source.vital(16, 0, temperature=37)
    source.patient(17)
    source.vital(99, 0, heartrate=80)  # of nobody
    stays, _ = prepared(source, tmp_path)
    kept = [int(row["patientunitstayid"]) for row in read_csv(tmp_path / "output" / "stays.csv")]
    assert kept == [12, 14, 1400001, 141001, 141002]
    counts = dict(stays.description.counts)
    del counts["values out of range"]
    expected = {"kept": 5, "too short": 1, "too long": 1, "gap between heart rates": 1, "no heart rate": 2}
    assert counts == expected


def test_what_too_few_have_measured_and_what_is_no_channel_is_told(tmp_path, capsys):
    source = three_stays()
    source.lab(FIRST, 5, " amylase ", 30)
    source.lab(FIRST, 5, " BUN ", 30)
    prepared(source, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert "vs_icp" not in lines[1]
    assert "lab_BNP" in lines[1]
    assert "lab_BUN" not in lines[1]
    assert lines[2].endswith(": lab_amylase")
    shares = {row["channel"]: float(row["share_of_stays"]) for row in read_csv(tmp_path / "output" / "channels.csv")}
    assert (shares["lab_BUN"], shares["lab_BNP"], shares["vs_heartrate"]) == (0.3333, 0, 1)


# ---------------------------------------------------------------------------------------------------------------- grid


def test_a_row_knows_what_was_measured_up_to_the_next_hour(tmp_path):
    source = three_stays()
    source.lab(FIRST, 60 * 51, "sodium", 150)
    source.lab(FIRST, 60 * 61 + 1, "sodium", 155)
    stays, values = prepared(source, tmp_path)
    rows = np.arange(48, 120)
    expected = np.where(rows < 50, 140, np.where(rows < 61, 150, 155))
    np.testing.assert_allclose(channel(values, "lab_sodium"), expected, rtol=1e-6)
    measured = stays.observed.numpy()[1, :, CHANNELS.index("lab_sodium")]
    assert rows[measured].tolist() == [50, 61]


def test_a_vital_sign_lasts_60_hours_and_then_gives_way_to_the_mean(tmp_path):
    source = three_stays()
    source.vital(FIRST, -60, cvp=10)
    source.vital(FIRST, 0, cvp=20)
    _, values = prepared(source, tmp_path / "published")
    rows = np.arange(48, 120)
    np.testing.assert_allclose(channel(values, "vs_cvp"), np.where(rows <= 60, 20, 15), rtol=1e-6)
    _, values = prepared(source, tmp_path / "corrected", "--corrected", "limits")
    np.testing.assert_allclose(channel(values, "vs_cvp"), 15, rtol=1e-6)


def test_what_a_stay_has_not_measured_is_the_median_and_what_none_has_is_zero(tmp_path):
    source = three_stays()
    for offset, value in ((1, 7), (2, 100), (3, 8), (99_999, 30)):
        source.lab(FIRST, offset, "BUN", value)
    stays, values = prepared(source, tmp_path)
    np.testing.assert_allclose(channel(values, "lab_BUN", position=0), 19, rtol=1e-6)
    np.testing.assert_allclose(channel(values, "lab_BUN", position=1), 8, rtol=1e-6)
    assert not stays.inputs[:, :, CHANNELS.index("lab_BNP")].any()


def test_minus_zero_is_zero(tmp_path):
    source = three_stays()
    source.vital(FIRST, 5, st1="-0.0")
    prepared(source, tmp_path)
    medians = {row["channel"]: row["median"] for row in read_csv(tmp_path / "output" / "channels.csv")}
    assert (medians["vs_st1"], medians["vs_st2"]) == ("0.0", "nan")


def test_of_two_rows_of_the_same_minute_the_later_counts(tmp_path):
    source = three_stays()
    for value in (30, 50, 40):
        source.lab(FIRST, 100, "BUN", value)
    _, values = prepared(source, tmp_path)
    np.testing.assert_allclose(channel(values, "lab_BUN"), 40, rtol=1e-6)


def test_rows_that_are_there_twice_change_nothing(tmp_path):
    source = random_stays(1, [120, 121, 122], named_channels())
    stays, _ = prepared(source, tmp_path / "once")
    for rows in source.rows.values():
        rows[:] = [row for row in rows for _ in range(2)]
    twice, _ = prepared(source, tmp_path / "twice")
    assert stays.inputs.equal(twice.inputs)
    assert all(label.equal(twice.labels[name]) for name, label in stays.labels.items())
    assert len(twice) == 3


def named_channels() -> list[tuple[str, float, float]]:
    return list(zip(CHANNELS, MINIMUM.tolist(), SCALE.tolist(), strict=True))


@pytest.mark.parametrize("corrections", [(), tuple(CORRECTIONS)])
def test_values_and_scores_are_those_of_the_plain_version(tmp_path, corrections, monkeypatch):
    hours = [120, 129, 131, 200]
    source = random_stays(0, hours, named_channels())
    monkeypatch.setattr(tensors, "BATCH", 3)
    stays, values = prepared(source, tmp_path, *(["--corrected", *corrections] if corrections else []))
    points = points_by_channel(source, CHANNELS)
    if corrections:
        for channels in points.values():
            for name, low, high in zip(CHANNELS, MINIMUM, MAXIMUM, strict=True):
                channels[name] = [(minute, value) for minute, value in channels[name] if low <= value <= high]
        monkeypatch.setitem(BANDS["lab_HCO3"], 2, "18..22")
    vital, lab = (60, 1440) if corrections else (3600, 86400)
    order = [int(row["patientunitstayid"]) for row in read_csv(tmp_path / "output" / "stays.csv")]
    assert order == sorted(order, key=str) != sorted(order)
    lengths = dict(zip(sorted(order), hours, strict=True))
    for position, stay in enumerate(order):
        first = min(minute for minute, _ in points[stay]["vs_heartrate"])
        grids = {}
        for index, name in enumerate(CHANNELS):
            pooled = [value for channels in points.values() for _, value in channels[name]]
            default = np.median(pooled) if pooled else MINIMUM[index]
            limit = lab if name.startswith("lab_") else vital
            start = first if corrections else 0
            grids[name] = plain_grid(points[stay][name], lengths[stay], start, default, limit)
            np.testing.assert_allclose(
                values[position, :, index], grids[name][-72:], rtol=1e-5, atol=1e-6 * SCALE[index], err_msg=name
            )
        for horizon in HORIZONS:
            expected = [plain_score(grids, row, horizon) for row in range(lengths[stay] - 72, lengths[stay])]
            assert stays.labels[f"full_score_{horizon}"][position].tolist() == expected
    assert stays.labels["full_score_24"].unique().numel() > 5


# -------------------------------------------------------------------------------------------------------------- labels


def test_a_score_sees_the_coming_hours(tmp_path):
    source = three_stays()
    source.vital(FIRST, 100 * 60, systemicmean=100)
    source.vital(FIRST, 101 * 60, systemicmean=45)
    source.vital(FIRST, 102 * 60, systemicmean=100)
    stays, _ = prepared(source, tmp_path)
    rows = np.arange(48, 120)
    for horizon in HORIZONS:
        score = stays.labels[f"full_score_{horizon}"][1].numpy()
        assert rows[score == 4].tolist() == list(range(101 - horizon, 101))
        assert set(score.tolist()) == {0, 4}


@pytest.mark.parametrize(
    ("place", "column"), [("hospital", "hospitaldischargelocation"), ("unit", "unitdischargelocation")]
)
def test_death_marks_the_last_hours(tmp_path, place, column):
    source = three_stays()
    source.rows["patient"][1][column] = " Death "
    source.rows["patient"][2][column] = "Death bed"
    stays, _ = prepared(source, tmp_path)
    for horizon in HORIZONS:
        label = stays.labels[f"{place}_discharge_expired_{horizon}"]
        assert label[1].tolist() == [0] * (72 - horizon) + [1] * horizon
        assert label.sum() == horizon
    assert stays.outcomes["death" if place == "hospital" else "unit_death"].tolist() == [0, 1, 0]
    assert stays.outcomes["length_of_stay"].tolist() == [5, 5, 5]
    assert len(stays.labels) == 12


# -------------------------------------------------------------------------------------------------------------- splits


def test_68_17_and_15_of_100_stays():
    split = splits(np.arange(100))
    assert np.bincount(split).tolist() == [68, 17, 15]
    assert split.tolist() == splits(np.arange(100)).tolist()


def test_a_persons_stays_come_into_one_split_when_corrected(tmp_path):
    source = Source()
    for stay in range(100, 121):
        source.stay(stay, uniquepid=f"person {stay // 3}" if stay < 120 else None)
    prepared(source, tmp_path / "published")
    prepared(source, tmp_path / "corrected", "--corrected", "persons")
    together = {}
    for name in ("published", "corrected"):
        rows = read_csv(tmp_path / name / "output" / "stays.csv")
        pairs = {(int(row["patientunitstayid"]) // 3, row["split"]) for row in rows}
        together[name] = len(pairs) == len({person for person, _ in pairs})
    assert together == {"published": False, "corrected": True}


# ----------------------------------------------------------------------------------------------------- units and files


def test_single_values_in_another_unit_are_kept_counted_and_dropped_when_corrected(tmp_path):
    source = three_stays()
    source.vital(FIRST, 60 * 119, temperature=98.6)
    stays, values = prepared(source, tmp_path / "published")
    assert channel(values, "vs_temperature")[-1] == pytest.approx(98.6)
    assert stays.labels["full_score_1"][1, -1] == 4
    assert stays.description.counts["values out of range"] == 1
    row = read_csv(tmp_path / "published" / "output" / "channels.csv")[-1]
    assert (row["channel"], row["values"], row["values_out_of_range"]) == ("vs_temperature", "4", "1")
    stays, values = prepared(source, tmp_path / "corrected", "--corrected", "outliers")
    assert channel(values, "vs_temperature")[-1] == pytest.approx(37)
    assert not stays.labels["full_score_24"].any()


def test_compressed_or_not_upper_or_lower_case_text_or_number_is_the_same(tmp_path):
    source = random_stays(2, [120, 121, 122], named_channels())
    stays, _ = prepared(source, tmp_path)
    folder = source.write(tmp_path / "plain", suffix=".csv")
    (folder / "vitalPeriodic.csv").rename(folder / "VITALPERIODIC.CSV")
    table = (folder / "lab.csv").read_text()
    header, _, rest = table.partition("\n")
    (folder / "lab.csv").write_bytes(
        f"\ufeff{header.upper()}\n{rest}9,,5,1,BUN,,,,,\n,999990,5,1,BUN,nan,,,,\n".replace("\n", "\r\n").encode()
    )
    assert run(folder, tmp_path / "other") == 0
    assert stays.inputs.equal(read_stays(tmp_path / "other").inputs)


def without_column(source, folder):
    source.write(folder, without="systemicmean")


def without_table(source, folder):
    (source.write(folder) / "lab.csv.gz").unlink()


def without_text(source, folder):
    with gzip.open(source.write(folder) / "lab.csv.gz", "wb"):
        pass


def truncated(source, folder):
    path = source.write(folder) / "vitalPeriodic.csv.gz"
    path.write_bytes(path.read_bytes()[:-500])


def not_compressed(source, folder):
    (source.write(folder) / "lab.csv.gz").write_text("labid\n")


def words_for_numbers(source, folder):
    source.lab(FIRST, 5, "BUN", "see text")
    source.write(folder)


def short_lines(source, folder):
    path = source.write(folder, suffix=".csv") / "vitalAperiodic.csv"
    path.write_text(path.read_text() + "1,2,3\n")


def another_unit(source, folder):
    for row in source.rows["vitalPeriodic"]:
        if "temperature" in row:
            row["temperature"] = 98.6
    source.write(folder)


def impossible_number(source, folder):
    source.lab(FIRST, 5, "BUN", "1e300")
    source.write(folder)


def no_sodium(source, folder):
    source.rows["lab"] = [row for row in source.rows["lab"] if row["labname"] != "sodium"]
    source.write(folder)


def no_heart_rates(source, folder):
    source.rows["vitalPeriodic"] = []
    source.write(folder)


def no_patients(source, folder):
    source.rows["patient"] = []
    source.write(folder)


def two_stays(source, folder):
    source.rows["patient"].pop()
    source.write(folder)


def nothing(source, folder):
    pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_column, "vitalPeriodic.csv.gz lacks the columns systemicmean: it must be eICU's vitalPeriodic"),
        (without_table, "has no lab.csv.gz: download it from"),
        (without_text, "lab.csv.gz lacks the columns patientunitstayid, labresultoffset, labname, labresult"),
        (truncated, "vitalPeriodic failed, check its source"),
        (not_compressed, "lab.csv.gz cannot be read"),
        (words_for_numbers, 'lab failed, check its source (Conversion Error: CSV Error on Line: 14 Error when conver'),
        (short_lines, "vitalAperiodic failed, check its source (Invalid Input Error: CSV Error on Line"),
        (another_unit, "the median of vs_temperature is 98.6, but values in its unit (°C) lie between 31.8 and 42.711"),
        (impossible_number, "lab_BUN holds the value 1e+300 (mg/dL)"),
        (no_sodium, "no kept stay has measured lab_sodium"),
        (no_heart_rates, "no stay is left (3 no heart rate)"),
        (no_patients, "no stay is left (patient is empty)"),
        (two_stays, "2 stays are left: too few"),
        (nothing, "is no folder"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_nothing_is_written(tmp_path, capsys, spoil, message):
    spoil(three_stays(), tmp_path / "source")
    assert run(tmp_path / "source", tmp_path / "output") == 2
    last = capsys.readouterr().err.rpartition("\r")[2].splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not [path for path in tmp_path.glob("output/**/*") if path.is_file() and path.suffix != ".parquet"]


def test_a_bad_memory_and_an_output_that_is_a_file_are_errors(tmp_path, capsys):
    source = three_stays().write(tmp_path / "source")
    assert run(source, tmp_path / "output", "--memory", "much") == 2
    assert "error: --memory much is not understood: write it like 4GB or 500MB\n" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert run(source, tmp_path / "file") == 2
    assert "cannot be written" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------- interruption


@pytest.mark.parametrize("stage", ["vitalAperiodic", "hours"])
def test_interrupted_it_continues_and_ends_with_the_same_bytes(tmp_path, stage, capsys, monkeypatch):
    source = random_stays(3, [120, 125, 130, 140], named_channels()).write(tmp_path / "source")
    assert run(source, tmp_path / "undisturbed") == 0
    output = tmp_path / "disturbed"
    executed, execute = [], Stages._execute

    def interrupted(self, query, name):
        executed.append(name)
        if name == stage:
            raise KeyboardInterrupt
        execute(self, query, name)

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_execute", interrupted)
        assert run(source, output) == 130
        assert "interrupted; continue with: python scripts/prepare_eicu.py --source" in capsys.readouterr().err
        finished = set(executed) - {stage}
        assert not list(output.glob("stays*"))
        (output / "stages" / f"{stage}-0123.partial").write_text("as a killed process leaves it")
        stage, executed[:] = None, []
        assert run(source, output) == 0
        assert not finished & set(executed)
    for path in (tmp_path / "undisturbed").rglob("*.*"):
        assert path.read_bytes() == (output / path.relative_to(tmp_path / "undisturbed")).read_bytes(), path
    assert len(list(output.rglob("*.*"))) == len(list((tmp_path / "undisturbed").rglob("*.*"))) == 4 + 9


def test_only_what_a_change_concerns_is_repeated(tmp_path, monkeypatch):
    source = three_stays()
    prepared(source, tmp_path)
    executed, execute = [], Stages._execute
    monkeypatch.setattr(
        Stages, "_execute", lambda self, query, name: executed.append(name) or execute(self, query, name)
    )
    prepared(source, tmp_path)
    assert executed == []
    prepared(source, tmp_path, "--corrected", "outliers", "limits", "hco3", "persons")
    assert executed == ["medians", "hours"]
    executed.clear()
    source.lab(FIRST, 60 * 100, "sodium", 150)
    _, values = prepared(source, tmp_path, "--corrected", "outliers")
    assert executed == ["lab", "coverage", "medians", "hours"]
    assert channel(values, "lab_sodium")[-1] == pytest.approx(150)


def test_ctrl_c_ends_a_long_query_and_leaves_nothing(tmp_path):
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Stages(tmp_path, "500MB", threads=1) as stages:
            signal.setitimer(signal.ITIMER_REAL, 1)
            began = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                stages.run("long", "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b")
            assert time.monotonic() - began < 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert list(tmp_path.iterdir()) == []


def test_two_commands_do_not_work_in_one_folder(tmp_path, capsys):
    source, output = three_stays().write(tmp_path / "source"), tmp_path / "output"
    with Stages(output / "stages", "500MB", threads=1) as stages:
        stages.run("first", "SELECT 1 AS one")
        assert run(source, output) == 2
        assert "another command is at work in" in capsys.readouterr().err
        assert stages.rows("FROM first") == [(1, 0)]
    assert run(source, output) == 0


# -------------------------------------------------------------------------------------------------------------- memory


def test_a_table_larger_than_the_memory_it_is_given(tmp_path):
    source, rows, memory = three_stays().write(tmp_path / "source", suffix=".csv"), 1_000_000, "100MB"
    (source / "vitalPeriodic.csv").unlink()
    names = SCHEMA["vitalPeriodic"].split()
    values = {"vitalperiodicid": "i", "patientunitstayid": f"{FIRST - 1} + i % 3", "observationoffset": "i // 100"}
    values |= {"heartrate": "60 + hash(i) % 90", "temperature": "37", "systemicmean": "80", "respiration": "16"}
    columns = ", ".join(f"{values.get(name, 'NULL::DOUBLE')} AS {name}" for name in names)
    patients = source / "patient.csv"
    patients.write_text(patients.read_text().replace("1400001", str(FIRST - 1)))
    big = source / "vitalPeriodic.csv"
    duckdb.execute(f"COPY (SELECT {columns} FROM range({rows}) AS t(i)) TO '{big}'")
    with (
        duckdb.connect(config={"memory_limit": memory, "temp_directory": "", "threads": 1}) as database,
        pytest.raises(duckdb.OutOfMemoryException),
    ):
        database.execute(f"CREATE TABLE whole AS FROM read_csv('{big}', types = {{'temperature': 'DOUBLE'}})")
    assert run(source, tmp_path / "output", "--memory", memory) == 0
    assert len(read_stays(tmp_path / "output")) == 3

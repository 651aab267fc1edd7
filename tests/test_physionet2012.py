"""PhysioNet 2012 from small text files written here: grid, filling, normalisation, score, labels, and every error."""

import io
import tarfile

from experiments.datasets import physionet2012
from experiments.datasets.normalization import forward_filled
from experiments.datasets.organ_failure import coming_worst, organ_failure_score, points, urine_of_a_day
from experiments.datasets.physionet2012 import FOLDER, HOURS, NAMES, load_physionet2012
from experiments.datasets.stays import DESCRIPTION, TENSORS
from experiments.errors import UserError

import numpy as np
import pytest
import torch

DESCRIPTORS = ["00:00,Age,54", "00:00,Gender,1", "00:00,Height,-1", "00:00,ICUType,4", "00:00,Weight,80.5"]
STAYS = {
    "set-a/101.txt": ["00:07,HR,70", "00:37,HR,90", "02:00,HR,100", "02:10,Urine,50", "02:20,Urine,30", "05:00,HR,-1"],
    "set-a/102.txt": ["00:10,HR,60", "01:10,GCS,8", "47:59,HR,80", "48:00,HR,85"],
    "set-a/103.txt": [],
    "set-b/201.txt": ["03:00,HR,110", "03:30,Temp,36.5", "04:00,,1.9"],
    "set-c/301.txt": ["00:00,HR,70", "01:00,pH,735", "00:30,MechVent,1"],
}
OUTCOMES = {
    "a": ["101,6,1,5,-1,0", "102,16,8,-1,-1,1", "103,1,1,1,-1,0"],
    "b": ["201,6,1,5,9,1"],
    "c": ["301,6,1,5,-1,0"],
}
HEAD = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death"


def text(name, lines):
    record = name.split("/")[1].removesuffix(".txt")
    return "\n".join(["Time,Parameter,Value", f"00:00,RecordID,{record}", *DESCRIPTORS, *lines]) + "\n"


def sources(**changed):
    """Content by name; `changed` replaces a stay's lines (`a101=...`) or a file (`outcomes_a=...`)."""
    files = {name: text(name, changed.get(name[4] + name[6:9], lines)) for name, lines in STAYS.items()}
    for letter, lines in OUTCOMES.items():
        files[f"Outcomes-{letter}.txt"] = changed.get(f"outcomes_{letter}", "\n".join([HEAD, *lines]) + "\n")
    return files


def write(root, files):
    for name, content in files.items():
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def column(stays, name, stay=0):
    """Values in clinical units."""
    channel = stays.description.channels[NAMES.index(name)]
    return stays.inputs[stay, :, NAMES.index(name)].double().numpy() * channel.scale + channel.mean


def test_grid_filling_and_normalisation(tmp_path):
    stays = load_physionet2012(write(tmp_path, sources()))
    assert stays.lengths.tolist() == [3, 48, 4, 1]  # the pH of the last is out of range
    assert stays.split.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(column(stays, "HR")[:3], [90, 90, 100], rtol=1e-5)
    np.testing.assert_allclose(column(stays, "HR", 1), [60] * 47 + [85], rtol=1e-5)
    heart_rates = [90, 90, 100] + [60] * 47 + [85]
    channel = stays.description.channels[NAMES.index("HR")]
    assert channel.mean == pytest.approx(np.mean(heart_rates), rel=1e-5)
    assert channel.scale == pytest.approx(np.std(heart_rates), rel=1e-5)
    assert channel.unit == "1/min"
    observed = stays.observed[..., NAMES.index("HR")]
    assert observed[0].nonzero().flatten().tolist() == [0, 2]
    assert observed[1].nonzero().flatten().tolist() == [0, 47]
    np.testing.assert_allclose(column(stays, "Urine")[2], 80, rtol=1e-5)
    assert not stays.inputs[0, 3:].any()  # behind its end
    assert not stays.inputs[2, :3, NAMES.index("HR")].any()  # before the first value: the training mean
    assert stays.inputs[3, :1, NAMES.index("MechVent")] == 1.0  # no training stay was ventilated: mean 0, scale 1
    assert stays.static[0].tolist()[:2] == [54, 1]
    assert np.isnan(stays.static[0, 2])
    assert stays.outcomes["death"].tolist() == [0, 1, 1, 0]
    assert np.isnan(stays.outcomes["length_of_stay"][1])
    counts = stays.description.counts
    assert counts["stays"] == 4
    assert counts["stays_without_measurements"] == 1
    assert counts["lines_without_parameter"] == 1
    assert counts["values_out_of_range"] == 1


@pytest.fixture(autouse=True)
def few_values_may_be_out_of_range(monkeypatch):
    monkeypatch.setattr(physionet2012, "LEAST_VALUES", 2)


def test_an_archive_holds_the_same_stays(tmp_path):
    files = sources()
    folder = tmp_path / "archive" / FOLDER
    folder.mkdir(parents=True)
    with tarfile.open(folder / "all.tar.xz", "w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    one = load_physionet2012(tmp_path / "archive")
    other = load_physionet2012(write(tmp_path / "texts", files))
    assert one.description.checksum == other.description.checksum
    (folder / "all.tar.xz").write_bytes((folder / "all.tar.xz").read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot read the files in"):
        load_physionet2012(tmp_path / "archive")


def test_the_cache_follows_its_source(tmp_path):
    write(tmp_path, sources())
    before = load_physionet2012(tmp_path).description
    assert load_physionet2012(tmp_path).description == before
    write(tmp_path, sources(a101=["00:07,HR,75"]))
    after = load_physionet2012(tmp_path).description
    assert after.checksum != before.checksum
    for path in (tmp_path / FOLDER).glob("*.txt"):
        path.unlink()
    for path in (tmp_path / FOLDER).glob("set-?/*"):
        path.unlink()
    assert load_physionet2012(tmp_path).description == after


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        (
            "values of Temp lie outside 25 … 43 °C .median 98.6.: they must be in another unit",
            {"a101": ["00:07,Temp,98.6", "01:07,Temp,98.6"], "a102": ["00:07,Temp,99.1"]},
        ),
        ("values of FiO2 lie outside", {"a101": ["00:07,FiO2,40", "01:07,FiO2,50"]}),
        ("set-a/101.txt has a line '00:07,HR,abc' that is no measurement", {"a101": ["00:07,HR,abc"]}),
        ("set-a/102.txt has a line 'noon,HR,70' that is no measurement", {"a102": ["noon,HR,70"]}),
        ("set-a/101.txt has a line '00:07,HR,' that is no measurement", {"a101": ["00:07,HR"]}),
        ("too many columns", {"a101": ["00:07,HR,70,bpm"]}),
        ("Outcomes-a.txt has no column In-hospital_death", {"outcomes_a": "RecordID,Length_of_stay\n101,5\n"}),
        ("Outcomes-b.txt holds 1 lines that are not numbers", {"outcomes_b": f"{HEAD}\n201,6,1,x,9,1\n"}),
        ("Outcomes-b.txt holds no stays", {"outcomes_b": f"{HEAD}\n"}),
        ("set-b/202.txt is missing .1 such", {"outcomes_b": f"{HEAD}\n201,6,1,5,9,1\n202,6,1,5,9,1\n"}),
        ("Outcomes-a.txt has no line for set-a/103.txt", {"outcomes_a": f"{HEAD}\n101,6,1,5,9,1\n102,6,1,5,9,1\n"}),
        ("the validation split of PhysioNet 2012 has no stays", {"b201": []}),
        ("no stay in .* has a measurement", {"a101": [], "a102": [], "b201": [], "c301": []}),
    ],
)
def test_errors_are_one_line_and_leave_nothing(tmp_path, message, changed):
    write(tmp_path, sources(**changed))
    with pytest.raises(UserError, match=message) as error:
        load_physionet2012(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / FOLDER / TENSORS).exists()
    assert not (tmp_path / FOLDER / DESCRIPTION).exists()


def test_missing_files_are_named_with_their_place(tmp_path):
    with pytest.raises(UserError, match=rf"{FOLDER} lacks Outcomes-a.txt: put set-a/.* from https://physionet.org"):
        load_physionet2012(tmp_path)
    files = sources()
    del files["set-b/201.txt"]
    write(tmp_path, files)
    with pytest.raises(UserError, match="lacks set-b/"):
        load_physionet2012(tmp_path)
    (tmp_path / FOLDER / "set-b").mkdir()
    for content in ("Time,Value\n00:00,3\n", "Time,Parameter,Value\n00:00,Age,54\nTime,Parameter,Value\n00:00,HR,80\n"):
        (tmp_path / FOLDER / "set-b" / "201.txt").write_text(content)
        with pytest.raises(UserError, match=r"set-b/201\.txt does not start with Time,Parameter,Value, or has it tw"):
            load_physionet2012(tmp_path)


# ------------------------------------------------------------------------------------------------------- score, labels


def patient(**values):
    """Score of one hour with these values."""
    filled = np.full((1, 1, len(NAMES)), np.nan)
    for name, value in values.items():
        filled[0, 0, NAMES.index(name)] = value
    return organ_failure_score(
        NAMES, np.repeat(filled, 24, axis=1), np.full((1, 24, len(NAMES)), np.nan), np.ones((1, 24), bool), {}
    )[0, 0]


@pytest.mark.parametrize(
    ("score", "values"),
    [
        (0, {}),
        (0, {"PaO2": 80, "FiO2": 0.2}),  # 400
        (1, {"PaO2": 79, "FiO2": 0.2}),
        (1, {"PaO2": 60, "FiO2": 0.2}),  # 300
        (2, {"PaO2": 59, "FiO2": 0.2}),
        (2, {"PaO2": 60, "FiO2": 1.0}),  # 60, but not ventilated
        (4, {"PaO2": 60, "FiO2": 1.0, "MechVent": 1}),
        (3, {"PaO2": 150, "FiO2": 1.0, "MechVent": 1}),
        (0, {"Platelets": 150}),
        (1, {"Platelets": 149}),
        (4, {"Platelets": 19}),
        (0, {"Bilirubin": 1.1}),
        (1, {"Bilirubin": 1.2}),
        (2, {"Bilirubin": 2.0}),
        (3, {"Bilirubin": 6.0}),
        (4, {"Bilirubin": 12.0}),
        (0, {"MAP": 70}),
        (1, {"MAP": 69}),
        (0, {"MAP": 70, "NIMAP": 60}),  # the invasive pressure counts
        (1, {"NIMAP": 60}),
        (0, {"GCS": 15}),
        (1, {"GCS": 14}),
        (1, {"GCS": 13}),
        (2, {"GCS": 12}),
        (2, {"GCS": 10}),
        (3, {"GCS": 9}),
        (3, {"GCS": 6}),
        (4, {"GCS": 5}),
        (0, {"Creatinine": 1.1}),
        (1, {"Creatinine": 1.2}),
        (2, {"Creatinine": 2.0}),
        (3, {"Creatinine": 3.5}),
        (4, {"Creatinine": 5.0}),
        (5, {"Creatinine": 5.0, "MAP": 50}),
    ],
)
def test_organ_failure_score(score, values):
    assert patient(**values) == score


def test_urine_counts_when_a_day_of_it_is_known():
    hourly = np.full((3, 26), np.nan)
    hourly[0] = 10  # 240 mL a day: 3 points
    hourly[1] = 5  # 120 mL: 4 points
    hourly[2, :6] = 1  # hardly recorded
    day = urine_of_a_day(hourly)
    assert np.isnan(day[:, :23]).all()
    np.testing.assert_array_equal(day[:2, 23:], [[240] * 3, [120] * 3])
    assert np.isnan(day[2]).all()
    values = np.full((3, 26, len(NAMES)), np.nan)
    values[..., NAMES.index("Urine")] = hourly
    score = organ_failure_score(NAMES, forward_filled(values), values, np.ones((3, 26), bool), {})
    assert score[:, 22].tolist() == [0, 0, 0]
    assert score[:, 23].tolist() == [3, 4, 0]


def test_unknown_components_are_counted():
    counts = {}
    filled = np.full((1, 4, len(NAMES)), np.nan)
    filled[0, 2:, NAMES.index("GCS")] = 15
    organ_failure_score(
        NAMES, np.repeat(filled, 6, axis=1), np.full((1, 24, len(NAMES)), np.nan), np.ones((1, 24), bool), counts
    )
    assert counts["unknown_share_consciousness"] == 0.5
    assert counts["unknown_share_liver"] == 1


def test_labels_equal_a_plain_loop():
    generator = np.random.default_rng(0)
    score = generator.integers(0, 20, (6, HOURS)).astype(np.int16)
    lengths = np.array([48, 1, 6, 24, 30, 47])
    for window in physionet2012.WINDOWS:
        expected = [
            [max(score[stay, hour : hour + window]) if hour + window <= length else -1 for hour in range(HOURS)]
            for stay, length in enumerate(lengths)
        ]
        np.testing.assert_array_equal(coming_worst(score, lengths, window), expected)


def test_forward_filling_equals_a_plain_loop():
    values = np.random.default_rng(0).normal(size=(4, 9, 3))
    values[np.random.default_rng(1).random(values.shape) < 0.6] = np.nan
    expected = values.copy()
    for hour in range(1, 9):
        gap = np.isnan(expected[:, hour])
        expected[:, hour][gap] = expected[:, hour - 1][gap]
    np.testing.assert_array_equal(forward_filled(values), expected)


def test_points_count_limits():
    np.testing.assert_array_equal(points(np.array([0.5, 1.0, 2.5, np.nan]), (1, 2)), [0, 1, 2, np.nan])


def test_labels_are_the_worst_score_of_their_windows_after_filling(tmp_path):
    labels = load_physionet2012(write(tmp_path, sources())).labels
    for window in (1, 6, 12, 24):  # 102: a GCS of 8, three points, from hour 1 on
        expected = [3 if hour or window > 1 else 0 for hour in range(49 - window)] + [-1] * (window - 1)
        assert labels[f"score_{window}"][1].tolist() == expected
    assert labels["score_1"][0].tolist() == [0] * 3 + [-1] * 45


def test_urine_that_is_no_longer_recorded_is_not_carried_into_the_score(tmp_path):
    files = sources(a102=["00:10,Urine,10", "47:00,HR,80"])
    assert load_physionet2012(write(tmp_path, files)).labels["score_1"][1].tolist() == [0] * 48


def test_lines_may_be_in_any_order(tmp_path):
    lines = STAYS["set-a/101.txt"]
    first, second = (
        load_physionet2012(write(tmp_path / name, sources(a101=order)))
        for name, order in {"sorted": lines, "reversed": lines[::-1]}.items()
    )
    assert torch.equal(first.inputs, second.inputs)

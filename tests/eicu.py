"""Small tables in eICU's schema, and a plain version of what the preparation does with them."""

import csv
import gzip
import io
import math
from bisect import bisect_right
from collections import defaultdict
from pathlib import Path

import numpy as np

SCHEMA = {
    "patient": "patientunitstayid patienthealthsystemstayid gender age ethnicity hospitalid wardid apacheadmissiondx "
    "admissionheight hospitaladmittime24 hospitaladmitoffset hospitaladmitsource hospitaldischargeyear "
    "hospitaldischargetime24 hospitaldischargeoffset hospitaldischargelocation hospitaldischargestatus unittype "
    "unitadmittime24 unitadmitsource unitvisitnumber unitstaytype admissionweight dischargeweight unitdischargetime24 "
    "unitdischargeoffset unitdischargelocation unitdischargestatus uniquepid",
    "vitalPeriodic": "vitalperiodicid patientunitstayid observationoffset temperature sao2 heartrate respiration cvp "
    "etco2 systemicsystolic systemicdiastolic systemicmean pasystolic padiastolic pamean st1 st2 st3 icp",
    "vitalAperiodic": "vitalaperiodicid patientunitstayid observationoffset noninvasivesystolic noninvasivediastolic "
    "noninvasivemean paop cardiacoutput cardiacinput svr svri pvr pvri",
    "lab": "labid patientunitstayid labresultoffset labtypeid labname labresult labresulttext labmeasurenamesystem "
    "labmeasurenameinterface labresultrevisedoffset",
}
NORMAL = {"temperature": 37, "systemicmean": 80, "respiration": 16}
NORMAL_LABS = {"HCO3": 25, "sodium": 140, "potassium": 4, "creatinine": 1}


class Source:
    """Rows of the four tables, to be changed by a test before it writes them."""

    def __init__(self) -> None:
        self.rows = {name: [] for name in SCHEMA}

    def patient(self, stay: int, **columns) -> None:
        self.rows["patient"].append({"patientunitstayid": stay, "uniquepid": f"person {stay}"} | columns)

    def vital(self, stay: int, offset: int, **columns) -> None:
        table = "vitalAperiodic" if next(iter(columns)) in SCHEMA["vitalAperiodic"].split() else "vitalPeriodic"
        self.rows[table].append({"patientunitstayid": stay, "observationoffset": offset} | columns)

    def lab(self, stay: int, offset: int, name: str, value: float | str) -> None:
        row = {"patientunitstayid": stay, "labresultoffset": offset, "labname": name, "labresult": value}
        self.rows["lab"].append(row)

    def stay(self, stay: int, first: int = 0, hours: int = 120, step: int = 60, **columns) -> None:
        """A stay without points: heart rates every `step` minutes, and each score variable once, in the middle."""
        self.patient(stay, **columns)
        for offset in range(first, first + 60 * hours + 1, step):
            self.vital(stay, offset, heartrate=80)
        self.vital(stay, 0, **NORMAL)
        for name, value in NORMAL_LABS.items():
            self.lab(stay, 0, name, value)

    def write(self, folder: Path, suffix: str = ".csv.gz", without: str = "") -> Path:
        """The tables as files, `without` a column."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.rows.items():
            columns = [column for column in SCHEMA[name].split() if column != without]
            text = io.StringIO()
            table = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
            content = text.getvalue().encode()
            packed = gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content
            (folder / f"{name}{suffix}").write_bytes(packed)
        return folder


def three_stays() -> Source:
    """The fewest that can be split."""
    source = Source()
    for stay in (1400001, 141001, 141002):
        source.stay(stay)
    return source


def points_by_channel(source: Source, channels: list[str]) -> dict[int, dict[str, list[tuple[int, float]]]]:
    """Of every stay and channel, offsets and values as they are in the file."""
    points = defaultdict(lambda: defaultdict(list))
    for table, prefix in (("vitalPeriodic", "vs_"), ("vitalAperiodic", "avs_")):
        for row in source.rows[table]:
            for column, value in row.items():
                if prefix + column in channels and value is not None:
                    stay, offset = row["patientunitstayid"], row["observationoffset"]
                    points[stay][prefix + column].append((offset, float(value)))
    for row in source.rows["lab"]:
        if f"lab_{row['labname']}" in channels:
            found = points[row["patientunitstayid"]][f"lab_{row['labname']}"]
            found.append((row["labresultoffset"], float(row["labresult"])))
    return points


def plain_grid(points: list[tuple[int, float]], hours: int, start: int, default: float, limit: int) -> list[float]:
    """A channel's value at every hour of a stay, by looking at all its points each time."""
    points = sorted(((offset - start, value) for offset, value in points), key=lambda point: point[0])
    offsets, values = [offset for offset, _ in points], [value for _, value in points]
    grid = []
    for minute in range(0, 60 * hours, 60):
        seen = bisect_right(offsets, minute + 60)
        if not seen:
            grid.append(default)
        elif minute - offsets[seen - 1] <= limit:
            grid.append(values[seen - 1])
        else:
            grid.append(math.fsum(values[:seen]) / seen)
    return grid


def within(bounds: str, value: float) -> bool:
    """Whether a value lies in a list of intervals [low, high), such as '..30 41..'."""
    ends = [interval.split("..") for interval in bounds.split()]
    return any(float(low or "-inf") <= value < float(high or "inf") for low, high in ends)


# The table of the score as it is printed: points and their intervals.
BANDS = {
    "vs_temperature": {4: "..30 41..", 3: "30..32 39..41", 2: "32..34", 1: "34..36 38.5..39"},
    "vs_systemicmean": {4: "..50 160..", 3: "130..160", 2: "50..70 110..130"},
    "vs_respiration": {4: "..6 50..", 3: "35..50", 2: "6..10", 1: "10..12 25..35"},
    "lab_HCO3": {4: "..15 52..", 3: "15..18 41..52", 2: "18..23", 1: "32..41"},
    "lab_sodium": {4: "..111 180..", 3: "111..120 160..180", 2: "120..130 155..160", 1: "150..155"},
    "lab_potassium": {4: "..2.5 7..", 3: "6..7", 2: "2.5..3", 1: "3..3.5 5.5..6"},
    "lab_creatinine": {4: "3.5..", 3: "2..3.5", 2: "..0.6 1.5..2"},
}


def plain_score(grids: dict[str, list[float]], row: int, horizon: int) -> int:
    """The sum over variables of the first band, from the worst down, that any hour of the window falls into."""
    total = 0
    for name, bands in BANDS.items():
        window = grids[name][row : row + horizon]
        total += next((points for points, band in bands.items() if any(within(band, value) for value in window)), 0)
    return total


def random_stays(seed: int, hours: list[int], channels: list[tuple[str, float, float]]) -> Source:
    """Stays with few or many points of every channel, before and after the heart rates too, some at the same minute."""
    random, source = np.random.default_rng(seed), Source()
    for number, length in enumerate(hours):
        stay, first = 999_990 + 7 * number, int(random.integers(-90, 90))
        source.patient(stay, hospitaldischargelocation=random.choice(["Death", "Home"]))
        for offset in range(first, first + 60 * length + 1, 60):
            source.vital(stay, offset, heartrate=int(random.integers(40, 150)))
        for name, low, scale in channels:
            count = int(random.choice([0, 1, 3, 30]))
            late = int(random.integers(0, 60 * length))
            for offset in random.integers(-500, 60 * length + 300, count):
                offset = min(int(offset), late) // 5 * 5
                value = round(float(low + scale * random.uniform(-0.02, 1.02)), 3)
                table, _, column = name.partition("_")
                if table == "lab":
                    source.lab(stay, offset, column, value)
                elif column != "heartrate":
                    source.vital(stay, offset, **{column: value})
    return source

"""PhysioNet/CinC Challenge 2012: the first 48 hours of 12,000 stays in intensive care, from its text files.

Source: Silva, Moody, Scott, Celi, Mark, "Predicting In-Hospital Mortality of ICU Patients", CinC 2012. Sets a, b and c
become training, validation and test split.

Every hour holds the last value measured in it (of urine: the sum), then values are carried forward; hours before the
first one hold the training mean, 0 after normalisation (of ventilation, which is recorded only when it is on: 0). A
stay ends with the hour of its last measurement. Stays without any are left out.

The labels `score_1`, `score_6`, `score_12` and `score_24` are the worst organ-failure score (organ_failure.py) of so
many hours, the present one being the first.
"""

import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

from experiments.datasets.normalization import forward_filled, normalised
from experiments.datasets.organ_failure import coming_worst, organ_failure_score
from experiments.datasets.stays import Channel, Description, Stays, cached_stays
from experiments.errors import UserError, one_line

import numpy as np
import polars as pl
import torch
from tqdm import tqdm

FOLDER = "PhysioNet2012"
URL = "https://physionet.org/content/challenge-2012/1.0.0/"
SETS = "abc"
MEMBER = re.compile(r"(?:^|/)(set-[abc]/\d+\.txt|Outcomes-[abc]\.txt)$")
HEADER = b"Time,Parameter,Value"
OUTCOME_COLUMNS = ("RecordID", "Length_of_stay", "In-hospital_death")
VERSION = 2  # of what this module makes of the files; raise it and caches are made anew
HOURS = 48
WINDOWS = (1, 6, 12, 24)
MISSING = -1.0
MOST_OUT_OF_RANGE = 0.05  # of a variable's values; more, and its unit must be another one ...
LEAST_VALUES = 50  # ... if there are so many of them


@dataclass(frozen=True)
class Variable:
    """Unit, and the range of values that a living patient can have."""

    unit: str
    low: float
    high: float


VARIABLES = {
    "ALP": Variable("IU/L", 1, 5000),
    "ALT": Variable("IU/L", 1, 20000),
    "AST": Variable("IU/L", 1, 40000),
    "Albumin": Variable("g/dL", 0.5, 7),
    "BUN": Variable("mg/dL", 0.5, 300),
    "Bilirubin": Variable("mg/dL", 0, 100),
    "Cholesterol": Variable("mg/dL", 10, 1000),
    "Creatinine": Variable("mg/dL", 0.05, 30),
    "DiasABP": Variable("mmHg", 10, 200),
    "FiO2": Variable("fraction", 0.2, 1),
    "GCS": Variable("points", 3, 15),
    "Glucose": Variable("mg/dL", 5, 2000),
    "HCO3": Variable("mmol/L", 2, 60),
    "HCT": Variable("%", 5, 75),
    "HR": Variable("1/min", 10, 300),
    "K": Variable("mmol/L", 1, 12),
    "Lactate": Variable("mmol/L", 0.1, 35),
    "MAP": Variable("mmHg", 15, 250),
    "MechVent": Variable("yes/no", 0, 1),
    "Mg": Variable("mg/dL", 0.3, 15),  # the challenge's page says mmol/L, for which its values are twice too high
    "NIDiasABP": Variable("mmHg", 10, 200),
    "NIMAP": Variable("mmHg", 15, 250),
    "NISysABP": Variable("mmHg", 30, 300),
    "Na": Variable("mmol/L", 90, 190),
    "PaCO2": Variable("mmHg", 5, 150),
    "PaO2": Variable("mmHg", 15, 700),
    "Platelets": Variable("1000/µL", 1, 3000),
    "RespRate": Variable("1/min", 1, 80),
    "SaO2": Variable("%", 30, 100),
    "SysABP": Variable("mmHg", 30, 300),
    "Temp": Variable("°C", 25, 43),
    "TroponinI": Variable("µg/L", 0, 500),
    "TroponinT": Variable("µg/L", 0, 100),
    "Urine": Variable("mL/h", 0, 3000),
    "WBC": Variable("1000/µL", 0.05, 500),
    "Weight": Variable("kg", 20, 350),
    "pH": Variable("", 6.5, 8),
}
NAMES = tuple(VARIABLES)
STATIC = {
    "Age": Variable("years", 0, 120),
    "Gender": Variable("0 female, 1 male", 0, 1),
    "Height": Variable("cm", 100, 230),
    "ICUType": Variable("1 coronary, 2 cardiac surgery recovery, 3 medical, 4 surgical", 1, 4),
}


def load_physionet2012(root: Path) -> Stays:
    """The stays in `root/PhysioNet2012`, read from the text files there and kept as `stays.safetensors` beside them.

    Raises:
        UserError: there are none, or they are not as the challenge published them.
    """
    folder = root / FOLDER
    try:
        paths = source_paths(folder)
        checksum = source_checksum(paths) if paths else None
        return cached_stays(folder, checksum, lambda: prepare(read_sources(paths), checksum, folder))
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        reason = one_line(error)
        raise UserError(f"cannot read the files in {folder} ({reason}): download them again from {URL}") from error


def source_paths(folder: Path) -> list[Path]:
    """The challenge's text files, and archives that may hold them."""
    return [
        *sorted(folder.glob("*.tar.*")),
        *sorted(folder.glob("Outcomes-?.txt")),
        *sorted(folder.glob("set-?/*.txt")),
    ]


def source_checksum(paths: Iterable[Path]) -> str:
    """SHA-256 of the files as they lie there."""
    digest = hashlib.sha256(f"version {VERSION}".encode())
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.parent.name}/{path.name} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def read_sources(paths: Iterable[Path]) -> dict[str, bytes]:
    """Content of the text files by name (`set-a/132539.txt`), in order."""
    found: dict[str, bytes] = {}
    for name, content in tqdm(_contents(paths), desc="reading PhysioNet 2012", unit=" files", delay=1):
        if member := MEMBER.search(name):
            found[member[1]] = content.replace(b"\r\n", b"\n")
    return dict(sorted(found.items()))


def _contents(paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if ".tar" in path.suffixes:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        yield member.name, archive.extractfile(member).read()
        else:
            yield path.as_posix(), path.read_bytes()


def prepare(files: dict[str, bytes], checksum: str, folder: Path) -> Stays:
    """The stays in the text files; `folder` is named in messages.

    Raises:
        UserError: what `load_physionet2012` says.
    """
    outcomes = pl.concat([_outcomes(files, letter, folder) for letter in SETS])
    records = {name: content for name, content in files.items() if name.startswith("set-")}
    _compare_records(list(records), outcomes)
    counts: dict[str, int | float] = {}
    rows = measurements(records, counts)
    check_ranges(rows, counts)
    values = hourly_grid(rows, len(records))
    static = static_values(rows, len(records))

    measured = np.delete(~np.isnan(values), NAMES.index("Weight"), axis=2)  # the weight at admission is a descriptor
    lengths = np.where(measured, np.arange(1, HOURS + 1)[:, None], 0).max(axis=(1, 2))
    kept = lengths > 0
    counts |= {"stays": int(kept.sum()), "stays_without_measurements": int((~kept).sum())}
    if not kept.any():
        raise UserError(f"no stay in {folder} has a measurement: restore the original files from {URL}")
    values, lengths, static = values[kept], lengths[kept], static[kept]
    split = np.array([SETS.index(name[4]) for name in records], np.int8)[kept]
    inside = np.arange(HOURS) < lengths[:, None]
    observed = ~np.isnan(values) & inside[..., None]
    filled = forward_filled(values)
    ventilation = filled[..., NAMES.index("MechVent")]
    ventilation[np.isnan(ventilation)] = 0
    score = organ_failure_score(NAMES, filled, values, inside, counts)
    inputs, mean, scale = normalised(filled, inside, split == 0, counts)

    return Stays(
        inputs=torch.from_numpy(inputs),
        observed=torch.from_numpy(observed),
        lengths=torch.from_numpy(lengths.astype(np.int32)),
        labels={f"score_{hours}": torch.from_numpy(coming_worst(score, lengths, hours)) for hours in WINDOWS},
        outcomes={
            "death": _float(outcomes["In-hospital_death"], kept),
            "length_of_stay": _float(outcomes["Length_of_stay"], kept),
        },
        static=torch.from_numpy(static.astype(np.float32)),
        split=torch.from_numpy(split),
        description=Description(
            name="PhysioNet 2012",
            channels=tuple(
                Channel(name, variable.unit, centre, width)
                for (name, variable), centre, width in zip(VARIABLES.items(), mean, scale, strict=True)
            ),
            static=tuple(STATIC),
            source_checksum=checksum,
            counts=counts,
            stays=tuple(Path(name).stem for name in compress(records, kept)),
        ),
    )


# ------------------------------------------------------------------------------------------------------------- reading


def _outcomes(files: dict[str, bytes], letter: str, folder: Path) -> pl.DataFrame:
    """`RecordID`, `Length_of_stay`, `In-hospital_death` of a set, as float64; -1 stands for missing."""
    name = f"Outcomes-{letter}.txt"
    if name not in files or not any(record.startswith(f"set-{letter}/") for record in files):
        missing = name if name not in files else f"set-{letter}/"
        raise UserError(
            f"{folder} lacks {missing}: put set-a/, set-b/, set-c/ and Outcomes-a.txt, -b and -c from {URL} there, "
            "unpacked or as .tar.gz or .tar.xz archives"
        )
    table = pl.read_csv(io.BytesIO(files[name]), infer_schema=False)
    for column in OUTCOME_COLUMNS:
        if column not in table.columns:
            raise UserError(f"{name} has no column {column}, only {', '.join(table.columns)}: restore the original")
    numbers = table.select(pl.col(OUTCOME_COLUMNS).str.strip_chars().cast(pl.Float64, strict=False)).sort("RecordID")
    if (broken := numbers.select(pl.any_horizontal(pl.all().is_null()).sum()).item()) or not len(numbers):
        what = f"{broken} lines that are not numbers" if broken else "no stays"
        raise UserError(f"{name} holds {what}: restore the original file from {URL}")
    return numbers.with_columns(pl.lit(letter).alias("set"))


def _compare_records(names: list[str], outcomes: pl.DataFrame) -> None:
    """Raise UserError unless the records are those of the outcomes."""
    expected = [f"set-{letter}/{record:.0f}.txt" for letter, record in outcomes.select("set", "RecordID").iter_rows()]
    if names != expected:
        stray = sorted(set(names) ^ set(expected))
        name = stray[0] if stray else "a record twice"
        where = f"Outcomes-{name[4]}.txt has no line for {name}" if name in names else f"{name} is missing"
        raise UserError(f"{where} ({len(stray)} such records): restore the original files from {URL}")


def measurements(records: dict[str, bytes], counts: dict[str, int | float]) -> pl.DataFrame:
    """All lines of all records: `stay` (position), `minute`, `parameter` and `value`; in the order of the files.

    Lines without a parameter's name and values of -1 are left out and counted.
    """
    for name, content in records.items():
        if not content.startswith(HEADER) or b"\n" + HEADER in content:
            raise UserError(
                f"{name} does not start with {HEADER.decode()}, or has it twice: restore the original file from {URL}"
            )
    text = b"".join(content if content.endswith(b"\n") else content + b"\n" for content in records.values())
    try:
        lines = pl.read_csv(
            io.BytesIO(text),
            has_header=False,
            schema=dict.fromkeys(("time", "parameter", "text"), pl.String),
            quote_char=None,
        )
    except pl.exceptions.PolarsError as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"a line in set-a/ to set-c/ has too many columns ({reason}): restore the files") from error
    is_header = pl.col("time") == HEADER.split(b",")[0].decode()
    rows = lines.with_columns(
        stay=is_header.cum_sum().cast(pl.Int32) - 1,
        minute=pl.col("time").str.extract(r"^(\d\d):\d\d$").cast(pl.Int32) * 60
        + pl.col("time").str.extract(r"^\d\d:(\d\d)$").cast(pl.Int32),
        value=pl.col("text").str.strip_chars().cast(pl.Float64, strict=False),
    ).filter(~is_header)
    broken = rows.filter(pl.col("minute").is_null() | ~pl.col("value").is_finite().fill_null(False))
    if len(broken):
        line = broken.row(0, named=True)
        shown = ",".join(line[key] or "" for key in ("time", "parameter", "text"))
        raise UserError(f"{list(records)[line['stay']]} has a line {shown!r} that is no measurement: restore the file")
    nameless = pl.col("parameter").is_null() | (pl.col("parameter") == "")
    counts["lines_without_parameter"] = rows.select(nameless.sum()).item()
    rows = rows.filter(~nameless).select("stay", "minute", "parameter", "value")
    counts["missing_values"] = rows.select((pl.col("value") == MISSING).sum()).item()
    return rows.filter(pl.col("value") != MISSING)


def check_ranges(rows: pl.DataFrame, counts: dict[str, int | float]) -> None:
    """Count values out of range; UserError when so many of a variable are that its unit must be another one."""
    limits = VARIABLES | STATIC
    found = (
        rows.filter(pl.col("parameter").is_in(list(limits)))
        .with_columns(outside=~_within(limits))
        .group_by("parameter")
        .agg(pl.col("outside").sum().alias("outside"), pl.len().alias("values"), pl.col("value").median())
        .sort("parameter")
    )
    for name, outside, total, median in found.iter_rows():
        if total >= LEAST_VALUES and outside > MOST_OUT_OF_RANGE * total:
            variable = limits[name]
            raise UserError(
                f"{outside:,} of {total:,} values of {name} lie outside {variable.low:g} … {variable.high:g} "
                f"{variable.unit} (median {median:g}): they must be in another unit; restore the original files"
            )
    counts["values_out_of_range"] = int(found["outside"].sum())


def _within(limits: dict[str, Variable]) -> pl.Expr:
    low = pl.col("parameter").replace_strict(
        {name: float(v.low) for name, v in limits.items()}, return_dtype=pl.Float64
    )
    high = pl.col("parameter").replace_strict(
        {name: float(v.high) for name, v in limits.items()}, return_dtype=pl.Float64
    )
    return pl.col("value").is_between(low, high)


def hourly_grid(rows: pl.DataFrame, stays: int) -> np.ndarray:
    """`[N, 48, 37]`: the last value of every hour (of urine the sum), NaN where there is none; 48:00 is in the last."""
    kept = (
        rows.filter(pl.col("parameter").is_in(NAMES) & (pl.col("minute") <= 60 * HOURS))
        .filter(_within(VARIABLES))
        .sort("minute", maintain_order=True)
        .with_columns(hour=(pl.col("minute") // 60).clip(upper_bound=HOURS - 1))
        .group_by("stay", "hour", "parameter", maintain_order=True)
        .agg(pl.col("value").last().alias("last"), pl.col("value").sum().alias("sum"))
        .with_columns(
            value=pl.when(pl.col("parameter") == "Urine").then("sum").otherwise("last"),
            channel=pl.col("parameter").replace_strict({name: i for i, name in enumerate(NAMES)}),
        )
    )
    values = np.full((stays, HOURS, len(NAMES)), np.nan)
    values[kept["stay"].to_numpy(), kept["hour"].to_numpy(), kept["channel"].to_numpy()] = kept["value"].to_numpy()
    return values


def static_values(rows: pl.DataFrame, stays: int) -> np.ndarray:
    """`[N, 4]`: what is recorded at admission, NaN where it is not known."""
    values = np.full((stays, len(STATIC)), np.nan)
    kept = rows.filter(pl.col("parameter").is_in(list(STATIC))).filter(_within(STATIC))
    column = kept["parameter"].replace_strict({name: i for i, name in enumerate(STATIC)}).to_numpy()
    values[kept["stay"].to_numpy(), column] = kept["value"].to_numpy()
    return values


def _float(column: pl.Series, kept: np.ndarray) -> torch.Tensor:
    values = column.to_numpy()[kept].astype(np.float32)
    return torch.from_numpy(np.where(values == MISSING, np.float32("nan"), values))

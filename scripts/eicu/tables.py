"""The four tables of eICU that are needed: found, their columns checked, their content read once into parquet."""

import csv
import gzip
import hashlib
from pathlib import Path

from experiments.errors import UserError
from scripts.eicu.constants import CONSTANTS
from scripts.eicu.stages import Stages, quoted

from tqdm import tqdm

CHUNK = 2**22  # bytes


def read_tables(stages: Stages, source: Path) -> dict[str, str]:
    """Make `patient`, `vitalPeriodic`, `vitalAperiodic` and `lab` readable; SHA-256 of each table's file.

    Columns: `stay` (patientunitstayid), `offset` (minutes from admission), and the values and texts under their own
    names, texts without surrounding space. Numbers that are not finite are missing.

    Raises:
        UserError: a table or a column is missing, or what should be a number is none.
    """
    files = {name: find(source, name) for name in CONSTANTS["tables"]}
    queries = {name: query_of(name, columns_of(path), path) for name, path in files.items()}
    checksums = {}
    for name, path in files.items():
        checksums[name] = checksum_of(path)
        columns = ", ".join(f"{quoted(column)}: '{kind}'" for column, kind in types_of(name, columns_of(path)).items())
        stages.source(
            f"{name}_file",
            f"read_csv({quoted(path)}, header = true, auto_detect = false, delim = ',', quote = '\"', escape = '\"', "
            f"columns = {{{columns}}})",
            checksums[name],
        )
        stages.run(name, queries[name], f"{name}_file")
    return checksums


def find(source: Path, name: str) -> Path:
    """`<source>/<name>.csv.gz` or `.csv`, in upper or lower case."""
    if not source.is_dir():
        raise UserError(f"--source {source} is no folder: name the one that holds eICU's tables (patient.csv.gz, ...)")
    for suffix in (".csv.gz", ".csv"):
        for path in sorted(source.iterdir()):
            if path.name.lower() == f"{name}{suffix}".lower():
                return path
    raise UserError(f"{source} has no {name}.csv.gz: download it from https://physionet.org/content/eicu-crd/")


def columns_of(path: Path) -> list[str]:
    """The names in the first line, in lower case."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            return [column.strip().lower() for column in next(csv.reader(file), [])]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): download it again") from error


def types_of(name: str, columns: list[str]) -> dict[str, str]:
    table = CONSTANTS["tables"][name]
    kinds = {"patientunitstayid": "BIGINT", table.get("offset"): "BIGINT"}
    kinds |= dict.fromkeys(table.get("values", []), "DOUBLE")
    return {column: kinds.get(column, "VARCHAR") for column in columns}


def query_of(name: str, columns: list[str], path: Path) -> str:
    """The needed columns of a table; UserError for one that the file lacks."""
    table = CONSTANTS["tables"][name]
    offset, values, texts = table.get("offset"), table.get("values", []), table.get("text", [])
    needed = ["patientunitstayid", *([offset] if offset else []), *texts, *values]
    if missing := [column for column in needed if column not in columns]:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: it must be eICU's {name}, first line included")
    selected = ["patientunitstayid AS stay", *([f'{offset} AS "offset"'] if offset else [])]
    selected += [f"trim({column}) AS {column}" for column in texts]
    selected += [f"CASE WHEN isfinite({column}) THEN {column} END AS {column}" for column in values]
    present = " AND ".join(f"{column} IS NOT NULL" for column in needed[: 2 if offset else 1])
    return f"SELECT {', '.join(selected)} FROM {name}_file WHERE {present}"


def checksum_of(path: Path) -> str:
    """SHA-256 of the file, with a progress bar."""
    digest = hashlib.sha256()
    bar = tqdm(total=path.stat().st_size, desc=f"checksum of {path.name}", unit="B", unit_scale=True, leave=False)
    with path.open("rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()

"""Prepare eICU for T-DPSOM: hourly values, physiology scores and deaths of the last 72 h of every long stay.

    python scripts/prepare_eicu.py --source ~/eicu-crd-2.0                  as the authors published it
    python scripts/prepare_eicu.py --source ~/eicu-crd-2.0 --corrected      without what they did not intend

The source is the folder of eICU's tables as PhysioNet delivers them to credentialed users; patient, vitalPeriodic,
vitalAperiodic and lab are read, as .csv.gz or .csv. The output is `stays.safetensors` and `stays.json` (their format:
experiments/ingredients/stays.py), and two lists: `stays.csv`, which stay is which, and `channels.csv`, how often each
channel was measured. Interrupted, the same command continues where it stopped: `<output>/stages` holds what it has
finished. It contains patients' data; delete it when the output is final.
"""

import argparse
import csv
import hashlib
import io
import shlex
import signal
import sys
from pathlib import Path

from experiments.errors import UserError
from experiments.ingredients.observers import write_atomically
from experiments.ingredients.stays import SPLITS, Channel, Description, Stays, write_stays
from scripts.eicu.constants import (
    CHANNELS,
    CONSTANTS,
    CORRECTIONS,
    HORIZONS,
    MINIMUM,
    SCALE,
    UNITS,
    WINDOW,
    carry_forward,
)
from scripts.eicu.grid import fill, measure
from scripts.eicu.scores import deaths, physiology_scores
from scripts.eicu.selection import differences, select_stays, select_variables
from scripts.eicu.stages import BAR, Stages
from scripts.eicu.tables import read_tables

import numpy as np
import torch
from sklearn.model_selection import GroupShuffleSplit
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
BATCH = 250  # stays that are filled at a time
TEST_FRACTION, VALIDATION_FRACTION, SPLIT_SEED = 0.15, 0.2, 42  # the authors' 68 % / 17 % / 15 %


def prepare(source: Path, output: Path, corrections: frozenset[str], memory: str) -> Stays:
    """All of it; returns what was written into `output`."""
    with Stages(output / "stages", memory) as stages:
        checksums = read_tables(stages, source)
        counts = select_stays(stages)
        coverage = select_variables(stages)
        measured = measure(stages, corrections)
        cohort = stages.fetch("FROM cohort ORDER BY position")
        tensors = last_hours(stages, cohort, measured["median"], corrections)
    split = splits(cohort["person" if "persons" in corrections else "stay"])
    stays = Stays(
        **tensors,
        lengths=torch.full((len(split),), WINDOW, dtype=torch.int32),
        outcomes={
            "hospital_death": torch.from_numpy(cohort["hospital_death"].astype(np.float32)),
            "unit_death": torch.from_numpy(cohort["unit_death"].astype(np.float32)),
            "length_of_stay": torch.from_numpy(
                ((cohort["last_minute"] - cohort["first_minute"]) / 1440).astype(np.float32)
            ),
        },
        static=torch.zeros(len(split), 0),
        split=torch.from_numpy(split),
        description=Description(
            name="eicu",
            channels=tuple(map(Channel, CHANNELS, UNITS, MINIMUM.tolist(), SCALE.tolist())),
            static=(),
            source_checksum=hashlib.sha256(repr((checksums, sorted(corrections))).encode()).hexdigest(),
            counts=counts | {"values out of range": int(measured["out_of_range"].sum())},
        ),
    )
    stays = write_stays(output, stays)
    write_csv(
        output / "stays.csv",
        ("patientunitstayid", "split"),
        zip(cohort["stay"].tolist(), (SPLITS[number] for number in split), strict=True),
    )
    write_csv(
        output / "channels.csv",
        ("channel", "unit", "share_of_stays", "values", "median", "values_out_of_range"),
        zip(
            CHANNELS,
            UNITS,
            (round(coverage.get(name, 0.0), 4) for name in CHANNELS),
            *(measured[name].tolist() for name in ("points", "median", "out_of_range")),
            strict=True,
        ),
    )
    report(output, counts, coverage, measured)
    return stays


def last_hours(stages: Stages, cohort: dict, medians: np.ndarray, corrections: frozenset[str]) -> dict:
    """`inputs`, `observed` and `labels` of the last 72 rows of every stay's grid.

    All labels look ahead, none beyond the stay's end: no earlier row is needed.
    """
    count, limits = len(cohort["stay"]), carry_forward(corrections)
    defaults = np.where(np.isnan(medians), MINIMUM, medians)  # a channel that was never measured is zero
    rows = cohort["hours"][:, None] - WINDOW + np.arange(WINDOW)
    inputs = torch.zeros(count, WINDOW, len(CHANNELS))
    observed = torch.zeros(count, WINDOW, len(CHANNELS), dtype=torch.bool)
    scores = {f"full_score_{horizon}": torch.zeros(count, WINDOW, dtype=torch.int16) for horizon in HORIZONS}
    starts = range(0, count, BATCH)
    for start in tqdm(starts, desc="last hours", bar_format=BAR):
        part = slice(start, start + BATCH)
        known = stages.fetch(
            f"FROM hours WHERE position BETWEEN {start} AND {start + BATCH - 1} ORDER BY position, channel, hour"
        )
        values, measured = fill(known, rows[part], start, defaults, limits)
        inputs[part] = torch.from_numpy((values - MINIMUM) / SCALE)
        observed[part] = torch.from_numpy(measured)
        for name, score in physiology_scores(values, corrections).items():
            scores[name][part] = torch.from_numpy(score)
    labels = dict(scores)
    for name in ("hospital", "unit"):
        expired = deaths(name, cohort[f"{name}_death"], rows, cohort["hours"])
        labels |= {label: torch.from_numpy(values) for label, values in expired.items()}
    return {"inputs": inputs, "observed": observed, "labels": labels}


def splits(groups: np.ndarray) -> np.ndarray:
    """0 for training, 1 for validation, 2 for test, `[N]` int8; equal groups come into the same split.

    As many of each as the authors had. Which they were is lost: their order was that of the files in a folder.
    """
    split = np.zeros(len(groups), dtype=np.int8)
    try:
        rest, test = one_split(groups, TEST_FRACTION)
        _, validation = one_split(groups[rest], VALIDATION_FRACTION)
    except ValueError as error:
        raise UserError(f"{len(groups)} stays are left: too few for training, validation and test") from error
    split[test], split[rest[validation]] = 2, 1
    return split


def one_split(groups: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    return next(GroupShuffleSplit(1, test_size=fraction, random_state=SPLIT_SEED).split(groups, groups=groups))


def write_csv(path: Path, header: tuple[str, ...], rows) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_atomically(path, text.getvalue().encode())


def report(output: Path, counts: dict[str, int], coverage: dict[str, float], measured: dict[str, np.ndarray]) -> None:
    low, high = CONSTANTS["published_stays"]
    left_out = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict != "kept") or "none"
    print(f"stays: {counts['kept']} (the authors had {low} to {high}); left out: {left_out}")
    rare, further = differences(coverage)
    print(f"channels measured in fewer than 10 % of them: {', '.join(rare) or 'none'}")
    print(f"other variables measured in at least 10 %: {', '.join(further) or 'none'}")
    outside = measured["out_of_range"] / np.maximum(measured["points"], 1)
    worst = ", ".join(f"{CHANNELS[index]} {outside[index]:.1%}" for index in np.argsort(-outside)[:5] if outside[index])
    print(f"values outside their channel's published range, the largest shares: {worst or 'none'}")
    print(f"written: {output / 'stays.safetensors'}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="corrections: " + "; ".join(f"{name}: {what}" for name, what in CORRECTIONS.items()),
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="FOLDER", help="folder of eICU's tables, .csv.gz or .csv")
    add("--output", type=Path, default=ROOT / "data" / "eICU", metavar="FOLDER", help="default: data/eICU")
    add("--corrected", nargs="*", choices=CORRECTIONS, metavar="NAME", help="correct these (without a name: all)")
    add("--memory", default="4GB", help="how much DuckDB may hold before it uses the disk (default: 4GB)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments

    def interrupt(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    options = parse(arguments)
    corrections = frozenset(options.corrected or (CORRECTIONS if options.corrected == [] else ()))
    try:
        prepare(options.source.expanduser(), options.output.expanduser(), corrections, options.memory)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join(["python", "scripts/prepare_eicu.py", *arguments])
        print(f"interrupted; continue with: {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

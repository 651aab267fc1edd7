"""Prepare eICU for T-DPSOM: hourly values, physiology scores and deaths of the last 72 h of every long stay.

    python scripts/prepare_eicu.py --source ~/eicu-crd-2.0                  as the authors published it
    python scripts/prepare_eicu.py --source ~/eicu-crd-2.0 --corrected      without what they did not intend

The source is the folder of eICU's tables as PhysioNet delivers them to credentialed users; patient, vitalPeriodic,
vitalAperiodic and lab are read, as .csv.gz or .csv. The output is `stays.safetensors` and `stays.json` (their format:
experiments/datasets/stays.py), and two lists: `stays.csv`, which stay is which, and `channels.csv`, how often each
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
from collections.abc import Iterable
from pathlib import Path

from experiments import PROJECT
from experiments.datasets.stays import SPLITS, Channel, Description, Stays, write_stays
from experiments.errors import UserError, reported
from experiments.files import write_atomically
from scripts.eicu.constants import CHANNELS, CONSTANTS, CORRECTIONS, MINIMUM, SCALE, UNITS, WINDOW
from scripts.eicu.grid import measure
from scripts.eicu.selection import differences, select_stays, select_variables
from scripts.eicu.stages import Stages
from scripts.eicu.tables import read_tables
from scripts.eicu.tensors import last_hours, splits

import numpy as np
import torch


def prepare(source: Path, output: Path, corrections: frozenset[str], memory: str) -> None:
    """Make the four files in `output` from the tables in `source`; UserError says what to do where that fails."""
    with Stages(output / "stages", memory, torch.get_num_threads()) as stages:
        checksums = read_tables(stages, source)
        counts = select_stays(stages)
        coverage = select_variables(stages)
        channels = measure(stages, corrections)
        cohort = stages.fetch("FROM cohort ORDER BY position")
        inputs, observed, labels = last_hours(stages, cohort, channels["median"], corrections)
    split = splits(cohort["person" if "persons" in corrections else "stay"])
    outcomes = {
        "death": cohort["hospital_death"],
        "unit_death": cohort["unit_death"],
        "length_of_stay": (cohort["last_minute"] - cohort["first_minute"]) / 1440,  # days between heart rates
    }
    stays = Stays(
        inputs=inputs,
        observed=observed,
        lengths=torch.full((len(split),), WINDOW, dtype=torch.int32),
        labels=labels,
        outcomes={name: torch.from_numpy(values.astype(np.float32)) for name, values in outcomes.items()},
        static=torch.zeros(len(split), 0),
        split=torch.from_numpy(split),
        description=Description(
            name="eICU",
            channels=tuple(map(Channel, CHANNELS, UNITS, MINIMUM.tolist(), SCALE.tolist())),
            static=(),
            source_checksum=hashlib.sha256(repr((checksums, sorted(corrections))).encode()).hexdigest(),
            counts=counts | {"values out of range": int(channels["out_of_range"].sum())},
            stays=tuple(map(str, cohort["stay"].tolist())),
        ),
    )
    write_stays(output, stays)
    write_table(
        output / "stays.csv",
        {"patientunitstayid": cohort["stay"].tolist(), "split": [SPLITS[number] for number in split]},
    )
    write_table(
        output / "channels.csv",
        {
            "channel": CHANNELS,
            "unit": UNITS,
            "share_of_stays": [round(coverage.get(name, 0.0), 4) for name in CHANNELS],
            "values": channels["points"].tolist(),
            "median": channels["median"].tolist(),
            "values_out_of_range": channels["out_of_range"].tolist(),
        },
    )
    report(counts, coverage, channels)
    print(f"written: {output / 'stays.safetensors'}")


def write_table(path: Path, columns: dict[str, Iterable]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *zip(*columns.values(), strict=True)])
    write_atomically(path, text.getvalue().encode())


def report(counts: dict[str, int], coverage: dict[str, float], channels: dict[str, np.ndarray]) -> None:
    """What a reader should compare with the original before using the stays."""
    low, high = CONSTANTS["published_stays"]
    left_out = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict != "kept") or "none"
    print(f"stays: {counts['kept']} (the authors had {low} to {high}); left out: {left_out}")
    rare, further = differences(coverage)
    print(
        f"{len(rare)} of {len(CHANNELS)} channels were measured in fewer than 10 % of them: {', '.join(rare) or 'none'}"
    )
    print(f"{len(further)} other variables were measured in at least 10 %: {', '.join(further) or 'none'}")
    outside = channels["out_of_range"] / np.maximum(channels["points"], 1)
    worst = ", ".join(f"{CHANNELS[index]} {outside[index]:.1%}" for index in np.argsort(-outside)[:5] if outside[index])
    print(f"values outside their channel's published range, the largest shares: {worst or 'none'}")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="corrections: " + "; ".join(f"{name}: {what}" for name, what in CORRECTIONS.items()),
    )
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="FOLDER", help="folder of eICU's tables, .csv.gz or .csv")
    add("--output", type=Path, default=PROJECT / "data" / "eICU", metavar="FOLDER", help="default: data/eICU")
    add("--corrected", nargs="*", choices=CORRECTIONS, metavar="NAME", help="correct these (without a name: all)")
    add("--memory", default="4GB", help="how much DuckDB may hold before it uses the disk (default: 4GB)")
    return parser.parse_args(arguments)


@reported
def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parse(arguments)
    corrections = frozenset(options.corrected or (CORRECTIONS if options.corrected == [] else ()))
    try:
        prepare(options.source.expanduser(), options.output.expanduser(), corrections, options.memory)
    except OSError as error:
        raise UserError(str(error)) from error
    except KeyboardInterrupt:
        again = shlex.join(["python", "scripts/prepare_eicu.py", *arguments])
        print(f"interrupted; continue with: {again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

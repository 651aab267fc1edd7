"""Means and standard errors over the seeds of runs of one's own, which need not be of a row of a table.

    for seed in 0 1 2; do python experiments/dpsom.py with my.yaml seed=$seed; done
    python scripts/summarise.py runs/dpsom/4 runs/dpsom/5 runs/dpsom/6

Runs that differ in nothing but the seed are summarised together; a further group says in what it differs from the
first.
"""

import argparse
import sys
from pathlib import Path

from experiments.errors import UserError, reported
from experiments.record import by_split
from scripts.comparison import summarise
from scripts.records import Record, as_record, differing_keys, finished_record, flatten
from scripts.rendering.cells import mean_text


def grouped(records: dict[Path, Record]) -> list[list[Record]]:
    """The records of each experiment, data set and configuration, in the order of their first.

    Raises:
        UserError: two runs of a group have the same seed.
    """
    groups: list[list[Path]] = []
    for run, record in records.items():
        group = next((one for one in groups if not differences(record, records[one[0]])), None)
        if group is None:
            groups.append(group := [])
        if twin := next((one for one in group if records[one].seed == record.seed), None):
            raise UserError(f"{twin} and {run} are the same run, seed {record.seed}: leave out one")
        group.append(run)
    return [[records[run] for run in group] for group in groups]


def differences(record: Record, other: Record) -> list[str]:
    """In what two runs differ, as `model.alpha: 10.0 → 3.0`, seeds aside."""
    if record.experiment != other.experiment:
        return [f"{other.experiment} → {record.experiment}"]
    old, new = flatten(other.config), flatten(record.config)
    found = [f"{key}: {old.get(key)} → {new.get(key)}" for key in differing_keys(other.config, record.config)]
    return found + ["other data"] * (record.data_checksum != other.data_checksum)


def text_of(group: list[Record], first: Record) -> str:
    """Heading and metrics of runs that belong together."""
    seeds = ", ".join(str(record.seed) for record in group)
    heading = f"{group[0].experiment}, n = {len(group)} (seed{'s' * (len(group) > 1)} {seeds})"
    heading = ", ".join([heading, *differences(group[0], first)])
    names = dict.fromkeys(name for record in group for name in record.metrics)
    values = {name: [record.metrics[name] for record in group if name in record.metrics] for name in names}
    texts = {name: mean_text(summarise(found), runs=len(group)) for name, found in values.items()}
    return heading + "\n" + by_split(texts)


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    options = parser.parse_args(arguments)
    groups = grouped({run: as_record(finished_record(run)) for run in options.runs})
    print("\n\n".join(text_of(group, groups[0][0]) for group in groups))
    return 0


if __name__ == "__main__":
    sys.exit(main())

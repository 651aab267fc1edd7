"""What a table is made of: rows that name configs, their records, other people's numbers.

A `Table` names a renderer and rows; `scripts/contents/` lists the tables. Every renderer takes the table and the
`Results` and returns what to print.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import UserError, one_line
from scripts.comparison import Summary, summarise
from scripts.records import Record, load_records, read_json

import yaml


@dataclass(frozen=True)
class Runs:
    """The runs of one named config, seeds 0, 1, 2, ...

    stages: (number of seeds, order), ...: with ((3, 2), (5, 9)) seeds 0-2 are trained at order 2 and seeds 3-4 at
        order 9; lower orders go first.
    minutes: one run on two CPU cores, the estimate until a record tells better.
    """

    experiment: str
    config_name: str
    stages: tuple[tuple[int, int], ...]
    minutes: float = field(compare=False)

    @property
    def key(self) -> str:
        return f"{self.experiment}/{self.config_name}"


@dataclass(frozen=True)
class ParityRow:
    """One model on one data set: our runs by column, and the fields that select its entries of references.yaml.

    split: where our metrics are shown for which nothing was published.
    """

    labels: tuple[str, ...]
    references: dict[str, object]
    runs: dict[str, Runs]
    split: str = "test"


@dataclass(frozen=True)
class Row:
    """A row that stands on the runs of one config.

    base: what it is compared with in an ablation; None for a base itself.
    """

    labels: tuple[str, ...]
    runs: Runs
    base: Runs | None = None


def beside(base: Runs, *others: Runs) -> tuple[Row, ...]:
    """The rows of an ablation: the base, and what is compared with it."""
    return (Row((), base), *(Row((), runs, base) for runs in others))


@dataclass(frozen=True)
class Table:
    """One table.

    labels: headings of the first columns; metrics: heading by `<metric>` or, for an ablation, `<split>/<metric>`;
    epochs: of the joint phase, where a learning curve is read.
    """

    title: str
    reading: str
    render: Callable[["Table", "Results"], "Rendered"]
    labels: tuple[str, ...] = ()
    metrics: dict[str, str] = field(default_factory=dict)
    rows: tuple = ()
    epochs: tuple[int, ...] = ()

    def runs(self) -> list[Runs]:
        """Every config the table stands on, each once, in order."""
        found: list[Runs] = []
        for row in self.rows:
            found += row.runs.values() if isinstance(row, ParityRow) else [row.runs]
        return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Rendered:
    """Markdown blocks below the header, the short form for the README, the CSV rows (the same keys in each)."""

    blocks: list[str]
    short: str
    values: list[dict]


@dataclass(frozen=True)
class Reference:
    """Somebody else's number; the fields are described in references.yaml."""

    source: str
    model: str
    data: str
    network: str | None
    split: str | None
    units: int | None
    metric: str
    value: float
    n: int | None
    spread: str
    status: str
    error: float | None = None
    label: str | None = None
    decimals: int | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> Summary:
        if self.spread == "standard_deviation" and self.n:
            return Summary(self.value, self.error / self.n**0.5, self.n)
        return Summary(self.value, self.error if self.spread == "standard_error" else None, self.n)


class Results:
    """Records by config, references and the golden comparison, as the renderers need them."""

    def __init__(self, folder: Path):
        self.records: dict[tuple[str, str], list[Record]] = {}
        for record in load_records(folder / "runs"):
            self.records.setdefault((record.experiment, record.config_name), []).append(record)
        self.sources, self.notes, self.references = load_references(folder / "references.yaml")
        self.golden = load_golden(folder / "parity_golden.json")

    def of(self, runs: Runs) -> list[Record]:
        return self.records.get((runs.experiment, runs.config_name), [])

    def dirty(self, runs: Runs) -> bool:
        return any(record.git_dirty for record in self.of(runs))

    def summary(self, runs: Runs, metric: str) -> Summary | None:
        return summarise([record.metrics[metric] for record in self.of(runs) if metric in record.metrics])

    def seconds(self, runs: Runs) -> Summary | None:
        """Of training, without the evaluations in between."""
        return summarise([record.total_seconds - record.seconds.get("evaluation", 0.0) for record in self.of(runs)])


def load_references(path: Path) -> tuple[dict, dict, list[Reference]]:
    """(sources, notes, references) of references.yaml; UserError when it does not follow its own description."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        sources, notes, entries = content["sources"], content["notes"], content["references"]
        if content["format"] != 1:
            raise ValueError(f"format {content['format']!r}, this version reads 1")
        references = []
        for entry in entries:
            reference = Reference(**{**entry, "notes": tuple(entry.get("notes", ()))})
            if reference.source not in sources or any(note not in notes for note in reference.notes):
                raise ValueError(f"unknown source or note in {entry}")
            if (
                reference.spread not in ("standard_error", "standard_deviation", "none")
                or (reference.spread == "none") != (reference.error is None)
                or reference.status not in ("printed", "recalled")
            ):
                raise ValueError(f"spread, error or status is wrong in {entry}")
            references.append(reference)
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be used: {one_line(error)}") from error
    return sources, notes, references


def load_golden(path: Path) -> dict | None:
    """The recorded comparison with the originals' golden numbers, None when there is none yet."""
    if not path.exists():
        return None
    content = read_json(path)
    keys = {"model", "quantity", "measure", "worst", "tolerance"}
    rows = content.get("rows") if isinstance(content, dict) and content.get("format") == 1 else None
    if not isinstance(rows, list) or any(not keys <= row.keys() for row in rows):
        needed = ", ".join(sorted(keys))
        raise UserError(f"{path} is not of format 1 with rows of {needed}: run the parity comparison again")
    return content

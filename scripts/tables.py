"""Renders every table from the records of finished runs and other people's numbers.

    python scripts/tables.py            write results/tables/<name>.md and .csv, and the tables of README.md
    python scripts/tables.py --check    write nothing, fail when one of them is not what would be written

Reads `results/runs/`, `results/references.yaml` and `results/parity_golden.json`, nothing else. The same records always
give the same bytes. README.md holds a table's short form between `<!-- table:<name> -->` and `<!-- /table -->`.
Verdicts are defined in `scripts/records.py`.

A table is an entry of TABLES: a title, how to read it, a renderer, and rows that name configs. A new model adds rows or
an entry.
"""

import argparse
import csv
import io
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import UserError
from scripts.records import (
    MARGIN,
    Comparison,
    Record,
    Summary,
    compare,
    differing_keys,
    flatten,
    has_spread,
    load_records,
    read_json,
    summarise,
    write_result,
)

import yaml

ROOT = Path(__file__).resolve().parents[1]

# ---------------------------------------------------------------------------------------------- what tables are made of


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
    minutes: float


@dataclass(frozen=True)
class ParityRow:
    """One model on one data set: our runs by column, and the fields that select its entries of references.yaml."""

    labels: tuple[str, ...]
    references: dict[str, object]
    runs: dict[str, Runs]


@dataclass(frozen=True)
class Row:
    """A row that stands on the runs of one config."""

    labels: tuple[str, ...]
    runs: Runs


@dataclass(frozen=True)
class Table:
    """One table.

    labels: headings of the first columns; metrics: heading by `<metric>` or, for an ablation, `<split>/<metric>`;
    base: what the rows of an ablation are compared with.
    """

    title: str
    reading: str
    render: Callable[["Table", "Results"], "Rendered"]
    labels: tuple[str, ...] = ()
    metrics: dict[str, str] = field(default_factory=dict)
    rows: tuple = ()
    base: Runs | None = None

    def runs(self) -> list[Runs]:
        """Every config the table stands on, each once, in order."""
        found = [self.base] if self.base else []
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
        raise UserError(f"{path} cannot be used: {' '.join(str(error).split())}") from error
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


# ----------------------------------------------------------------------------------------------------------- formatting


def number(value: float, decimals: int = 4) -> str:
    """A score: .6919, with a real minus sign."""
    text = f"{abs(value):.{decimals}f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def signed(value: float) -> str:
    text = number(value)
    return text if text.startswith("−") or not float(text) else "+" + text


def mean_cell(summary: Summary | None, decimals: int = 4) -> str:
    """`.6919 ± .0012`; empty without a run."""
    if summary is None:
        return ""
    spread = "" if summary.standard_error is None else f" ± {number(summary.standard_error, decimals)}"
    return number(summary.mean, decimals) + spread


def count_cell(n: int, dirty: bool) -> str:
    """`3`, with a dagger when a run was made with uncommitted changes; empty without a run."""
    return f"{n}{' †' if dirty else ''}" if n else ""


def our_cell(cell: "Cell") -> str:
    """`.6919 ± .0012, n = 3`; empty without a run."""
    return f"{mean_cell(cell.ours)}, n = {count_cell(cell.ours.n, cell.dirty)}" if cell.ours else ""


def difference_cell(comparison: Comparison | None) -> str:
    """`−.0027 [−.0060, +.0005] **equal**`; empty without a comparison."""
    if comparison is None:
        return ""
    interval = f" [{', '.join(signed(end) for end in comparison.interval)}]" if comparison.interval else ""
    return f"{signed(comparison.difference)}{interval} **{comparison.verdict}**"


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


DAGGER = "† run with uncommitted changes to the code."


class Footnotes:
    """Numbers each remark when it is first used and lists those used."""

    def __init__(self):
        self.texts: list[str] = []

    def mark(self, *texts: str) -> str:
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        return f"<sup>{','.join(str(self.texts.index(text) + 1) for text in texts)}</sup>" if texts else ""

    def listing(self) -> list[str]:
        if not self.texts:
            return []
        return ["<br>\n".join(f"<sup>{index}</sup> {text}" for index, text in enumerate(self.texts, 1))]


def hardware(record: Record) -> str:
    if record.hardware.get("gpu"):
        return str(record.hardware["gpu"])
    threads = record.hardware.get("threads")
    return (
        f"{record.hardware.get('cpu') or record.hardware.get('device', '')}{f', {threads} threads' if threads else ''}"
    )


def provenance(runs: list[Runs], results: Results) -> list[str]:
    """The block that leads from a row to its runs."""
    rows = []
    for run in runs:
        records = results.of(run)
        if not records:
            continue
        minutes = [f"{seconds / 60:.1f}" for seconds in sorted(record.total_seconds for record in records)]
        commits = dict.fromkeys(
            f"{(record.git_commit or 'unknown')[:8]}{' †' if record.git_dirty else ''}" for record in records
        )
        rows.append([
            f"[{run.config_name}](../runs/{run.experiment}/{run.config_name}/)",
            ", ".join(str(record.seed) for record in records),
            " – ".join(dict.fromkeys((minutes[0], minutes[-1]))),
            "; ".join(dict.fromkeys(hardware(record) for record in records)),
            ", ".join(commits),
        ])  # fmt: skip
    if not rows:
        return []
    block = ["## Runs", markdown_table(["config", "seeds", "minutes a run", "hardware", "code"], rows)]
    if any(results.dirty(run) for run in runs):
        block.append(DAGGER)
    return block


# ------------------------------------------------------------------------------------------------------------ renderers


@dataclass(frozen=True)
class Cell:
    """Our runs of one column beside a reference; `comparison` is None without a run or where like cannot meet like."""

    runs: Runs | None
    ours: Summary | None
    dirty: bool
    comparison: Comparison | None


@dataclass(frozen=True)
class ParityLine:
    row: ParityRow
    metric: str
    split: str | None
    reference: Reference | None
    cells: dict[str, Cell]


def references_of(row: ParityRow, metric: str, results: Results) -> list[Reference]:
    return [
        reference
        for reference in results.references
        if reference.metric == metric and all(getattr(reference, key) == value for key, value in row.references.items())
    ]


def same_units(reference: Reference, records: list[Record]) -> bool:
    """False when our maps are known to have another number of clusters than the reference."""
    sizes = {math.prod(size) for record in records if (size := record.config.get("model", {}).get("map_size"))}
    return reference.units is None or not sizes or sizes == {reference.units}


def cell_against(reference: Reference, runs: Runs | None, results: Results) -> Cell:
    """Our metric on the reference's own split, compared with it if the number of clusters is the same."""
    if runs is None:
        return Cell(None, None, False, None)
    ours = results.summary(runs, f"{reference.split}/{reference.metric}")
    like = ours is not None and same_units(reference, results.of(runs))
    return Cell(runs, ours, results.dirty(runs), compare(ours, reference.summary(), MARGIN) if like else None)


def parity_lines(table: Table, columns: list[str], results: Results) -> list[ParityLine]:
    """One line for each row, metric and published number."""
    return [
        ParityLine(
            row,
            metric,
            reference.split,
            reference,
            {column: cell_against(reference, row.runs.get(column), results) for column in columns},
        )
        for row in table.rows
        for metric in table.metrics
        for reference in references_of(row, metric, results)
    ]


def own_lines(table: Table, columns: list[str], results: Results) -> list[ParityLine]:
    """One line for each row and metric: the last column's test values compared with the first's."""
    lines = []
    for row in table.rows:
        if not {columns[0], columns[-1]} <= row.runs.keys():
            continue
        for metric in table.metrics:
            pair = [(row.runs[column], results.summary(row.runs[column], f"test/{metric}")) for column in columns]
            (_, first), (_, last) = pair[0], pair[-1]
            comparison = compare(last, first, MARGIN) if first and last else None
            cells = {
                column: Cell(runs, ours, results.dirty(runs), comparison if column == columns[-1] else None)
                for column, (runs, ours) in zip(columns, pair, strict=True)
            }
            lines.append(ParityLine(row, metric, "test", None, cells))
    return lines


def reference_cell(reference: Reference, results: Results, footnotes: Footnotes) -> str:
    decimals = reference.decimals or results.sources[reference.source]["decimals"]
    spread = "" if reference.error is None else f" ± {number(reference.error, decimals)}"
    spread += " (s.d.)" if reference.spread == "standard_deviation" else ""
    remarks = []
    if not has_spread(reference.summary()):
        remarks.append(f"{'one run' if reference.n == 1 else 'no spread given'}, taken as a constant")
    if reference.status == "recalled":
        remarks.append("recalled, not yet checked against the source")
    remarks += [results.notes[note] for note in reference.notes]
    count = f", n = {reference.n}" if reference.n and reference.n > 1 else ""
    return number(reference.value, decimals) + spread + count + footnotes.mark(*remarks)


def render_parity(table: Table, results: Results) -> Rendered:
    """Each published number beside our runs on the same split, then our columns beside each other on the test split."""
    columns = list(dict.fromkeys(column for row in table.rows for column in row.runs))
    lines = parity_lines(table, columns, results)
    footnotes = Footnotes()
    rows = []
    for line in lines:
        source = results.sources[line.reference.source]["name"]
        published = f"{source} {reference_cell(line.reference, results, footnotes)}"
        cells = [*line.row.labels, table.metrics[line.metric], line.split or "not known", published]
        for cell in line.cells.values():
            cells += [our_cell(cell), difference_cell(cell.comparison)]
        rows.append(cells)
    head = [*table.labels, "metric", "split", "published"]
    for column in columns:
        head += [column, f"{column} − published [95 % CI]"]
    blocks = ["## Against published numbers", markdown_table(head, rows), *footnotes.listing()]

    ours = own_lines(table, columns, results) if len(columns) > 1 else []
    if ours:
        rows = [
            [
                *line.row.labels,
                table.metrics[line.metric],
                *(our_cell(cell) for cell in line.cells.values()),
                difference_cell(line.cells[columns[-1]].comparison),
            ]
            for line in ours
        ]
        head = [*table.labels, "metric", *columns, f"{columns[-1]} − {columns[0]} [95 % CI]"]
        blocks += [f"## {columns[-1].capitalize()} against {columns[0]}, test split", markdown_table(head, rows)]

    sources = [results.sources[name] for name in dict.fromkeys(line.reference.source for line in lines)]
    if sources:
        blocks.append("Sources: " + "; ".join(f"{source['name']}: {source['where']}" for source in sources) + ".")
    values = [value for line in [*lines, *ours] for value in parity_values(table, line, columns)]
    return Rendered([*blocks, *provenance(table.runs(), results)], short_parity(table, columns, lines, results), values)


def short_parity(table: Table, columns: list[str], lines: list[ParityLine], results: Results) -> str:
    """One line for each row and metric, with a group of columns for each published source."""
    footnotes = Footnotes()
    sources = list(dict.fromkeys((line.reference.source, line.split) for line in lines))
    head = [*table.labels, "metric"]
    for source, split in sources:
        head += [f"{results.sources[source]['name']}, {split}", *(f"{column}, {split}" for column in columns)]
    rows = []
    for row in table.rows:
        for metric, heading in table.metrics.items():
            cells = [*row.labels, heading]
            for source, split in sources:
                wanted = (row, metric, source, split)
                line = next((x for x in lines if (x.row, x.metric, x.reference.source, x.split) == wanted), None)
                if line is None:
                    cells += [""] * (1 + len(columns))
                    continue
                cells.append(reference_cell(line.reference, results, footnotes))
                for cell in line.cells.values():
                    verdict = f" **{cell.comparison.verdict}**" if cell.comparison else ""
                    cells.append(our_cell(cell) + verdict)
            rows.append(cells)
    dagger = [DAGGER] if any(cell.dirty for line in lines for cell in line.cells.values()) else []
    return "\n\n".join([markdown_table(head, rows), *footnotes.listing(), *dagger])


def parity_values(table: Table, line: ParityLine, columns: list[str]) -> list[dict]:
    """The CSV rows of one line; without a reference, the last column is compared with the first."""
    reference, first = line.reference, line.cells[columns[0]]
    published = reference.summary() if reference else first.ours
    return [
        {
            **dict(zip(table.labels, line.row.labels, strict=True)),
            "metric": line.metric,
            "split": line.split,
            "runs": column,
            "config": cell.runs and cell.runs.config_name,
            **summary_values(cell.ours),
            "uncommitted_changes": cell.dirty,
            "compared_with": reference.source if reference else columns[0],
            **{f"compared_{key}": value for key, value in summary_values(published).items()},
            "compared_status": reference.status if reference else "ours",
            **comparison_values(cell.comparison),
        }
        for column, cell in line.cells.items()
        if reference or column == columns[-1]
    ]


def summary_values(summary: Summary | None) -> dict:
    return {
        "mean": summary and summary.mean,
        "standard_error": summary and summary.standard_error,
        "n": summary.n if summary else 0,
    }


def comparison_values(comparison: Comparison | None) -> dict:
    low, high = (comparison and comparison.interval) or (None, None)
    return {
        "difference": comparison and comparison.difference, "ci95_low": low, "ci95_high": high,
        "verdict": comparison and comparison.verdict, "note": comparison and comparison.note,
    }  # fmt: skip


CLUSTERING = {
    "nmi_geometric": "NMI (geometric)",
    "nmi_arithmetic": "NMI (arithmetic)",
    "ami": "AMI",
    "ari": "ARI",
    "purity": "purity",
    "accuracy": "accuracy",
    "used_units": "used units",
}
TOPOLOGY = {
    "quantization_error": "quantisation error",
    "topographic_error": "topographic error",
    "topographic_error_4": "the same, 4 neighbours",
    "trustworthiness": "trustworthiness",
    "continuity": "continuity",
    "reconstruction_error": "reconstruction error",
}


def metric_cells(row: Row, metrics: dict[str, str], results: Results) -> list[str]:
    """The row's labels, its number of seeds and its mean of each metric on the test split."""
    means = [
        mean_cell(results.summary(row.runs, f"test/{metric}"), decimals=1 if metric == "used_units" else 3)
        for metric in metrics
    ]
    return [*row.labels, count_cell(len(results.of(row.runs)), results.dirty(row.runs)), *means]


def render_metrics(table: Table, results: Results) -> Rendered:
    """Every metric of every config on the test split, the table's own first; the CSV has the validation split too."""
    sections = {"Clustering, test split": CLUSTERING, "Map and reconstruction, test split": TOPOLOGY}
    if table.metrics:
        sections = {"In short, test split": table.metrics} | sections
    blocks = []
    for title, metrics in sections.items():
        head = [*table.labels, "n", *metrics.values()]
        blocks += [f"## {title}", markdown_table(head, [metric_cells(row, metrics, results) for row in table.rows])]
    values = [
        {"config": runs.config_name, "metric": metric, "split": split}
        | summary_values(results.summary(runs, f"{split}/{metric}"))
        for metric in CLUSTERING | TOPOLOGY
        for runs in table.runs()
        for split in ("validation", "test")
    ]
    return Rendered([*blocks, *provenance(table.runs(), results)], blocks[1], values)


def switched(row: Runs, base: Runs, results: Results) -> str:
    """What the row's config changes, read from the recorded configs themselves; empty until both have a run."""
    if not results.of(row) or not results.of(base):
        return ""
    mine, theirs = (results.of(runs)[0].config for runs in (row, base))
    new, old = flatten(mine), flatten(theirs)
    return "<br>".join(
        f"`{key}`: {plain(old.get(key))} → **{plain(new.get(key))}**" for key in differing_keys(mine, theirs)
    )


def plain(value: object) -> str:
    if isinstance(value, bool | None):
        return {True: "on", False: "off", None: "none"}[value]
    return str(value)


def render_ablation(table: Table, results: Results) -> Rendered:
    """One config per row, its difference to the base and what it switches."""
    rows, values = [], []
    for runs in table.runs():
        records = results.of(runs)
        is_base = runs == table.base
        change = "(base)" if is_base else switched(runs, table.base, results)
        minutes = summarise([record.total_seconds / 60 for record in records])
        line = [
            f"`{runs.config_name}`",
            change,
            count_cell(len(records), results.dirty(runs)),
            f"{minutes.mean:.1f}" if minutes else "",
        ]
        for metric in table.metrics:
            ours, base = results.summary(runs, metric), results.summary(table.base, metric)
            comparison = compare(ours, base, MARGIN) if ours and base and not is_base else None
            line += [mean_cell(ours), difference_cell(comparison)]
            values.append(
                {
                    "config": runs.config_name,
                    "switched": change.replace("<br>", "; ").replace("**", "").replace("`", ""),
                    "metric": metric,
                }
                | summary_values(ours)
                | comparison_values(comparison)
            )
        rows.append(line)
    head = ["config", "switched", "n", "minutes"]
    for heading in table.metrics.values():
        head += [heading, "− base [95 % CI]"]
    short = markdown_table(head, rows)
    return Rendered([short, *provenance(table.runs(), results)], short, values)


def render_golden(table: Table, results: Results) -> Rendered:
    """Worst deviation from the originals' golden numbers by model and quantity."""
    if results.golden is None:
        return Rendered(["No comparison has been recorded yet."], "", [])
    keys = ("model", "quantity", "measure", "worst", "tolerance")
    values = [{key: row[key] for key in keys} for row in results.golden["rows"]]
    rows = []
    for model, quantity, measure, worst, tolerance in (row.values() for row in values):
        within = "yes" if worst <= tolerance else "**no**"
        rows.append([model, quantity, measure, f"{worst:.1e}", f"{tolerance:.0e}", within])
    short = markdown_table(["model", "quantity", "measure", "worst deviation", "tolerance", "within"], rows)
    commit = results.golden.get("git_commit")
    return Rendered([short, f"Code: {commit[:8]}."] if commit else [short], short, values)


# --------------------------------------------------------------------------------------------------------------- tables


def dpsom(config_name: str, stages: tuple[tuple[int, int], ...], minutes: float) -> Runs:
    return Runs("dpsom", config_name, stages, minutes)


CORRECTED, FAITHFUL, CONV, CONV_FAITHFUL = ((5, 1),), ((3, 2), (5, 9)), ((1, 3), (5, 9)), ((5, 9),)
DPSOM = {
    "mnist": dpsom("mnist", CORRECTED, 22),
    "fmnist": dpsom("fmnist", CORRECTED, 22),
    "mnist_faithful": dpsom("mnist_faithful", FAITHFUL, 45),
    "fmnist_faithful": dpsom("fmnist_faithful", FAITHFUL, 45),
    "mnist_conv": dpsom("mnist_conv", CONV, 160),
    "fmnist_conv": dpsom("fmnist_conv", CONV, 160),
    "mnist_conv_faithful": dpsom("mnist_conv_faithful", CONV_FAITHFUL, 400),
    "fmnist_conv_faithful": dpsom("fmnist_conv_faithful", CONV_FAITHFUL, 400),
}
ABLATIONS = (
    "posterior", "normalization", "dropout", "logits", "assignment", "order", "scaling", "shared_adam", "decay",
    "precision",
)  # fmt: skip
VALIDATION = {"validation/nmi_geometric": "NMI (geometric), validation", "validation/purity": "purity, validation"}
DIFFERENCES = (
    "A difference is the row's mean minus the base's with Welch's 95 % confidence interval; **equal**: within "
    f"±{MARGIN} by two one-sided tests at 5 %; **better**, **worse**: not equal and the interval excludes zero; "
    "**undecided**: neither, or a single run. ± is the standard error over n seeds; minutes are one run's."
)

TOPOGRAPHY = {
    "square": "points of a square",
    "digits": "digits",
    "mnist": "MNIST",
    "fmnist": "Fashion-MNIST",
    "as_posted": "digits, 20 × 20, as posted",
    "as_posted_long": "the same, ten times as long",
    "as_posted_corrected": "the same map, σ shrinks, Adam",
}

TABLES: dict[str, Table] = {
    "dpsom_parity": Table(
        title="DPSOM: parity with TensorFlow and with the Torch port",
        reading=(
            "Each published number stands beside our runs on the *same* split: TensorFlow's was measured on the "
            "validation split, the Torch port's on the test images. *Faithful* computes what the original code "
            "computes, *corrected* is this project's default. Every map has K = 64 units, every NMI is the geometric "
            "one. Our ± is the standard error over n seeds. Intervals are Welch's at 95 %; **equal**: the difference "
            f"lies within ±{MARGIN} by two one-sided tests at 5 %; **better**, **worse**: not equal and the interval "
            "excludes zero; **undecided**: neither, or a single run of ours. An empty cell has not been run."
        ),
        render=render_parity,
        labels=("data", "network"),
        metrics={"nmi_geometric": "NMI", "purity": "purity"},
        rows=tuple(
            ParityRow(
                labels=(title, network),
                references={"model": "dpsom", "data": data, "network": network},
                runs={"faithful": DPSOM[f"{data}{suffix}_faithful"], "corrected": DPSOM[f"{data}{suffix}"]},
            )
            for data, title in (("mnist", "MNIST"), ("fmnist", "Fashion-MNIST"))
            for network, suffix in (("dense", ""), ("conv", "_conv"))
        ),
    ),
    "dpsom_metrics": Table(
        title="DPSOM: all metrics",
        reading=(
            "Mean ± standard error over n seeds on the test images; the CSV file has the validation split too. The "
            "topographic error counts a second winner outside the 8 (or 4) units around the first. An empty cell has "
            "not been run."
        ),
        render=render_metrics,
        labels=("config",),
        rows=tuple(Row((f"`{name}`",), runs) for name, runs in DPSOM.items()),
    ),
    "dpsom_ablation": Table(
        title="DPSOM: what each switch is worth",
        reading=(
            "MNIST, dense, a shorter schedule (`configs/dpsom/short.yaml`); each row switches one thing of the base. "
            f"Choices are made on the validation split, which is what this table shows. {DIFFERENCES} What is switched "
            "is read from the recorded configs. An empty cell has not been run."
        ),
        render=render_ablation,
        metrics=VALIDATION,
        base=dpsom("short", ((3, 6),), 5),
        rows=tuple(Row((), dpsom(f"ablation_{name}", ((3, 6),), 5)) for name in ABLATIONS),
    ),
    "dpsom_precision": Table(
        title="DPSOM: bf16 against fp32",
        reading=f"MNIST, dense, full length; only the precision differs. {DIFFERENCES} An empty cell has not been run.",
        render=render_ablation,
        metrics=VALIDATION | {"test/nmi_geometric": "NMI (geometric), test", "test/purity": "purity, test"},
        base=DPSOM["mnist"],
        rows=(Row((), dpsom("mnist_fp32", ((3, 4),), 45)),),
    ),
    "topography": Table(
        title="Topography: a map trained by its loss",
        reading=(
            "Maps of the pixels themselves, 8 × 8 units unless the row says otherwise. Mean ± standard error over n "
            "seeds on the test images; the CSV file has the validation split too. The topographic error counts a "
            "second winner outside the 8 (or 4) units around the first. The square's classes are its quadrants. An "
            "empty cell has not been run."
        ),
        render=render_metrics,
        labels=("config", "data and map"),
        metrics={
            key: (CLUSTERING | TOPOLOGY)[key]
            for key in ("quantization_error", "topographic_error", "topographic_error_4", "nmi_geometric", "purity")
        },
        rows=tuple(
            Row((f"`{name}`", title), Runs("topography", name, ((5, 6),), 1)) for name, title in TOPOGRAPHY.items()
        )
        + tuple(
            Row(
                (f"`{name}_minisom_k64`", f"{TOPOGRAPHY[name]}, MiniSom"),
                Runs("baselines", f"{name}_minisom_k64", stages, minutes),
            )
            for name, stages, minutes in (
                ("square", ((5, 6),), 1),
                ("digits", ((5, 6),), 1),
                ("mnist", ((1, 6), (5, 9)), 6),
            )
        ),
    ),
    "parity_golden": Table(
        title="Parity with the originals' golden numbers",
        reading=(
            "The worst deviation of our faithful configurations from numbers that the unmodified TensorFlow code "
            "computed from the same weights, inputs and noise, and the tolerance that the parity tests allow. Read "
            "from the recorded comparison `results/parity_golden.json`."
        ),
        render=render_golden,
    ),
}


def render_table(name: str, results: Results) -> tuple[str, str, str]:
    """(Markdown, CSV, short Markdown) of one table."""
    table = TABLES[name]
    rendered = table.render(table, results)
    count = sum(len(results.of(runs)) for runs in table.runs())
    header = "Rendered by `python scripts/tables.py`"
    if table.runs():
        header += (
            f" from {count} {'record' if count == 1 else 'records'} of finished runs, equivalence margin {MARGIN}; "
            f"`python scripts/reproduce.py --tables {name}` trains what is missing"
        )
    header += "."
    text = "\n\n".join([f"# {table.title}", header, table.reading, *rendered.blocks]) + "\n"
    buffer = io.StringIO()
    if rendered.values:
        writer = csv.DictWriter(buffer, rendered.values[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rendered.values)
    return text, buffer.getvalue(), rendered.short


def render_all(folder: Path, readme: Path | None) -> dict[Path, str]:
    """Content of every file that tables.py writes. `folder` is results/; a README without markers is left out."""
    results = Results(folder)
    files, short = {}, {}
    for name in TABLES:
        text, values, short[name] = render_table(name, results)
        files[folder / "tables" / f"{name}.md"] = text
        if values:
            files[folder / "tables" / f"{name}.csv"] = values
    if readme and readme.exists():
        before = readme.read_text(encoding="utf-8")

        def fill(match: re.Match) -> str:
            name = match["name"]
            if name not in short:
                raise UserError(f"{readme} asks for the table {name!r}, there are: {', '.join(short)}")
            return f"<!-- table:{name} -->\n\n{short[name]}\n\n<!-- /table -->"

        after = re.sub(r"<!-- table:(?P<name>\w+) -->.*?<!-- /table -->", fill, before, flags=re.DOTALL)
        if "<!-- table:" in before:
            files[readme] = after
    return files


def out_of_date(files: dict[Path, str]) -> list[Path]:
    return [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render every table from the recorded runs.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 when a table or the README is out of date"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "results",
        help="folder with runs/ and references.yaml (default: results)",
    )
    parser.add_argument(
        "--readme", type=Path, default=ROOT / "README.md", help="file with table markers (default: README.md)"
    )
    options = parser.parse_args(arguments)
    try:
        files = render_all(options.results, options.readme)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    changed = out_of_date(files)
    if options.check:
        if changed:
            names = ", ".join(path.name for path in changed)
            print(f"out of date: {names}; run `python scripts/tables.py` and commit what it writes", file=sys.stderr)
        return 1 if changed else 0
    for path in changed:
        write_result(path, files[path].encode())
    print(f"{len(files)} files, {len(changed)} changed, in {options.results / 'tables'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

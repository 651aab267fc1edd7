"""What a table is made of, and the renderers that turn records into Markdown and CSV.

A `Table` names a renderer and rows; `scripts/tables.py` lists the tables. Every renderer takes the table and the
`Results` (records, references, golden comparison) and returns what to print.
"""

import math
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
    compare_ours,
    differing_keys,
    flatten,
    has_spread,
    load_records,
    read_json,
    summarise,
)

import yaml

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


def mean_text(summary: Summary, decimals: int = 4) -> str:
    """`.6919 ± .0012`."""
    spread = "" if summary.standard_error is None else f" ± {number(summary.standard_error, decimals)}"
    return number(summary.mean, decimals) + spread


def mean_cell(runs: Runs, metric: str, results: "Results", decimals: int = 4) -> str:
    """`.6919 ± .0012`; empty without a run."""
    summary = results.summary(runs, metric)
    return Entry(mean_text(summary, decimals), summary.mean, metric, runs) if summary else ""


def count_cell(n: int, dirty: bool) -> str:
    """`3`, with a dagger when a run was made with uncommitted changes; empty without a run."""
    return f"{n}{' †' if dirty else ''}" if n else ""


def our_cell(cell: "Cell", metric: str) -> str:
    """`.6919 ± .0012, n = 3`; empty without a run."""
    if cell.ours is None:
        return ""
    text = f"{mean_text(cell.ours)}, n = {count_cell(cell.ours.n, cell.dirty)}"
    return Entry(text, cell.ours.mean, metric, cell.runs)


def difference_cell(comparison: Comparison | None, metric: str, *runs: Runs) -> str:
    """`−.0027 [−.0060, +.0005] **equal**`; empty without a comparison."""
    if comparison is None:
        return ""
    interval = f" [{', '.join(signed(end) for end in comparison.interval)}]" if comparison.interval else ""
    text = f"{signed(comparison.difference)}{interval} **{comparison.verdict}**"
    return Entry(text, comparison.difference, metric, *runs)


class Entry(str):
    """A cell's text that also knows the number it shows, its metric `<split>/<metric>`, and the runs behind it."""

    value: float
    metric: str
    runs: tuple[Runs, ...]

    def __new__(cls, text: str, value: float, metric: str, *runs: Runs) -> "Entry":
        entry = super().__new__(cls, text)
        entry.value, entry.metric, entry.runs = value, metric, runs
        return entry


class MarkdownTable(str):
    """A table in Markdown that also knows its head and its cells, some of which are `Entry`s."""

    head: list[str]
    rows: list[list[str]]

    def __new__(cls, head: list[str], rows: list[list[str]]) -> "MarkdownTable":
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        table = super().__new__(cls, "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]))
        table.head, table.rows = head, rows
        return table


DAGGER = "† run with uncommitted changes to the code, or resumed from one of other code."


class Footnotes:
    """Numbers each remark when it is first used and lists those used."""

    def __init__(self):
        self.texts: list[str] = []

    def mark(self, *texts: str) -> str:
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
        numbers = sorted(self.texts.index(text) + 1 for text in texts)
        return f"<sup>{','.join(map(str, numbers))}</sup>" if numbers else ""

    def listing(self) -> list[str]:
        if not self.texts:
            return []
        return ["<br>\n".join(f"<sup>{index}</sup> {text}" for index, text in enumerate(self.texts, 1))]


def in_words(hardware: dict) -> str:
    """What a run or a measurement ran on."""
    if hardware.get("gpu"):
        return str(hardware["gpu"])
    threads = f"{hardware['threads']} threads" if hardware.get("threads") else ""
    emulated = "bfloat16 emulated" if hardware.get("bfloat16_emulated") else ""
    words = hardware.get("cpu") or hardware.get("device"), hardware.get("instructions"), threads, emulated
    return ", ".join(filter(None, words))


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
            "; ".join(dict.fromkeys(in_words(record.hardware) for record in records)),
            ", ".join(commits),
        ])  # fmt: skip
    if not rows:
        return []
    block = ["## Runs", MarkdownTable(["config", "seeds", "minutes a run", "hardware", "code"], rows)]
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

    @property
    def full_metric(self) -> str:
        return f"{self.split}/{self.metric}"


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


def cell_against(reference: Reference | None, metric: str, runs: Runs | None, results: Results) -> Cell:
    """Our metric (`<split>/<metric>`), compared with the reference if there is one for the same number of clusters."""
    if runs is None:
        return Cell(None, None, False, None)
    ours = results.summary(runs, metric)
    like = ours is not None and reference is not None and same_units(reference, results.of(runs))
    return Cell(runs, ours, results.dirty(runs), compare(ours, reference.summary(), MARGIN) if like else None)


def parity_lines(table: Table, columns: list[str], results: Results) -> list[ParityLine]:
    """One line for each row, metric and published number, on its split; or for our number alone."""
    lines = []
    for row in table.rows:
        for metric in table.metrics:
            for reference in references_of(row, metric, results) or [None]:
                split = reference.split if reference else row.split
                cells = {
                    column: cell_against(reference, f"{split}/{metric}", row.runs.get(column), results)
                    for column in columns
                }
                lines.append(ParityLine(row, metric, split, reference, cells))
    return lines


def own_lines(table: Table, columns: list[str], results: Results) -> list[ParityLine]:
    """One line for each row and metric: the last column's test values compared with the first's."""
    lines = []
    for row in table.rows:
        if not {columns[0], columns[-1]} <= row.runs.keys():
            continue
        for metric in table.metrics:
            pair = [(row.runs[column], results.summary(row.runs[column], f"test/{metric}")) for column in columns]
            (_, first), (_, last) = pair[0], pair[-1]
            comparison = compare_ours(last, first) if first and last else None
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


def published_cell(reference: Reference | None, results: Results, footnotes: Footnotes) -> str:
    if reference is None:
        return ""
    return f"{results.sources[reference.source]['name']} {reference_cell(reference, results, footnotes)}"


def render_parity(table: Table, results: Results) -> Rendered:
    """Each published number beside our runs on the same split, then our columns beside each other on the test split."""
    columns = list(dict.fromkeys(column for row in table.rows for column in row.runs))
    lines = parity_lines(table, columns, results)
    footnotes = Footnotes()
    rows = []
    for line in lines:
        published = published_cell(line.reference, results, footnotes)
        cells = [*line.row.labels, table.metrics[line.metric], line.split or "not known", published]
        for cell in line.cells.values():
            cells += [
                our_cell(cell, line.full_metric),
                difference_cell(cell.comparison, line.full_metric, cell.runs),
            ]
        rows.append(cells)
    head = [*table.labels, "metric", "split", "published"]
    for column in columns:
        head += [column, f"{column} − published [95 % CI]"]
    blocks = ["## Against published numbers", MarkdownTable(head, rows), *footnotes.listing()]

    ours = own_lines(table, columns, results) if len(columns) > 1 else []
    if ours:
        rows = [
            [
                *line.row.labels,
                table.metrics[line.metric],
                *(our_cell(cell, line.full_metric) for cell in line.cells.values()),
                difference_cell(
                    line.cells[columns[-1]].comparison,
                    line.full_metric,
                    *(line.cells[column].runs for column in (columns[-1], columns[0])),
                ),
            ]
            for line in ours
        ]
        head = [*table.labels, "metric", *columns, f"{columns[-1]} − {columns[0]} [95 % CI]"]
        blocks += [f"## {columns[-1].capitalize()} against {columns[0]}, test split", MarkdownTable(head, rows)]

    sources = [
        results.sources[name] for name in dict.fromkeys(line.reference.source for line in lines if line.reference)
    ]
    if sources:
        blocks.append("Sources: " + "; ".join(f"{source['name']}: {source['where']}" for source in sources) + ".")
    values = [value for line in [*lines, *ours] for value in parity_values(table, line, columns)]
    return Rendered([*blocks, *provenance(table.runs(), results)], short_parity(table, columns, lines, results), values)


def short_parity(table: Table, columns: list[str], lines: list[ParityLine], results: Results) -> str:
    """One line for each row and metric, with a group of columns for each published source."""
    footnotes = Footnotes()
    sources = list(dict.fromkeys((line.reference.source, line.split) for line in lines if line.reference))
    head = [*table.labels, "metric"]
    for source, split in sources:
        head += [f"{results.sources[source]['name']}, {split}", *(f"{column}, {split}" for column in columns)]
    rows = []
    for row in table.rows:
        for metric, heading in table.metrics.items():
            cells = [*row.labels, heading]
            for source, split in sources:
                line = next(
                    (
                        line
                        for line in lines
                        if (line.row, line.metric, line.split) == (row, metric, split)
                        and (line.reference is None or line.reference.source == source)
                    ),
                    None,
                )
                if line is None:
                    cells += [""] * (1 + len(columns))
                    continue
                cells.append(reference_cell(line.reference, results, footnotes) if line.reference else "")
                for cell in line.cells.values():
                    verdict = f" **{cell.comparison.verdict}**" if cell.comparison else ""
                    cells.append(our_cell(cell, line.full_metric) + verdict)
            rows.append(cells)
    dagger = [DAGGER] if any(cell.dirty for line in lines for cell in line.cells.values()) else []
    return "\n\n".join([MarkdownTable(head, rows), *footnotes.listing(), *dagger])


def parity_values(table: Table, line: ParityLine, columns: list[str]) -> list[dict]:
    """The CSV rows of one line; without a reference, the last column is compared with the first, if there are two."""
    reference, first = line.reference, line.cells[columns[0]]
    own = columns[0] if len(columns) > 1 else None
    published = reference.summary() if reference else own and first.ours
    return [
        {
            **dict(zip(table.labels, line.row.labels, strict=True)),
            "metric": line.metric,
            "split": line.split,
            "runs": column,
            "config": cell.runs and cell.runs.config_name,
            **summary_values(cell.ours),
            "uncommitted_changes": cell.dirty,
            "compared_with": reference.source if reference else own,
            **{f"compared_{key}": value for key, value in summary_values(published).items()},
            "compared_status": reference.status if reference else own and "ours",
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


SECONDS = {"seconds": "seconds of training"}
DECIMALS = {"used_units": 1, "seconds": 1}


def metric_cells(row: Row, metrics: dict[str, str], results: Results) -> list[str]:
    """The row's labels, its number of seeds and its mean of each metric on the test split."""
    means = []
    for metric in metrics:
        decimals = DECIMALS.get(metric, 3)
        if metric in SECONDS:
            summary = results.seconds(row.runs)
            means.append(mean_text(summary, decimals) if summary else "")
        else:
            means.append(mean_cell(row.runs, f"test/{metric}", results, decimals))
    return [*row.labels, count_cell(len(results.of(row.runs)), results.dirty(row.runs)), *means]


def render_metrics(table: Table, results: Results) -> Rendered:
    """Every metric of every config on the test split, the table's own first; the CSV has the validation split too."""
    sections = {"Clustering, test split": CLUSTERING, "Map and reconstruction, test split": TOPOLOGY}
    if table.metrics:
        sections = {"In short, test split": table.metrics} | sections
    blocks = []
    for title, metrics in sections.items():
        head = [*table.labels, "n", *metrics.values()]
        blocks += [f"## {title}", MarkdownTable(head, [metric_cells(row, metrics, results) for row in table.rows])]
    values = [
        {"config": runs.config_name, "metric": metric, "split": split}
        | summary_values(results.summary(runs, f"{split}/{metric}"))
        for metric in CLUSTERING | TOPOLOGY
        for runs in table.runs()
        for split in ("validation", "test")
    ]
    if "seconds" in table.metrics:
        values += [
            {"config": runs.config_name, "metric": "seconds", "split": "train"} | summary_values(results.seconds(runs))
            for runs in table.runs()
        ]
    return Rendered([*blocks, *provenance(table.runs(), results)], blocks[1], values)


def render_columns(table: Table, results: Results) -> Rendered:
    """The table's own columns, `<split>/<metric>`, and nothing else."""
    rows = []
    for row in table.rows:
        means = [mean_cell(row.runs, metric, results, decimals=3) for metric in table.metrics]
        rows.append([*row.labels, count_cell(len(results.of(row.runs)), results.dirty(row.runs)), *means])
    short = MarkdownTable([*table.labels, "n", *table.metrics.values()], rows)
    values = [
        {"config": row.runs.config_name, "metric": metric} | summary_values(results.summary(row.runs, metric))
        for row in table.rows
        for metric in table.metrics
    ]
    return Rendered([short, *provenance(table.runs(), results)], short, values)


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
            comparison = compare_ours(ours, base) if ours and base and not is_base else None
            line += [mean_cell(runs, metric, results), difference_cell(comparison, metric, runs, table.base)]
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
    short = MarkdownTable(head, rows)
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
    short = MarkdownTable(["model", "quantity", "measure", "worst deviation", "tolerance", "within"], rows)
    commit = results.golden.get("git_commit")
    return Rendered([short, f"Code: {commit[:8]}."] if commit else [short], short, values)


def speed_table(results: list[dict]) -> MarkdownTable:
    """The measurements of `scripts/benchmark.py`."""
    rows = [
        [
            f"`{result['config']}`",
            result["precision"],
            phase["phase"],
            f"{phase['samples_per_second']:,.0f}",
            f"{phase['share_of_peak']:.0%}",
            f"{result['peak_memory_megabytes']:,.0f}",
            f"{result['memory_growth_megabytes']:+.0f}",
            in_words(result["hardware"]),
        ]
        for result in results
        for phase in result["phases"]
    ]
    return MarkdownTable(
        ["config", "precision", "phase", "samples/s", "of peak", "peak memory, MB", "growth, MB", "hardware"], rows
    )

"""The renderer of parity tables: published numbers beside our runs on the same split."""

import math
from dataclasses import dataclass, replace

from scripts.comparison import Comparison, Summary, compare, compare_ours
from scripts.records import Record
from scripts.rendering.cells import (
    DAGGER,
    Entry,
    Footnotes,
    MarkdownTable,
    comparison_values,
    count_cell,
    difference_cell,
    mean_text,
    provenance,
    reference_cell,
    summary_values,
)
from scripts.rendering.results import ParityRow, Reference, Rendered, Results, Runs, Table


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
    return Cell(runs, ours, results.dirty(runs), compare(ours, reference.summary()) if like else None)


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
            cells = {column: cell_against(None, f"test/{metric}", row.runs.get(column), results) for column in columns}
            first, last = cells[columns[0]], cells[columns[-1]]
            if first.ours and last.ours:
                cells[columns[-1]] = replace(last, comparison=compare_ours(last.ours, first.ours))
            lines.append(ParityLine(row, metric, "test", None, cells))
    return lines


def our_cell(cell: Cell, metric: str) -> str:
    """`.6919 ± .0012, n = 3`; empty without a run."""
    if cell.ours is None:
        return ""
    text = f"{mean_text(cell.ours)}, n = {count_cell(cell.ours.n, cell.dirty)}"
    return Entry(text, cell.ours.mean, metric, cell.runs)


def published_cell(reference: Reference | None, results: Results, footnotes: Footnotes) -> str:
    if reference is None:
        return ""
    return f"{results.sources[reference.source]['name']} {reference_cell(reference, results, footnotes)}"


def render_parity(table: Table, results: Results) -> Rendered:
    """Each published number beside our runs on the same split, then our columns beside each other on the test split.

    Some rows may lack columns; their order is that of the row with the most.
    """
    fullest_first = sorted(table.rows, key=lambda row: len(row.runs), reverse=True)
    columns = list(dict.fromkeys(column for row in fullest_first for column in row.runs))
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
    """The CSV rows of one line; without a reference, the last column, beside the first where the two are compared."""
    return [
        {
            **dict(zip(table.labels, line.row.labels, strict=True)),
            "metric": line.metric,
            "split": line.split,
            "runs": column,
            "config": cell.runs and cell.runs.config_name,
            **summary_values(cell.ours),
            "uncommitted_changes": cell.dirty,
            **compared_values(line, cell, columns[0]),
            **comparison_values(cell.comparison),
        }
        for column, cell in line.cells.items()
        if line.reference or column == columns[-1]
    ]


def compared_values(line: ParityLine, cell: Cell, own: str) -> dict:
    """The CSV values of what a cell stands beside: the line's reference, our column `own`, or nothing."""
    if line.reference:
        name, values, status = line.reference.source, summary_values(line.reference.summary()), line.reference.status
    elif cell.comparison:
        name, values, status = own, summary_values(line.cells[own].ours), "ours"
    else:
        name, values, status = None, dict.fromkeys(summary_values(None)), None
    return {
        "compared_with": name,
        **{f"compared_{key}": value for key, value in values.items()},
        "compared_status": status,
    }

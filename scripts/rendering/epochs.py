"""The renderer of learning curves in numbers: metrics of the joint phase by the epoch."""

from scripts.comparison import Summary, summarise
from scripts.rendering.cells import Entry, MarkdownTable, count_cell, mean_text, provenance, summary_values
from scripts.rendering.results import Rendered, Results, Row, Runs, Table


def at_epoch(runs: Runs, metric: str, epoch: int, results: Results) -> Summary | None:
    """Over the runs whose curve has the metric at this epoch of the joint phase."""
    values = [
        line[metric]
        for record in results.of(runs)
        for line in record.curve
        if (line["phase"], line["epoch"]) == ("joint", epoch) and line.get(metric) is not None
    ]
    return summarise(values)


def mean_cells(row: Row, metric: str, table: Table, results: Results) -> list[str]:
    """The mean of one metric at each of the table's epochs."""
    n, cells = len(results.of(row.runs)), []
    for epoch in table.epochs:
        summary = at_epoch(row.runs, metric, epoch, results)
        cells.append(Entry(mean_text(summary, 3, n), summary.mean, "", row.runs) if summary else "")
    return cells


def render_epochs(table: Table, results: Results) -> Rendered:
    """A table for each metric, a column for each epoch; in short, both metrics of an epoch in one cell."""
    by_metric = {metric: [mean_cells(row, metric, table, results) for row in table.rows] for metric in table.metrics}
    start = [[*row.labels, count_cell(len(results.of(row.runs)), results.dirty(row.runs))] for row in table.rows]
    head = [*table.labels, "n", *(f"{epoch} epochs" if epoch > 1 else "1 epoch" for epoch in table.epochs)]
    blocks = []
    for metric, title in table.metrics.items():
        rows = [labels + cells for labels, cells in zip(start, by_metric[metric], strict=True)]
        blocks += [f"## {title}", MarkdownTable(head, rows)]
    pairs = [
        labels + [" / ".join(filter(None, pair)) for pair in zip(*cells, strict=True)]
        for labels, *cells in zip(start, *by_metric.values(), strict=True)
    ]
    values = [
        {"config": row.runs.config_name, "metric": metric, "epoch": epoch}
        | summary_values(at_epoch(row.runs, metric, epoch, results))
        for row in table.rows
        for metric in table.metrics
        for epoch in table.epochs
    ]
    return Rendered([*blocks, *provenance(table.runs(), results)], MarkdownTable(head, pairs), values)

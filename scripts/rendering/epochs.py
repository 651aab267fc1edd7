"""The renderer of learning curves in numbers: metrics of the joint phase by the epoch."""

from scripts.comparison import Summary, summarise
from scripts.rendering.cells import Entry, MarkdownTable, mean_text, provenance, runs_cell, summary_values
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


def mean_cells(row: Row, means: list[Summary | None], results: Results) -> list[str]:
    n = len(results.of(row.runs))
    return [Entry(mean_text(mean, 3, n), mean.mean, "", row.runs) if mean else "" for mean in means]


def render_epochs(table: Table, results: Results) -> Rendered:
    """A table for each metric, a column for each epoch; in short, both metrics of an epoch in one cell."""
    means = {
        metric: [[at_epoch(row.runs, metric, epoch, results) for epoch in table.epochs] for row in table.rows]
        for metric in table.metrics
    }
    start = [[*row.labels, runs_cell(row.runs, results)] for row in table.rows]
    head = [*table.labels, "n", *(f"{epoch} epochs" if epoch > 1 else "1 epoch" for epoch in table.epochs)]
    blocks, columns = [], []
    for metric, title in table.metrics.items():
        cells = [mean_cells(row, of_row, results) for row, of_row in zip(table.rows, means[metric], strict=True)]
        columns.append(cells)
        blocks += [f"## {title}", MarkdownTable(head, [a + b for a, b in zip(start, cells, strict=True)])]
    pairs = [
        labels + [" / ".join(filter(None, pair)) for pair in zip(*cells, strict=True)]
        for labels, *cells in zip(start, *columns, strict=True)
    ]
    values = [
        {"config": row.runs.config_name, "metric": metric, "epoch": epoch} | summary_values(mean)
        for index, row in enumerate(table.rows)
        for metric in table.metrics
        for epoch, mean in zip(table.epochs, means[metric][index], strict=True)
    ]
    return Rendered([*blocks, *provenance(table.runs(), results)], MarkdownTable(head, pairs), values)

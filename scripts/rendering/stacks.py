"""The renderer of TPAE's table: classifiers on stacks of maps."""

from scripts.comparison import Summary, summarise
from scripts.rendering.cells import MarkdownTable, mean_cell, number, provenance, runs_cell, summary_values
from scripts.rendering.results import Rendered, Results, Runs, Table

STACK = {
    "train/classifier_accuracy": "accuracy, train",
    "validation/classifier_accuracy": "accuracy, validation",
    "test/classifier_accuracy": "accuracy, test",
    "test/reconstruction_error": "reconstruction error, test",
    "test/picture_error": "the same, map alone",
}
EACH_MAP = {
    "topographic_error": "topographic error",
    "trustworthiness": "trustworthiness",
    "used_units": "used prototypes",
}


def by_block(runs: Runs, metric: str, results: Results) -> list[Summary]:
    """The metric of each block's map on the test split, first block first."""
    found = []
    while summary := results.summary(runs, f"test/block{len(found) + 1}_{metric}"):
        found.append(summary)
    return found


def render_stacks(table: Table, results: Results) -> Rendered:
    """Classifiers on stacks of maps: accuracy by split, errors, the metrics of each block's map, seconds an epoch."""
    rows, values = [], []
    for row in table.rows:
        records = results.of(row.runs)
        seconds = [
            record.seconds["joint"] / epochs
            for record in records
            if (epochs := record.config["training"]["joint_epochs"]) and "joint" in record.seconds
        ]
        cells = [*row.labels, runs_cell(row.runs, results)]
        cells += [mean_cell(row.runs, metric, results, decimals=3) for metric in STACK]
        for metric in EACH_MAP:
            maps = by_block(row.runs, metric, results)
            digits = 0 if metric == "used_units" else 3
            cells.append(" / ".join(number(summary.mean, digits) for summary in maps))
            values += [
                {"config": row.runs.config_name, "metric": f"test/block{block}_{metric}"} | summary_values(summary)
                for block, summary in enumerate(maps, start=1)
            ]
        cells.append(f"{sum(seconds) / len(seconds):.0f}" if seconds else "")
        rows.append(cells)
        values += [
            {"config": row.runs.config_name, "metric": metric} | summary_values(results.summary(row.runs, metric))
            for metric in STACK
        ]
        values.append(
            {"config": row.runs.config_name, "metric": "seconds an epoch"} | summary_values(summarise(seconds))
        )
    head = [*table.labels, "n", *STACK.values(), *EACH_MAP.values(), "seconds an epoch"]
    short = MarkdownTable(head, rows)
    return Rendered([short, *provenance(table.runs(), results)], short, values)

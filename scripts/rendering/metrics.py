"""The renderers of plain tables: means of metrics by config."""

from scripts.rendering.cells import MarkdownTable, mean_cell, mean_text, provenance, runs_cell, summary_values
from scripts.rendering.results import Rendered, Results, Row, Table

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


def heading(metric: str) -> str:
    """`test/purity` → `purity, test`."""
    split, _, name = metric.partition("/")
    return f"{(CLUSTERING | TOPOLOGY)[name]}, {split}"


def decimals_of(metric: str) -> int:
    """Of a metric, with its split or without, where it is shown but not compared."""
    return DECIMALS.get(metric.rpartition("/")[2], 3)


def metric_cells(row: Row, metrics: dict[str, str], results: Results) -> list[str]:
    """The row's labels, its number of seeds and its mean of each metric on the test split."""
    means = []
    for metric in metrics:
        decimals = decimals_of(metric)
        if metric in SECONDS:
            summary = results.seconds(row.runs)
            means.append(mean_text(summary, decimals) if summary else "")
        else:
            means.append(mean_cell(row.runs, f"test/{metric}", results, decimals))
    return [*row.labels, runs_cell(row.runs, results), *means]


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
        rows.append([*row.labels, runs_cell(row.runs, results), *means])
    short = MarkdownTable([*table.labels, "n", *table.metrics.values()], rows)
    values = [
        {"config": row.runs.config_name, "metric": metric} | summary_values(results.summary(row.runs, metric))
        for row in table.rows
        for metric in table.metrics
    ]
    return Rendered([short, *provenance(table.runs(), results)], short, values)

"""The renderer of T-DPSOM's table: clusters of hours against what becomes of the patients, forecasts, eICU."""

from scripts.rendering.cells import (
    Entry,
    Footnotes,
    MarkdownTable,
    mean_text,
    number,
    provenance,
    reference_cell,
    runs_cell,
    summary_values,
)
from scripts.rendering.results import ParityRow, Rendered, Results, Runs, Table

WINDOWS = (1, 6, 12, 24)
OPEN, CREDENTIALED = "physionet2012", "eicu"
CLUSTERS = {f"nmi_geometric_score_{hours}": f"NMI, {hours} h" for hours in WINDOWS} | {
    "ami_score_1": "AMI, 1 h",
    "purity_death": "purity of death",
    "topographic_error": "topographic error",
    "morans_i": "Moran's I",
    "unit_changes": "changes an hour",
    "used_units": "used units",
}
FORECAST = {
    "forecast_measured": "measured values",
    "persistence_measured": "the same, persistence",
    "forecast_gain": "gain",
    "forecast_data": "all values",
    "persistence_data": "the same, persistence",
    "forecast_reconstruction": "reconstruction",
    "persistence_reconstruction": "the same, persistence",
    "forecast_latent": "latents",
    "persistence_latent": "the same, persistence",
}
EICU = {f"nmi_arithmetic_full_score_{hours}": f"{hours} h" for hours in WINDOWS[1:]}


def render_stays(table: Table, results: Results) -> Rendered:
    """Each row's runs on PhysioNet 2012; then the published numbers on eICU beside whatever runs there are on it."""
    open_rows = [row for row in table.rows if OPEN in row.runs]
    clusters = _section(table, open_rows, CLUSTERS, results)
    forecasting = [row for row in open_rows if results.summary(row.runs[OPEN], "test/forecast_measured")]
    blocks = [
        "## Clusters of hours and the patients' future, PhysioNet 2012, test split",
        clusters,
        "## Forecast of the last six hours, PhysioNet 2012, test split: mean squared errors",
        _section(table, forecasting, FORECAST, results),
        "## eICU: NMI (arithmetic) with the physiology score of the coming hours",
        *_eicu(table, results),
    ]
    values = [
        {"config": runs.config_name, "metric": metric, "split": split}
        | summary_values(results.summary(runs, f"{split}/{metric}"))
        | dict(zip(("ci95_low", "ci95_high"), _interval(runs, f"{split}/{metric}", results), strict=True))
        for runs in table.runs()
        for metric in CLUSTERS | FORECAST | EICU
        for split in ("validation", "test")
    ]
    return Rendered([*blocks, *provenance(table.runs(), results)], clusters, values)


def _section(table: Table, rows: list[ParityRow], metrics: dict[str, str], results: Results) -> str:
    lines = [
        [
            *row.labels,
            runs_cell(runs, results),
            *(_cell(runs, f"test/{metric}", results) for metric in metrics),
        ]
        for row in rows
        for runs in [row.runs[OPEN]]
    ]
    return MarkdownTable([*table.labels, "n", *metrics.values()], lines)


def _cell(runs: Runs, metric: str, results: Results) -> str:
    """Mean over seeds; of a single run, with its interval over stays where it has one."""
    summary = results.summary(runs, metric)
    low, high = _interval(runs, metric, results)
    decimals = 1 if metric.endswith("used_units") else 4 if "nmi" in metric else 3
    if summary is None:
        return ""
    text = mean_text(summary, decimals, len(results.of(runs)))
    text += "" if low is None else f" [{number(low, decimals)}, {number(high, decimals)}]"
    return Entry(text, summary.mean, metric, runs)


def _interval(runs: Runs, metric: str, results: Results) -> tuple[float | None, float | None]:
    records = results.of(runs)
    if len(records) != 1:
        return None, None
    low, high = (records[0].metrics.get(f"{metric}_{end}") for end in ("low", "high"))
    return (low, high) if low is not None and high is not None else (None, None)


def _eicu(table: Table, results: Results) -> list[str]:
    """Published numbers, recalled, beside our runs on eICU; never compared with PhysioNet's, whose score is another."""
    footnotes = Footnotes()
    lines = []
    for row in (row for row in table.rows if CREDENTIALED in row.runs):
        published = {
            reference.label: reference
            for reference in results.references
            if all(getattr(reference, key) == value for key, value in row.references.items())
        }
        cells = list(row.labels)
        for hours, metric in zip(WINDOWS[1:], EICU, strict=True):
            reference = published.get(f"score_{hours}h")
            cells.append(reference_cell(reference, results, footnotes) if reference else "")
            cells.append(_cell(row.runs[CREDENTIALED], f"test/{metric}", results))
        lines.append(cells)
    head = [*table.labels]
    for title in EICU.values():
        head += [f"{title}, published", f"{title}, ours"]
    return [MarkdownTable(head, lines), *footnotes.listing()]

"""The renderer of ablations: configs that switch one thing, beside their base, with the state of their maps."""

from experiments.configuration import config_path, read_settings
from scripts.comparison import compare_ours
from scripts.records import differing_keys, flatten
from scripts.rendering.cells import (
    MarkdownTable,
    comparison_values,
    difference_cell,
    mean_cell,
    minutes_cell,
    provenance,
    runs_cell,
    summary_values,
)
from scripts.rendering.metrics import decimals_of, heading
from scripts.rendering.results import Rendered, Results, Runs, Table

MAP = ("validation/used_units", "validation/topographic_error")  # units that fall out of use can raise the NMI


def switched(row: Runs, base: Runs, results: Results) -> str:
    """What the row's config changes, read from the recorded configs themselves; empty until both have a run.

    A key that only one of them has stems from another version of the code: it counts where their YAML files differ in
    it, and an old value that the base's record lacks is unknown.
    """
    if not results.of(row) or not results.of(base):
        return ""
    mine, theirs = (results.of(runs)[0].config for runs in (row, base))
    new, old = flatten(mine), flatten(theirs)
    set_differently = differing_keys(
        *(read_settings(config_path(runs.experiment, runs.config_name)) for runs in (row, base))
    )
    return "<br>".join(
        f"`{key}`: {plain(old[key]) + ' → ' if key in old else ''}**{plain(new[key])}**"
        for key in differing_keys(mine, theirs)
        if key in new and (key in old or key in set_differently)
    )


def plain(value: object) -> str:
    if isinstance(value, bool | None):
        return {True: "on", False: "off", None: "none"}[value]
    return str(value)


def render_ablation(table: Table, results: Results) -> Rendered:
    """One config per row, what it switches, its difference to the base and the state of its map."""
    rows, values = [], []
    for row in table.rows:
        runs = row.runs
        change = switched(runs, row.base, results) if row.base else "(base)"
        plain_change = change.replace("<br>", "; ").replace("**", "").replace("`", "")
        line = [f"`{runs.config_name}`", change, runs_cell(runs, results), minutes_cell(results.of(runs))]
        for metric in (*table.metrics, *MAP):
            compared = metric in table.metrics
            ours, base = results.summary(runs, metric), row.base and results.summary(row.base, metric)
            comparison = compare_ours(ours, base) if compared and ours and base else None
            line.append(mean_cell(runs, metric, results, 4 if compared else decimals_of(metric)))
            if compared:
                line.append(difference_cell(comparison, metric, runs, row.base))
            values.append(
                {"config": runs.config_name, "switched": plain_change, "metric": metric}
                | summary_values(ours)
                | comparison_values(comparison)
            )
        rows.append(line)
    head = ["config", "switched", "n", "minutes"]
    for title in table.metrics.values():
        head += [title, "− base [95 % CI]"]
    short = MarkdownTable(head + [heading(metric) for metric in MAP], rows)
    return Rendered([short, *provenance(table.runs(), results)], short, values)

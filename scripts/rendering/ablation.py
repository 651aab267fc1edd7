"""The renderer of ablations: configs that switch one thing, beside their base."""

from experiments import PROJECT
from scripts.records import compare_ours, differing_keys, flatten
from scripts.rendering.cells import (
    MarkdownTable,
    comparison_values,
    count_cell,
    difference_cell,
    mean_cell,
    minutes_cell,
    provenance,
    summary_values,
)
from scripts.rendering.results import Rendered, Results, Runs, Table

import yaml


def switched(row: Runs, base: Runs, results: Results) -> str:
    """What the row's config changes, read from the recorded configs themselves; empty until both have a run.

    A key that only one of them has stems from another version of the code. Where the base has none of a key that the
    row's YAML file sets, its old value is unknown.
    """
    if not results.of(row) or not results.of(base):
        return ""
    mine, theirs = (results.of(runs)[0].config for runs in (row, base))
    new, old = flatten(mine), flatten(theirs)
    path = PROJECT / "configs" / row.experiment / f"{row.config_name}.yaml"
    named = flatten(yaml.safe_load(path.read_text(encoding="utf-8")))
    return "<br>".join(
        f"`{key}`: {plain(old[key]) + ' → ' if key in old else ''}**{plain(new[key])}**"
        for key in differing_keys(mine, theirs)
        if key in new and (key in old or key in named)
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
        line = [
            f"`{runs.config_name}`",
            change,
            count_cell(len(records), results.dirty(runs)),
            minutes_cell(records),
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

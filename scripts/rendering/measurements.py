"""The renderers of what is measured apart from runs: golden numbers and speed."""

from scripts.rendering.cells import MarkdownTable, in_words
from scripts.rendering.results import Rendered, Results, Table


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

"""Numbers, cells and tables in Markdown, remarks below them, and the same values for CSV."""

from scripts.comparison import Comparison, Summary, has_spread
from scripts.records import Record
from scripts.rendering.results import Reference, Results, Runs


def number(value: float, decimals: int = 4) -> str:
    """A score: .6919, with a real minus sign."""
    text = f"{abs(value):.{decimals}f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def signed(value: float) -> str:
    text = number(value)
    return text if text.startswith("−") or not float(text) else "+" + text


def mean_text(summary: Summary, decimals: int = 4, runs: int = 0) -> str:
    """`.6919 ± .0012`; with `, n = 2` where only so many of the `runs` have the value."""
    spread = "" if summary.standard_error is None else f" ± {number(summary.standard_error, decimals)}"
    fewer = f", n = {summary.n}" if summary.n < runs else ""
    return number(summary.mean, decimals) + spread + fewer


def mean_cell(runs: Runs, metric: str, results: Results, decimals: int = 4) -> str:
    """`mean_text` of a metric; empty without a run."""
    summary = results.summary(runs, metric)
    return Entry(mean_text(summary, decimals, len(results.of(runs))), summary.mean, metric, runs) if summary else ""


def count_cell(n: int, dirty: bool) -> str:
    """`3`, with a dagger when a run was made with uncommitted changes; empty without a run."""
    return f"{n}{' †' if dirty else ''}" if n else ""


def runs_cell(runs: Runs, results: Results) -> str:
    """`count_cell` of the runs of a config."""
    return count_cell(len(results.of(runs)), results.dirty(runs))


def difference_cell(comparison: Comparison | None, metric: str, *runs: Runs) -> str:
    """`−.0027 [−.0060, +.0005] **equal**`; empty without a comparison."""
    if comparison is None:
        return ""
    interval = f" [{', '.join(signed(end) for end in comparison.interval)}]" if comparison.interval else ""
    text = f"{signed(comparison.difference)}{interval} **{comparison.verdict}**"
    return Entry(text, comparison.difference, metric, *runs)


class Entry(str):
    """A cell's text that also knows the number it shows, its metric and the runs behind it.

    The metric is `<split>/<metric>`, or empty for a number that is not of the end of the runs.
    """

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
    number = hardware.get("threads")
    threads = f"{number} thread{'s' * (number > 1)}" if number else ""
    library = hardware.get("matrix_products", "MKL")
    products = f"products by {library}" if library != "MKL" else ""
    emulated = "bfloat16 emulated" if hardware.get("bfloat16_emulated") else ""
    words = hardware.get("cpu") or hardware.get("device"), hardware.get("instructions"), threads
    return ", ".join(filter(None, (*words, products, emulated)))


def minutes_cell(records: list[Record]) -> str:
    """`2.6 – 158.2`: the shortest and the longest run; empty without one."""
    minutes = [f"{seconds / 60:.1f}" for seconds in sorted(record.total_seconds for record in records)]
    return " – ".join(dict.fromkeys((minutes[0], minutes[-1]))) if minutes else ""


def provenance(runs: list[Runs], results: Results) -> list[str]:
    """The block that leads from a row to its runs."""
    rows = []
    for run in runs:
        records = results.of(run)
        if not records:
            continue
        commits = dict.fromkeys(
            f"{(record.git_commit or 'unknown')[:8]}{' †' if record.git_dirty else ''}" for record in records
        )
        rows.append([
            f"[{run.config_name}](../runs/{run.experiment}/{run.config_name}/)",
            ", ".join(str(record.seed) for record in records),
            minutes_cell(records),
            "; ".join(dict.fromkeys(in_words(record.hardware) for record in records)),
            ", ".join(commits),
            ", ".join(dict.fromkeys(record.versions.get("torch", "unknown").split("+")[0] for record in records)),
        ])  # fmt: skip
    if not rows:
        return []
    block = ["## Runs", MarkdownTable(["config", "seeds", "minutes a run", "hardware", "code", "torch"], rows)]
    if any(results.dirty(run) for run in runs):
        block.append(DAGGER)
    return block


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

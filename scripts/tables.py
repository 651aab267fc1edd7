"""Renders every table from the records of finished runs and other people's numbers.

    python scripts/tables.py            write results/tables/<name>.md and .csv, and the tables inside pages
    python scripts/tables.py --check    write nothing, fail when one of them is not what would be written
    python scripts/tables.py --latex paper/tables    write them as LaTeX, there

Reads `results/runs/`, `results/references.yaml`, `results/parity_golden.json` and, for what an ablation switches, the
YAML files of its configs, nothing else. The same files always give the same bytes. README.md, results/README.md and
results/choices.md hold a table's short form between `<!-- table:<name> -->` and `<!-- /table -->`.

What a table holds stands in `scripts/contents/`, verdicts are defined in `scripts/comparison.py`, renderers in
`scripts/rendering/`.
"""

import argparse
import csv
import io
import re
import sys
from pathlib import Path

from experiments import PROJECT
from experiments.errors import UserError, reported
from scripts.comparison import MARGIN
from scripts.contents import TABLES
from scripts.records import write_result
from scripts.rendering import latex
from scripts.rendering.results import Results


def render_table(name: str, results: Results) -> tuple[str, str, str]:
    """(Markdown, CSV, short Markdown) of one table."""
    table = TABLES[name]
    rendered = table.render(table, results)
    count = sum(len(results.of(runs)) for runs in table.runs())
    header = "Rendered by `python scripts/tables.py`"
    if table.runs():
        header += (
            f" from {count} {'record' if count == 1 else 'records'} of finished runs, equivalence margin {MARGIN}; "
            f"`python scripts/reproduce.py --tables {name}` trains what is missing"
        )
    header += "."
    text = "\n\n".join([f"# {table.title}", header, table.reading, *rendered.blocks]) + "\n"
    buffer = io.StringIO()
    if rendered.values:
        writer = csv.DictWriter(buffer, rendered.values[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rendered.values)
    return text, buffer.getvalue(), rendered.short


def render_all(folder: Path) -> dict[Path, str]:
    """Content of every file that tables.py writes: in `folder`, results/, and what pages ask for by markers."""
    results = Results(folder)
    files, short = {}, {}
    for name in TABLES:
        text, values, short[name] = render_table(name, results)
        files[folder / "tables" / f"{name}.md"] = text
        if values:
            files[folder / "tables" / f"{name}.csv"] = values
    for page in (folder.resolve().parent / "README.md", folder / "README.md", folder / "choices.md"):
        if page.exists() and "<!-- table:" in (text := page.read_text(encoding="utf-8")):
            files[page] = filled(page, text, short)
    return files


def filled(page: Path, text: str, short: dict[str, str]) -> str:
    """The text of a page with the tables between its markers; UserError for a marker that is wrong."""

    def fill(match: re.Match) -> str:
        name = match["name"]
        if name not in short:
            raise UserError(f"{page} asks for the table {name!r}, there are: {', '.join(short)}")
        return f"<!-- table:{name} -->\n\n{short[name]}\n\n<!-- /table -->"

    block = r"<!-- table:(?P<name>\w+) -->(?:(?!<!-- table:).)*?<!-- /table -->"
    after, found = re.subn(block, fill, text, flags=re.DOTALL)
    if found != text.count("<!-- table:"):
        raise UserError(f"{page} has a table that does not end: write <!-- /table --> behind each")
    return after


def render_latex(results: Path, folder: Path) -> dict[Path, str]:
    """Every table as a file of LaTeX below `folder`."""
    found = Results(results)
    return {
        folder / f"{name}.tex": latex.floats(name, table.title, table.render(table, found).blocks)
        for name, table in TABLES.items()
    }


def out_of_date(files: dict[Path, str]) -> list[Path]:
    return [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render every table from the recorded runs.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 1 when a table or the README is out of date"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=PROJECT / "results",
        help="folder with runs/ and references.yaml, beside a README (default: results)",
    )
    parser.add_argument("--latex", type=Path, metavar="FOLDER", help="write <name>.tex into this folder, nothing else")
    options = parser.parse_args(arguments)
    files = render_latex(options.results, options.latex) if options.latex else render_all(options.results)
    changed = out_of_date(files)
    if not options.check:
        for path in changed:
            write_result(path, files[path].encode())
    if options.check:
        if changed:
            names = ", ".join(path.name for path in changed)
            print(f"out of date: {names}; run `python scripts/tables.py` and commit what it writes", file=sys.stderr)
        return 1 if changed else 0
    print(f"{len(files)} files, {len(changed)} changed, in {options.latex or options.results / 'tables'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

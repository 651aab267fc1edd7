"""Renders one page that shows all results: results/report/index.html.

    python scripts/report.py            write it
    python scripts/report.py --check    write nothing, fail when it is not what would be written

The page reads nothing when it is opened: style, scripts and data are inside. It is made from what is committed below
results/, with every table of `scripts/contents/`; the same files always give the same bytes. `scripts/report/` holds
the template.
"""

import argparse
import base64
import re
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from experiments import PROJECT
from experiments.drawing import canvas
from experiments.drawing.figures_stays import TIME_COLOURS
from experiments.drawing.trained_map import ARRAYS, opened
from experiments.drawing.trajectories import TRAJECTORIES
from experiments.errors import UserError, reported
from scripts.contents import TABLES
from scripts.records import Record, flatten, read_json, write_result
from scripts.rendering import charts
from scripts.rendering.cells import Entry, MarkdownTable, in_words
from scripts.rendering.curves import METRICS, ORIGINAL, Curve, faithful_curves, original_curve, over_seeds, phase_starts
from scripts.rendering.measurements import speed_table
from scripts.rendering.metrics import CLUSTERING, TOPOLOGY, heading
from scripts.rendering.results import Results

import jinja2
import matplotlib
import numpy as np
from markdown import markdown
from markupsafe import Markup
from matplotlib.colors import to_hex

TEMPLATES = Path(__file__).with_name("report")
SCRIPTS = ("report.js", "units.js", "map.js", "trajectories.js")
PAGE = Path("report") / "index.html"
CURVES = {
    key: (CLUSTERING | TOPOLOGY)[key] for key in ("nmi_geometric", "purity", "quantization_error", "topographic_error")
} | {"unit_changes": "changes of the unit from hour to hour"}
SPLITS = ("validation", "test")
SHOWN_FIRST = ("dpsom/mnist", "tdpsom/physionet2012")  # of the trained maps, and of those with ways over them
NUMBER = re.compile(r"[−+]?(\d[\d,]*)?\.?\d+(e[-+]\d+)?%?")


def inline(text: str) -> Markup:
    """Markdown without the paragraph around it; of HTML only the tables' own <sup> and <br>; names may break at _."""
    html = markdown(re.sub(r"<(?!/?(sup|br)>)", "&lt;", text)).removeprefix("<p>").removesuffix("</p>")
    return Markup(re.sub(r"<code>.*?</code>", lambda code: code[0].replace("_", "_<wbr>"), html))


# --------------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Cell:
    """`number` and `rest` are the two parts of a cell that begins with a number; `value` is what it is sorted by."""

    text: Markup
    number: str | None
    rest: Markup
    value: float | None
    entry: Entry | None


@dataclass(frozen=True)
class Column:
    """`width` is the room, in characters, that the part behind a number needs at most."""

    heading: Markup
    numeric: bool
    width: int


def cell(text: str) -> Cell:
    entry = text if isinstance(text, Entry) else None
    found = NUMBER.match(text) if entry else NUMBER.fullmatch(text.removesuffix(" †"))
    if found is None:
        return Cell(inline(text), None, Markup(), None, entry)
    value = entry.value if entry else float(re.sub("[,%]", "", found[0]).replace("−", "-"))
    rest = text[found.end() :]
    return Cell(inline(text), found[0], Markup(" " if rest.startswith(" ") else "") + inline(rest), value, entry)


def block(content: str) -> dict:
    """A heading, a table or a text, as the template wants it."""
    if content.startswith("## "):
        return {"heading": content.removeprefix("## ")}
    if not isinstance(content, MarkdownTable):
        return {"text": Markup(markdown(content))}
    rows = [[cell(text) for text in row] for row in content.rows]
    columns = []
    for index, title in enumerate(content.head):
        cells = [row[index] for row in rows if row[index].text]
        numeric = bool(cells) and all(one.number is not None for one in cells)
        columns.append(Column(inline(title), numeric, max((len(one.rest.striptags()) for one in cells), default=0)))
    return {"columns": columns, "rows": rows}


def table(name: str, results: Results, folder: Path) -> dict:
    """One table of `scripts/contents/` with how many of the runs it asks for are recorded."""
    asked = TABLES[name]
    files = [f"{name}.{ending}" for ending in ("csv", "md") if (folder / "tables" / f"{name}.{ending}").exists()]
    return {
        "name": name,
        "title": asked.title,
        "reading": inline(asked.reading),
        "recorded": sum(len(results.of(runs)) for runs in asked.runs()),
        "wanted": sum(max(runs.stages[-1][0], len(results.of(runs))) for runs in asked.runs()),
        "files": files,
        "blocks": [block(content) for content in asked.render(asked, results).blocks],
    }


# --------------------------------------------------------------------------------------------------------------- curves


def learning_curves(records: dict[str, list[Record]]) -> list[dict]:
    """By metric, the charts of all configs whose records hold it."""
    found = []
    for metric, title in CURVES.items():
        panels = []
        for key, same in records.items():
            curves = [record.curve for record in same if record.curve]
            if not curves:
                continue
            starts, _ = phase_starts(curves)
            label = first_label(curves[0], metric)
            column = metric + f"_{label}" * bool(label)
            series = {split: over_seeds(curves, f"{split}/{column}", starts) for split in SPLITS}
            if chart := charts.draw(series, starts):
                panels.append({"key": key, "seeds": len(curves), "label": label, "chart": chart})
        if panels:
            drawn = {line.name for panel in panels for line in panel["chart"].lines}
            splits = [split for split in SPLITS if split in drawn]
            found.append({"metric": metric, "title": title, "splits": splits, "panels": panels})
    return found


def first_label(curve: Curve, metric: str) -> str:
    """The first of the labels that hours have, where the curve holds the NMI with several; else nothing."""
    start = f"validation/{metric}_"
    names = [name for row in curve for name in row if metric == "nmi_geometric" and name.startswith(start)]
    return names[0].removeprefix(start) if names else ""


def beside_the_original(folder: Path, records: dict[str, list[Record]]) -> dict | None:
    """The original's curve with that of our faithful runs, and the difference where both are; None without a curve."""
    original = original_curve(folder / ORIGINAL)
    if original is None:
        return None
    curves = faithful_curves(chain.from_iterable(records.values()))
    starts, note = phase_starts([original, *curves])
    panels = []
    for metric in METRICS.values():
        theirs = over_seeds([original], metric, starts)
        ours = over_seeds(curves, metric, starts) if curves else {}
        series = {"faithful": ours, "TensorFlow": theirs}
        panels.append({"title": heading(metric), "chart": charts.draw(series, starts)})
        difference = {e: [value - theirs[e][0] for value in ours[e]] for e in ours if e in theirs}
        if difference:
            chart = charts.draw({"difference": difference}, starts)
            panels.append({"title": f"{heading(metric)}: faithful − TensorFlow", "chart": chart})
    return {"seeds": len(curves), "note": note, "panels": panels}


# ----------------------------------------------------------------------------------------------------- maps, provenance


def archives(folder: Path, name: str, order: list[str]) -> list[dict]:
    """The files called `name` of all maps below `folder`, those of the tables first."""
    found = []
    for path in sorted((folder / "maps").glob(f"*/*/{name}")):
        with opened(path) as arrays:
            rows, columns = arrays["map_size"].tolist()
        key = "/".join(path.parts[-3:-1])
        content = base64.b64encode(path.read_bytes()).decode()
        found.append({"key": key, "title": f"{key}, {rows} × {columns} units", "content": content})
    places = {key: place for place, key in enumerate(order)}
    return sorted(found, key=lambda one: (places.get(one["key"], len(places)), one["key"]))


def colours() -> dict[str, list[str]]:
    """Those of the figures: a scale for numbers, another for time, and one colour for each class."""
    scale = matplotlib.colormaps[canvas.COLOUR_MAP](np.linspace(0, 1, 32))
    time = matplotlib.colormaps[TIME_COLOURS](np.linspace(0, 0.9, 16))
    return {
        "scale": [to_hex(one) for one in scale],
        "time": [to_hex(one) for one in time],
        "classes": [to_hex(one) for one in canvas.COLOURS],
    }


def record_link(record: Record) -> str:
    """As seen from the page."""
    return f"../runs/{record.experiment}/{record.config_name}/{record.seed}.json"


def run_data(record: Record) -> dict:
    """What the page tells about a run behind a cell."""
    return {
        "seed": record.seed,
        "file": record_link(record),
        "minutes": f"{record.total_seconds / 60:.1f}",
        "hardware": in_words(record.hardware),
        "commit": (record.git_commit or "unknown")[:8] + (" †" if record.git_dirty else ""),
        "metrics": record.metrics,
    }


def counted(values: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each distinct value once, with the number of times it occurs."""
    return [(*value, count) for value, count in Counter(values).items()]


def provenance(records: list[Record], results: Results) -> dict:
    golden = results.golden or {}
    return {
        "commits": counted(
            [(record.git_commit or "unknown", "yes" if record.git_dirty else "no") for record in records]
        ),
        "versions": counted([(", ".join(f"{k} {v}" for k, v in record.versions.items()),) for record in records]),
        "data": counted([(record.config.get("data", {}).get("name", ""), record.data_checksum) for record in records]),
        "golden": list(golden.get("fixtures", {}).items()),
        "golden_commit": golden.get("git_commit"),
    }


def speed(folder: Path) -> dict | None:
    """The table of `scripts/benchmark.py`, None before it ran."""
    path = folder / "speed.json"
    if not path.exists():
        return None
    content = read_json(path)
    try:
        return {"block": block(speed_table(content["results"]))}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a benchmark ({error!r}): run scripts/benchmark.py again") from error


# ----------------------------------------------------------------------------------------------------------------- page


def render(folder: Path) -> str:
    """The page of the results below `folder`."""
    results = Results(folder)
    order = list(dict.fromkeys(runs.key for asked in TABLES.values() for runs in asked.runs()))
    by_key = {f"{experiment}/{name}": same for (experiment, name), same in results.records.items()}
    by_key = {key: by_key[key] for key in [*(key for key in order if key in by_key), *sorted(set(by_key) - set(order))]}
    every = [record for same in by_key.values() for record in same]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment.get_template("template.html").render(
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup((TEMPLATES / name).read_text(encoding="utf-8")) for name in SCRIPTS],
        tables=[table(name, results, folder) for name in TABLES],
        records=by_key,
        number=len(every),
        runs={key: [run_data(record) for record in same] for key, same in by_key.items()},
        configs={key: flatten(same[0].config) for key, same in by_key.items()},
        metrics={f"{split}/{name}": heading(f"{split}/{name}") for split in SPLITS for name in CLUSTERING | TOPOLOGY},
        curves=learning_curves(by_key),
        original=beside_the_original(folder, by_key),
        maps=archives(folder, ARRAYS, order),
        trajectories=archives(folder, TRAJECTORIES, order),
        shown_first=SHOWN_FIRST,
        colours=colours(),
        speed=speed(folder),
        provenance=provenance(every, results),
        frame=charts,
    )


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=PROJECT / "results", help="folder of the records")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when it is out of date")
    options = parser.parse_args(arguments)
    path = options.results / PAGE
    content = render(options.results).encode()
    same = path.exists() and path.read_bytes() == content
    if not (same or options.check):
        write_result(path, content)
    if options.check:
        if not same:
            print(f"out of date: {path.name}; run `make report` and commit what it writes", file=sys.stderr)
        return 0 if same else 1
    print(f"{path} ({len(content) / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

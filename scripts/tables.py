"""Renders every table from the records of finished runs and other people's numbers.

    python scripts/tables.py            write results/tables/<name>.md and .csv, and the tables of README.md
    python scripts/tables.py --check    write nothing, fail when one of them is not what would be written
    python scripts/tables.py --latex paper/tables    write them as LaTeX, there

Reads `results/runs/`, `results/references.yaml`, `results/parity_golden.json` and, for what an ablation switches, the
YAML files of its configs, nothing else. The same files always give the same bytes. README.md holds a table's short form
between `<!-- table:<name> -->` and `<!-- /table -->`. Verdicts are defined in `scripts/comparison.py`, renderers
in `scripts/rendering/`.

A table is an entry of TABLES: a title, how to read it, a renderer, and rows that name configs. A new model adds rows or
an entry.
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
from scripts.records import write_result
from scripts.rendering import latex
from scripts.rendering.ablation import render_ablation
from scripts.rendering.measurements import render_golden
from scripts.rendering.metrics import CLUSTERING, SECONDS, TOPOLOGY, render_columns, render_metrics
from scripts.rendering.parity import render_parity
from scripts.rendering.results import ParityRow, Results, Row, Runs, Table, beside
from scripts.rendering.stacks import render_stacks
from scripts.rendering.stays import render_stays


def dpsom(config_name: str, stages: tuple[tuple[int, int], ...], minutes: float) -> Runs:
    return Runs("dpsom", config_name, stages, minutes)


# (seeds, order) of training: 1 to 4 are DPSOM beside published numbers, 5 is most rows, 9 what can wait
CORRECTED, FAITHFUL, CONV, CONV_FAITHFUL = ((5, 1),), ((3, 2), (5, 9)), ((1, 3), (5, 9)), ((5, 9),)
CHEAP, HEAVY = ((5, 5),), ((3, 5), (5, 9))
DPSOM = {
    "mnist": dpsom("mnist", CORRECTED, 55),
    "fmnist": dpsom("fmnist", CORRECTED, 55),
    "mnist_full_covariance": dpsom("mnist_full_covariance", FAITHFUL, 140),
    "fmnist_full_covariance": dpsom("fmnist_full_covariance", FAITHFUL, 140),
    "mnist_elbo": dpsom("mnist_elbo", ((5, 9),), 55),
    "fmnist_elbo": dpsom("fmnist_elbo", ((5, 9),), 55),
    "mnist_faithful": dpsom("mnist_faithful", FAITHFUL, 160),
    "mnist_faithful_104": dpsom("mnist_faithful_104", ((1, 2),), 60),
    "fmnist_faithful": dpsom("fmnist_faithful", FAITHFUL, 160),
    "mnist_conv": dpsom("mnist_conv", CONV, 165),
    "fmnist_conv": dpsom("fmnist_conv", CONV, 165),
    "mnist_conv_faithful": dpsom("mnist_conv_faithful", CONV_FAITHFUL, 342),
    "fmnist_conv_faithful": dpsom("fmnist_conv_faithful", CONV_FAITHFUL, 342),
}
PARITY_COLUMNS = {"faithful": "_faithful", "full covariance": "_full_covariance", "corrected": ""}
SHORT = dpsom("short", ((3, 6),), 9)
ABLATIONS = (
    "prior", "posterior", "normalization", "dropout", "logits", "assignment", "target", "order", "scaling",
    "shared_adam", "decay", "precision",
)  # fmt: skip
VALIDATION = {"validation/nmi_geometric": "NMI (geometric), validation", "validation/purity": "purity, validation"}
VERDICTS = (
    f"**equal**: within ±{MARGIN} by two one-sided tests at 5 %; **better**, **worse**: not equal and the interval "
    "excludes zero; **undecided**: neither, or a single run of ours. Verdicts are not adjusted for their number."
)
AGAINST_PUBLISHED = (
    "Our ± is the standard error over n seeds. Intervals are Welch's at 95 %, a published number without a spread "
    f"counting as a constant; {VERDICTS} An empty cell has not been run."
)
DIFFERENCES = (
    f"A difference is the row's mean minus the base's with Welch's 95 % confidence interval; {VERDICTS} ± is the "
    "standard error over n seeds; minutes are one run's, the shortest's and the longest's."
)
RATES = (
    "*Original's rates*: SOM-VAE's learning rate falls by a tenth every 500 batches, as in its code, all in fp32; "
    "*ours* starts twice as high and falls a fourth as fast, in bfloat16 but for GB-SOM."
)

TOPOGRAPHY = {
    "square": "points of a square",
    "digits": "digits",
    "mnist": "MNIST",
    "fmnist": "Fashion-MNIST",
    "digits_latents": "latents of digits",
    "digits_latents_minisom": "latents of digits, MiniSom",
    "mnist_latents": "latents of MNIST",
    "mnist_latents_minisom": "latents of MNIST, MiniSom",
    "as_posted": "digits, 20 × 20, as posted",
    "as_posted_long": "the same, ten times as long",
    "as_posted_corrected": "the same map, σ shrinks, Adam",
}

IMAGES = {"mnist": "MNIST", "fmnist": "Fashion-MNIST"}
TABLE_1 = {  # row of SOM-VAE's table 1: label, experiment, ending of the config's name, stages, minutes on two cores
    "kmeans": ("k-means", "baselines", "_kmeans", CHEAP, 1),
    "minisom": ("MiniSom", "baselines", "_minisom", CHEAP, 1),
    "gbsom": ("GB-SOM", "somvae", "_gbsom", CHEAP, 2),
    "vqvae": ("VQ-VAE", "somvae", "_vqvae", HEAVY, 25),
    "no_grads": ("no_grads", "somvae", "_no_grads", HEAVY, 35),
    "gradcopy": ("gradcopy", "somvae", "_gradcopy", HEAVY, 40),
    "somvae": ("SOM-VAE", "somvae", "", HEAVY, 40),
}
CLUSTERS_64 = {  # as above, for K = 64; what this repository lacks has no experiment
    "kmeans": ("k-means", "baselines", "_kmeans_k64", CHEAP, 15),
    "minisom": ("MiniSom", "baselines", "_minisom_k64_narrow", CHEAP, 2),
    "desom": ("DESOM", None, "", (), 0),
    "idec": ("IDEC", None, "", (), 0),
    "somvae": ("SOM-VAE", "somvae", "_k64", ((1, 7), (5, 9)), 45),
    "dpsom": ("DPSOM, dense", "dpsom", "", CORRECTED, 55),
    "dpsom_conv": ("DPSOM, conv", "dpsom", "_conv", CONV, 165),
}


def by_rates(experiment: str, config_name: str, stages: tuple[tuple[int, int], ...], minutes: float) -> dict[str, Runs]:
    """Our runs by column; SOM-VAE's with the original's learning rates too."""
    ours = {"ours": Runs(experiment, config_name, stages, minutes)}
    if experiment != "somvae":
        return ours
    return {"original's rates": Runs(experiment, f"{config_name}_original_rates", ((5, 9),), minutes)} | ours


STAYS = {
    "all hours in one cluster": (None, "stays_baselines", "physionet2012_one_cluster", None, 1),
    "k-means of the raw hours": ("kmeans", "stays_baselines", "physionet2012_kmeans", "eicu_kmeans", 5),
    "SOM-VAE": ("somvae", "stays_baselines", "physionet2012_somvae", "eicu_somvae", 10),
    "SOM-VAE-prob": ("somvae_prob", "stays_baselines", "physionet2012_somvae_prob", "eicu_somvae_prob", 12),
    "DPSOM without time": (None, "tdpsom", "no_smoothness", None, 20),
    "T-DPSOM without forecast": (None, "tdpsom", "no_prediction", None, 20),
    "T-DPSOM": ("tdpsom", "tdpsom", "physionet2012", "eicu", 25),
    "T-DPSOM, the paper's weight of the KL (12 joint epochs, not 6)": (None, "tdpsom", "small_prior", None, 35),
    "the same, 100 latents (6 joint epochs)": (None, "tdpsom", "forecast", None, 25),
    "T-DPSOM, faithful": (None, "tdpsom", "physionet2012_faithful", "eicu_faithful", 240),
}
ORIGINAL_SERIES = {  # as in TABLE_1, for sequences
    "mnist": (
        ("SOM-VAE, original's rates", "somvae", "_no_transitions_original_rates", ((5, 9),), 200),
        ("SOM-VAE-prob, original's rates", "somvae", "_original_rates", ((5, 9),), 170),
    )
}
SINGLE_STAYS = {"physionet2012_one_cluster": ((1, 4),), "physionet2012_faithful": ((1, 9),)}
NOBODY_HAS_THE_DATA = ((0, 9),)  # reproduce.py leaves eICU's runs to those who do

TPAE = {
    "as_published": ("the public code's losses, five blocks, native", 25),
    "native": ("three blocks, native sampling", 15),
    "downsampled": ("three blocks, downsampled", 8),
    "no_topology": ("downsampled, without the topology loss", 6),
    "no_diversity": ("downsampled, without the diversity loss", 6),
    "one_block": ("downsampled, one block", 2),
    "five_blocks": ("downsampled, five blocks", 9),
    "plain_cnn": ("a residual CNN of the size of three blocks, no maps", 15),
    "best_cpu": ("downsampled, one block, residual encoder, 45,000 pictures, 30 joint epochs", 90),
    "best_cpu_no_topology": ("the same, without the topology loss, in fp32", 126),
}

TABLES: dict[str, Table] = {
    "dpsom_parity": Table(
        title="DPSOM: parity with TensorFlow and with the Torch port",
        reading=(
            "Each published number stands beside our runs on the *same* split: TensorFlow's was measured on the "
            "validation split, the Torch port's on the test images. *Faithful* computes what the original code "
            "computes, *corrected* is this project's default, *full covariance* is that with the original's posterior, "
            "3.5 times as large. Every map has K = 64 units, every NMI is the geometric one. "
            f"{AGAINST_PUBLISHED}"
        ),
        render=render_parity,
        labels=("data", "network"),
        metrics={"nmi_geometric": "NMI", "purity": "purity"},
        rows=tuple(
            ParityRow(
                labels=(title, network),
                references={"model": "dpsom", "data": data, "network": network},
                runs={
                    column: DPSOM[f"{data}{suffix}{ending}"]
                    for column, ending in PARITY_COLUMNS.items()
                    if f"{data}{suffix}{ending}" in DPSOM
                },
            )
            for data, title in IMAGES.items()
            for network, suffix in (("dense", ""), ("conv", "_conv"))
        ),
    ),
    "dpsom_metrics": Table(
        title="DPSOM: all metrics",
        reading=(
            "Mean ± standard error over n seeds on the test images; the CSV file has the validation split too. The "
            "topographic error counts a second winner outside the 8 (or 4) units around the first. Faithful rows "
            "measure a sample of each image's posterior, the others its mean, which lies nearer to its unit. An empty "
            "cell has not been run."
        ),
        render=render_metrics,
        labels=("config",),
        rows=tuple(Row((f"`{runs.config_name}`",), runs) for runs in (*DPSOM.values(), SHORT)),
    ),
    "dpsom_ablation": Table(
        title="DPSOM: what each switch is worth",
        reading=(
            "MNIST, dense, a shorter schedule; each row switches one thing of the base, `configs/dpsom/short.yaml`, "
            "which is `mnist_elbo` shortened, not the default: its high NMI comes with units that fall out of use. "
            f"Choices are made on the validation split, which is what this table shows. {DIFFERENCES} What is switched "
            "is read from the recorded configs, an old value only where the base's code had the key. An empty cell has "
            "not been run."
        ),
        render=render_ablation,
        metrics=VALIDATION,
        rows=beside(SHORT, *(dpsom(f"ablation_{name}", ((3, 6),), 9) for name in ABLATIONS)),
    ),
    "dpsom_precision": Table(
        title="DPSOM: bf16 against fp32",
        reading=f"MNIST, dense, full length; only the precision differs. {DIFFERENCES} An empty cell has not been run.",
        render=render_ablation,
        metrics=VALIDATION | {"test/nmi_geometric": "NMI (geometric), test", "test/purity": "purity, test"},
        rows=beside(DPSOM["mnist"], dpsom("mnist_fp32", ((3, 4),), 160)),
    ),
    "somvae_table1": Table(
        title="SOM-VAE: table 1, static images, K = 16",
        reading=(
            "The paper's table 1 beside our runs, on the split that its code evaluates: the last 10,000 of MNIST's "
            "training images, our validation split, which chose our learning rate, too. NMI with both averages: the "
            "paper's is the arithmetic one. Our convolutional networks train for 8 epochs, the paper's for 20. "
            f"{RATES} {AGAINST_PUBLISHED}"
        ),
        render=render_parity,
        labels=("data", "method"),
        metrics={"purity": "purity", "nmi_arithmetic": "NMI (arithmetic)", "nmi_geometric": "NMI (geometric)"},
        rows=tuple(
            ParityRow(
                labels=(title, label),
                references={"source": "somvae_paper", "model": model, "data": data},
                runs=by_rates(experiment, f"{data}{ending}", stages, minutes),
                split="validation",
            )
            for data, title in IMAGES.items()
            for model, (label, experiment, ending, stages, minutes) in TABLE_1.items()
        ),
    ),
    "somvae_precision": Table(
        title="SOM-VAE: bf16 against fp32",
        reading=(
            "Static images, K = 16; only the precision differs. Minutes are of different processors: `make bench` "
            f"compares the speed of both precisions on one. {DIFFERENCES} An empty cell has not been run."
        ),
        render=render_ablation,
        metrics={
            "validation/nmi_arithmetic": "NMI (arithmetic), validation",
            "validation/purity": "purity, validation",
            "test/nmi_arithmetic": "NMI (arithmetic), test",
            "test/purity": "purity, test",
        },
        rows=tuple(
            row
            for _, experiment, ending, stages, minutes in (TABLE_1["somvae"], TABLE_1["vqvae"])
            for name in (f"{data}{ending}" for data in IMAGES)
            for row in beside(
                Runs(experiment, name, stages, minutes), Runs(experiment, f"{name}_fp32", ((1, 5), (3, 9)), 75)
            )
        ),
    ),
    "somvae_series": Table(
        title="SOM-VAE in time: sequences in which one image fades into another",
        reading=(
            "300 held-out sequences of 32 frames made of test images, K = 64; the label of a frame is the class of the "
            "image that it shows more of. SOM-VAE-prob learns its transitions with the map (`transition_nll`); the "
            "counted table is the most likely one for 1,406 training sequences, an epoch's, given the units they win, "
            "with one pseudo-count a row; k-means is fitted to the frames of these. Our networks train for 8 epochs, "
            "the paper's for 20. The paper claims that both tables predict equally well. Nats a step; the lower the "
            "better, but comparable between the two tables of one row only: other maps have other units to predict. "
            f"{RATES} An empty cell has not been run."
        ),
        render=render_columns,
        labels=("data", "method"),
        metrics={
            "test_series/nmi_arithmetic": "NMI (arithmetic)",
            "test_series/purity": "purity",
            "test_series/reconstruction_error": "reconstruction error",
            "test_series/transition_nll": "NLL of learned transitions",
            "test_series/counted_transition_nll": "NLL of counted transitions",
        },
        rows=tuple(
            Row((title, label), Runs(experiment, f"{data}_series{ending}", stages, minutes))
            for data, title in IMAGES.items()
            for label, experiment, ending, stages, minutes in (
                ("k-means", "baselines", "_kmeans", CHEAP, 2),
                ("SOM-VAE", "somvae", "_no_transitions", HEAVY, 100),
                ("SOM-VAE-prob", "somvae", "", HEAVY, 85),
                *ORIGINAL_SERIES.get(data, ()),
            )
        ),
    ),
    "lorenz": Table(
        title="SOM-VAE on Lorenz' attractor",
        reading=(
            "Trajectories of the Lorenz system, K = 64; the label of a point is its wing, so that more than one bit is "
            "not to be had and NMI stays far from 1. The experiment is this project's own: SOM-VAE's public code has "
            "none, so number, length, step and noise of the trajectories are stated in the configs. Errors are in "
            "standard deviations squared. Transitions as in the table of sequences. An empty cell has not been run."
        ),
        render=render_columns,
        labels=("method",),
        metrics={
            "test/nmi_arithmetic_wing": "NMI (arithmetic)",
            "test/purity_wing": "purity",
            "test/reconstruction_error": "reconstruction error",
            "test/topographic_error": "topographic error",
            "test/transition_nll": "NLL of learned transitions",
            "test/counted_transition_nll": "NLL of counted transitions",
        },
        rows=tuple(
            Row((label,), Runs("stays_baselines", f"lorenz_{name}", ((5, 5),), 1))
            for label, name in (("k-means", "kmeans"), ("SOM-VAE", "somvae"), ("SOM-VAE-prob", "somvae_prob"))
        ),
    ),
    "clustering_k64": Table(
        title="All models beside each other, K = 64",
        reading=(
            "Clustering of the test images by 64 units, and the numbers that DPSOM's paper gives. NMI is the geometric "
            "one. Every method sees the same pixels and splits as DPSOM; SOM-VAE trains for 8 epochs, not 20. "
            f"{RATES} DESOM and IDEC are not part of this repository. Intervals and verdicts as in the table of "
            "DPSOM's parity. An empty cell has not been run."
        ),
        render=render_parity,
        labels=("data", "method"),
        metrics={"nmi_geometric": "NMI", "purity": "purity"},
        rows=tuple(
            ParityRow(
                labels=(title, label),
                references={"source": "dpsom_paper", "model": model, "data": data},
                runs=by_rates(experiment, f"{data}{ending}", stages, minutes) if experiment else {},
            )
            for data, title in IMAGES.items()
            for model, (label, experiment, ending, stages, minutes) in CLUSTERS_64.items()
        ),
    ),
    "tdpsom": Table(
        title="T-DPSOM: clusters and forecasts of patients' hours",
        reading=(
            "Every hour of every stay is one point; K = 256 clusters. On PhysioNet 2012 the label is the worst "
            "organ-failure score of the coming 1, 6, 12 and 24 hours, the present one being the first; it is made of "
            "the same variables that the models see. NMI is the geometric one unless the heading says otherwise. "
            "Purity of death: share of hours whose stay ends as most hours of their cluster do. Changes an hour: how "
            "often the cluster changes from one hour to the next. The forecast runs freely over the last six hours of "
            "a stay; persistence repeats the last known hour; the gain is persistence's error of the measured values "
            "minus the forecast's. Brackets hold 95 % intervals of a single run over bootstrapped stays, ± is the "
            "standard error over n seeds. An empty cell has not been run; eICU's wait for somebody with the data."
        ),
        render=render_stays,
        labels=("method",),
        rows=tuple(
            ParityRow(
                labels=(label,),
                references={"data": "eicu", "model": model},
                runs={"physionet2012": Runs(experiment, name, stages, minutes)}
                | ({"eicu": Runs(experiment, eicu, NOBODY_HAS_THE_DATA, minutes)} if eicu else {}),
            )
            for label, (model, experiment, name, eicu, minutes) in STAYS.items()
            for stages in [SINGLE_STAYS.get(name, ((1, 4), (3, 9)))]
        ),
    ),
    "topography": Table(
        title="Topography: a map trained by its loss",
        reading=(
            "Maps of the pixels themselves or of the 10 latents of a dense autoencoder, 8 × 8 units unless the row "
            "says otherwise. Seconds include the autoencoder's. Mean ± standard error over n seeds on the test images; "
            "the CSV file has the validation split too. The topographic error counts a second winner outside the 8 (or "
            "4) units around the first. The square's classes are its quadrants. An "
            "empty cell has not been run."
        ),
        render=render_metrics,
        labels=("config", "data and map"),
        metrics={
            key: (CLUSTERING | TOPOLOGY)[key]
            for key in ("quantization_error", "topographic_error", "topographic_error_4", "nmi_geometric", "purity")
        }
        | SECONDS,
        rows=tuple(
            Row((f"`{name}`", title), Runs("topography", name, ((5, 6),), 1)) for name, title in TOPOGRAPHY.items()
        )
        + tuple(
            Row(
                (f"`{name}_minisom_k64`", f"{TOPOGRAPHY[name]}, MiniSom"),
                Runs("baselines", f"{name}_minisom_k64", stages, minutes),
            )
            for name, stages, minutes in (
                ("square", ((5, 6),), 1),
                ("digits", ((5, 6),), 1),
                ("mnist", ((1, 6), (5, 9)), 6),
                ("fmnist", ((1, 6), (5, 9)), 6),
            )
        ),
    ),
    "tpae": Table(
        title="TPAE: stacked maps below a classifier",
        reading=(
            "**JPEG-recompressed** CIFAR-10, so no number here is one of CIFAR-10 itself. All rows but the last three "
            "have one short schedule: 20,000 training pictures, six passes through the whole network (of the public "
            "code and of the plain CNN: six epochs of their only phase). Means over n seeds (± standard error); "
            "metrics of maps block by block, on the test pictures. Training accuracy is taken on the first 10,000 "
            "training pictures, unaugmented. The reconstruction error is that of the last fusion decoder, which sees "
            "the picture itself; *map alone* is that of the last prototype decoder, which does not. The public “~97 % "
            "on CIFAR-10” is training accuracy: its code computes no other. An empty cell has not been run or does "
            "not exist."
        ),
        render=render_stacks,
        labels=("config", "what"),
        rows=(
            *(
                Row((f"`jpg_{name}`", what), Runs("tpae", f"jpg_{name}", ((1, 6), (3, 9)), minutes))
                for name, (what, minutes) in TPAE.items()
            ),
            Row(
                ("`jpg_best`", "`jpg_best_cpu`, 2.7 times as wide, 60 joint epochs: for a GPU"),
                Runs("tpae", "jpg_best", ((3, 9),), 1200),
            ),
        ),
    ),
    "parity_golden": Table(
        title="Parity with the originals' golden numbers",
        reading=(
            "The worst deviation of our faithful configurations from numbers that the unmodified TensorFlow code "
            "computed from the same weights, inputs and noise, and the tolerance that the parity tests allow. Read "
            "from the recorded comparison `results/parity_golden.json`."
        ),
        render=render_golden,
    ),
}


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
    """Content of every file that tables.py writes: in `folder`, results/, and a README beside it that has markers."""
    results, readme = Results(folder), folder.resolve().parent / "README.md"
    files, short = {}, {}
    for name in TABLES:
        text, values, short[name] = render_table(name, results)
        files[folder / "tables" / f"{name}.md"] = text
        if values:
            files[folder / "tables" / f"{name}.csv"] = values
    if readme.exists():
        before = readme.read_text(encoding="utf-8")

        def fill(match: re.Match) -> str:
            name = match["name"]
            if name not in short:
                raise UserError(f"{readme} asks for the table {name!r}, there are: {', '.join(short)}")
            return f"<!-- table:{name} -->\n\n{short[name]}\n\n<!-- /table -->"

        block = r"<!-- table:(?P<name>\w+) -->(?:(?!<!-- table:).)*?<!-- /table -->"
        after, filled = re.subn(block, fill, before, flags=re.DOTALL)
        if filled != before.count("<!-- table:"):
            raise UserError(f"{readme} has a table that does not end: write <!-- /table --> behind each")
        if filled:
            files[readme] = after
    return files


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

"""SOM-VAE: table 1, precision, sequences and Lorenz' attractor."""

from scripts.contents.shared import (
    AGAINST_PUBLISHED,
    CHEAP,
    CURVE_READING,
    DIFFERENCES,
    HEAVY,
    IMAGES,
    RATES,
    by_rates,
    method_rows,
)
from scripts.rendering.ablation import render_ablation
from scripts.rendering.epochs import render_epochs
from scripts.rendering.metrics import render_columns
from scripts.rendering.parity import render_parity
from scripts.rendering.results import Row, Runs, Table, beside

TABLE_1 = {  # row of SOM-VAE's table 1: label, experiment, ending of the config's name, stages, minutes on two cores
    "kmeans": ("k-means", "baselines", "_kmeans", CHEAP, 1),
    "minisom": ("MiniSom", "baselines", "_minisom", CHEAP, 1),
    "gbsom": ("GB-SOM", "somvae", "_gbsom", CHEAP, 2),
    "vqvae": ("VQ-VAE", "somvae", "_vqvae", HEAVY, 25),
    "no_grads": ("no_grads", "somvae", "_no_grads", HEAVY, 35),
    "gradcopy": ("gradcopy", "somvae", "_gradcopy", HEAVY, 40),
    "somvae": ("SOM-VAE", "somvae", "", HEAVY, 40),
}
ORIGINAL_SERIES = {  # as in TABLE_1, for sequences
    "mnist": (
        ("SOM-VAE, original's rates", "somvae", "_no_transitions_original_rates", ((5, 9),), 200),
        ("SOM-VAE-prob, original's rates", "somvae", "_original_rates", ((5, 9),), 170),
    )
}
VALIDATION = {"validation/nmi_arithmetic": "NMI (arithmetic), validation", "validation/purity": "purity, validation"}


def in_fp32(config_name: str) -> Runs:
    return Runs("somvae", f"{config_name}_fp32", ((1, 5), (3, 9)), 75)


TABLES = {
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
        rows=method_rows(TABLE_1, "somvae_paper", split="validation"),
    ),
    "somvae_epochs": Table(
        title="SOM-VAE: by the epoch",
        reading=f"Static images, K = 16: the validation split after so many epochs, {CURVE_READING}",
        render=render_epochs,
        labels=("config",),
        metrics=VALIDATION,
        rows=tuple(
            Row((f"`{runs.config_name}`",), runs)
            for data in IMAGES
            for method in ("somvae", "gradcopy", "vqvae")
            for _, experiment, ending, stages, minutes in (TABLE_1[method],)
            for runs in (
                *by_rates(experiment, f"{data}{ending}", stages, minutes).values(),
                *([in_fp32(f"{data}{ending}")] if method != "gradcopy" else []),
            )
        ),
        epochs=(1, 2, 4, 6, 8),
    ),
    "somvae_precision": Table(
        title="SOM-VAE: bf16 against fp32",
        reading=(
            "Static images, K = 16; only the precision differs. Minutes are of different processors: `make bench` "
            f"compares the speed of both precisions on one. {DIFFERENCES} An empty cell has not been run."
        ),
        render=render_ablation,
        metrics=VALIDATION | {"test/nmi_arithmetic": "NMI (arithmetic), test", "test/purity": "purity, test"},
        rows=tuple(
            row
            for _, experiment, ending, stages, minutes in (TABLE_1["somvae"], TABLE_1["vqvae"])
            for name in (f"{data}{ending}" for data in IMAGES)
            for row in beside(Runs(experiment, name, stages, minutes), in_fp32(name))
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
}

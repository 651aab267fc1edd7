"""DPSOM: parity, all metrics, ablation and precision."""

from scripts.contents.shared import AGAINST_PUBLISHED, CONV, CORRECTED, CURVE_READING, DIFFERENCES, IMAGES
from scripts.rendering.ablation import render_ablation
from scripts.rendering.epochs import render_epochs
from scripts.rendering.metrics import render_metrics
from scripts.rendering.parity import render_parity
from scripts.rendering.results import ParityRow, Row, Runs, Table, beside


def dpsom(config_name: str, stages: tuple[tuple[int, int], ...], minutes: float) -> Runs:
    return Runs("dpsom", config_name, stages, minutes)


FAITHFUL, CONV_FAITHFUL = ((3, 2), (5, 9)), ((5, 9),)
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
EVERY_CONFIG = tuple(Row((f"`{runs.config_name}`",), runs) for runs in (*DPSOM.values(), SHORT))
ABLATIONS = (
    "prior", "posterior", "normalization", "dropout", "logits", "assignment", "target", "order", "scaling",
    "shared_adam", "decay", "precision",
)  # fmt: skip
VALIDATION = {"validation/nmi_geometric": "NMI (geometric), validation", "validation/purity": "purity, validation"}

TABLES = {
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
        rows=EVERY_CONFIG,
    ),
    "dpsom_epochs": Table(
        title="DPSOM: by the epoch",
        reading=(
            f"The validation split after so many epochs of the joint phase, {CURVE_READING} Faithful rows measure a "
            "sample of each image's posterior, the others its mean."
        ),
        render=render_epochs,
        labels=("config",),
        metrics=VALIDATION,
        rows=EVERY_CONFIG,
        epochs=(5, 30, 60, 100, 200, 300),
    ),
    "dpsom_ablation": Table(
        title="DPSOM: what each switch is worth",
        reading=(
            "MNIST, dense, a shorter schedule; each row switches one thing of the base, `configs/dpsom/short.yaml`, "
            "which is `mnist_elbo` shortened, not the default: its high NMI comes with units that fall out of use, of "
            "which the last two columns tell, with the order of the map. Choices are made on the validation split, "
            f"which is what this table shows. {DIFFERENCES} What is switched is read from the recorded configs, an old "
            "value only where the base's code had the key. An empty cell has not been run."
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
}

"""All models of images beside each other."""

from scripts.contents.shared import CHEAP, CONV, CORRECTED, RATES, method_rows
from scripts.rendering.parity import render_parity
from scripts.rendering.results import Table

# label, experiment, ending of the config's name, stages, minutes on two cores; what this repository lacks has no
# experiment
CLUSTERS_64 = {
    "kmeans": ("k-means", "baselines", "_kmeans_k64", CHEAP, 15),
    "minisom": ("MiniSom", "baselines", "_minisom_k64_narrow", CHEAP, 2),
    "desom": ("DESOM", None, "", (), 0),
    "idec": ("IDEC", None, "", (), 0),
    "somvae": ("SOM-VAE", "somvae", "_k64", ((1, 7), (5, 9)), 45),
    "dpsom": ("DPSOM, dense", "dpsom", "", CORRECTED, 55),
    "dpsom_conv": ("DPSOM, conv", "dpsom", "_conv", CONV, 165),
}

TABLES = {
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
        rows=method_rows(CLUSTERS_64, "dpsom_paper"),
    ),
}

"""T-DPSOM and its baselines."""

from scripts.rendering.results import ParityRow, Runs, Table
from scripts.rendering.stays import render_stays

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
SINGLE_STAYS = {"physionet2012_one_cluster": ((1, 4),), "physionet2012_faithful": ((1, 9),)}
NOBODY_HAS_THE_DATA = ((0, 9),)  # reproduce.py leaves eICU's runs to those who do

TABLES = {
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
}

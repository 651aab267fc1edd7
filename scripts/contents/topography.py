"""The Topography layer."""

from scripts.rendering.metrics import CLUSTERING, SECONDS, TOPOLOGY, render_metrics
from scripts.rendering.results import Row, Runs, Table

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

TABLES = {
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
}

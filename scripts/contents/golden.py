"""The originals' golden numbers."""

from scripts.rendering.measurements import render_golden
from scripts.rendering.results import Table

TABLES = {
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

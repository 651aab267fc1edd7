"""What the tables of several models say or list: stages of seeds, sentences, data sets."""

from scripts.comparison import MARGIN
from scripts.rendering.results import ParityRow, Runs

CORRECTED, CONV = ((5, 1),), ((1, 3), (5, 9))
CHEAP, HEAVY = ((5, 5),), ((3, 5), (5, 9))

IMAGES = {"mnist": "MNIST", "fmnist": "Fashion-MNIST"}
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
CURVE_READING = (
    "mean ± standard error over n seeds; where only some of them were evaluated at an epoch, the cell has its own n. "
    "An empty cell has not been run or was not evaluated."
)
RATES = (
    "*Original's rates*: SOM-VAE's learning rate falls by a tenth every 500 batches, as in its code, all in fp32; "
    "*ours* starts twice as high and falls a fourth as fast, in bfloat16 but for GB-SOM."
)


def by_rates(experiment: str, config_name: str, stages: tuple[tuple[int, int], ...], minutes: float) -> dict[str, Runs]:
    """Our runs by column; SOM-VAE's with the original's learning rates too."""
    ours = {"ours": Runs(experiment, config_name, stages, minutes)}
    if experiment != "somvae":
        return ours
    return {"original's rates": Runs(experiment, f"{config_name}_original_rates", ((5, 9),), minutes)} | ours


def method_rows(methods: dict[str, tuple], source: str, split: str = "test") -> tuple[ParityRow, ...]:
    """A row for each method and data set beside the numbers of a source.

    methods: label, experiment (None: not ours), ending of the config's name, stages, minutes on two cores.
    """
    return tuple(
        ParityRow(
            labels=(title, label),
            references={"source": source, "model": model, "data": data},
            runs=by_rates(experiment, f"{data}{ending}", stages, minutes) if experiment else {},
            split=split,
        )
        for data, title in IMAGES.items()
        for model, (label, experiment, ending, stages, minutes) in methods.items()
    )

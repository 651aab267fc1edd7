"""The hourly grid: what is known of each channel at every hour of a stay."""

from experiments.errors import UserError
from scripts.eicu.constants import CHANNELS, CONSTANTS, MAXIMUM, MINIMUM, UNITS
from scripts.eicu.stages import Stages, quoted

import numpy as np

DIGITS = 6  # decimals kept in sums, which are then exact and do not depend on the order of the rows
LARGEST = 1e11  # no larger value can be summed so; it is no measurement either


def points_query(corrections: frozenset[str]) -> str:
    """One row for each measurement of a channel in a kept stay, `minute` counted from the start of the grid."""
    channels = ", ".join(
        f"({index}, {quoted(name)}, {low}, {high})"
        for index, (name, low, high) in enumerate(zip(CHANNELS, MINIMUM, MAXIMUM, strict=True))
    )
    start = "first_minute" if "grid" in corrections else "0"
    row = f'cohort.position, hours, "offset" - {start} AS minute, {{table}}.file_row_number AS source_row'
    parts = []
    for table in ("vitalPeriodic", "vitalAperiodic"):
        prefix, values = CONSTANTS["tables"][table]["prefix"], CONSTANTS["tables"][table]["values"]
        columns = {f'"{CHANNELS.index(prefix + column)}"': column for column in values if prefix + column in CHANNELS}
        selected = ", ".join(f"{column} AS {index}" for index, column in columns.items())
        parts.append(
            "SELECT position, hours, minute, source_row, channel::UTINYINT AS channel, value FROM ("
            f"SELECT {row.format(table=table)}, {selected} FROM {table} JOIN cohort USING (stay)) "
            f"UNPIVOT (value FOR channel IN ({', '.join(columns)}))"
        )
    parts.append(
        f"SELECT {row.format(table='lab')}, channel::UTINYINT AS channel, labresult AS value FROM lab "
        "JOIN cohort USING (stay) JOIN channels ON name = 'lab_' || labname WHERE labresult IS NOT NULL"
    )
    inside = "JOIN channels USING (channel) WHERE value BETWEEN low AND high" if "outliers" in corrections else ""
    return (
        f"WITH channels AS (SELECT channel::UTINYINT AS channel, name, low::DOUBLE AS low, high::DOUBLE AS high "
        f"FROM (VALUES {channels}) AS t(channel, name, low, high)), points AS ("
        f"SELECT position, hours, minute, source_row, channel, value FROM ({' UNION ALL '.join(parts)}) {inside})"
    )


# The median by counting equal values, which needs no more memory than there are different ones; + 0.0 turns -0 into 0,
# which it equals, so that it does not depend on the order of the rows which of them is found.
MEDIANS = """
, counts AS (
    SELECT channel, value, count(*) AS rows FROM points GROUP BY ALL
), ranked AS (
    SELECT
        *,
        sum(rows) OVER (PARTITION BY channel ORDER BY value) AS up_to_here,
        sum(rows) OVER (PARTITION BY channel) AS n
    FROM counts
)
SELECT
    channel,
    max(n)::BIGINT AS points,
    (min(value) FILTER (up_to_here > (n - 1) // 2) + min(value) FILTER (up_to_here > n // 2)) / 2 + 0.0 AS median,
    max(abs(value)) AS largest,
    coalesce(sum(rows) FILTER (value < low OR value > high), 0)::BIGINT AS out_of_range
FROM ranked JOIN channels USING (channel) GROUP BY channel ORDER BY channel
"""

# Row r of the grid knows every measurement up to minute 60 (r + 1). Kept is the state after each row that has new ones.
HOURS = f"""
, placed AS (
    SELECT *, greatest(0, ceil(minute / 60)::BIGINT - 1) AS hour FROM points
), hourly AS (
    SELECT
        position, channel, hour,
        arg_max(value, minute * 4294967296 + source_row) AS last_value,
        max(minute) AS last_minute,
        sum(value::DECIMAL(18, {DIGITS})) AS total,
        count(*) AS n
    FROM placed WHERE hour < hours GROUP BY position, channel, hour
)
SELECT
    position, channel, hour, last_value, last_minute,
    sum(total) OVER so_far::DOUBLE / sum(n) OVER so_far::DOUBLE AS mean
FROM hourly WINDOW so_far AS (PARTITION BY position, channel ORDER BY hour) ORDER BY position, channel, hour
"""


def measure(stages: Stages, corrections: frozenset[str]) -> dict[str, np.ndarray]:
    """Make `medians` and `hours` readable; of each channel `points`, `median` and `out_of_range`, all `[C]`.

    The median is over all rows of all kept stays. A channel that none of them has measured has 0 points and the median
    `nan`.

    Raises:
        UserError: a channel whose median lies outside its published range or that holds an impossible number, which
            is no measurement in its unit; a variable of the score that no kept stay has measured.
    """
    points, inputs = points_query(corrections), ("cohort", "vitalPeriodic", "vitalAperiodic", "lab")
    stages.run("medians", points + MEDIANS, *inputs)
    channels = {"points": np.zeros(len(CHANNELS), int), "median": np.full(len(CHANNELS), np.nan)}
    channels |= {"largest": np.zeros(len(CHANNELS)), "out_of_range": np.zeros(len(CHANNELS), int)}
    found = stages.fetch("SELECT channel, points, median, largest, out_of_range FROM medians")
    for name, values in channels.items():
        values[found["channel"]] = found[name]
    check(channels)
    stages.run("hours", points + HOURS, *inputs)
    return channels


def check(channels: dict[str, np.ndarray]) -> None:
    for index, name in enumerate(CHANNELS):
        median, unit = channels["median"][index], UNITS[index] or "no unit"
        if channels["largest"][index] > LARGEST:
            raise UserError(f"{name} holds the value {channels['largest'][index]:g} ({unit}): mend its source")
        if median < MINIMUM[index] or median > MAXIMUM[index]:
            raise UserError(
                f"the median of {name} is {median:g}, but values in its unit ({unit}) lie between {MINIMUM[index]:g} "
                f"and {MAXIMUM[index]:g}: convert its source to that unit"
            )
    if missing := [name for name in CONSTANTS["score"] if not channels["points"][CHANNELS.index(name)]]:
        raise UserError(f"no kept stay has measured {', '.join(missing)}, which the score needs: complete the source")


def fill(
    known: dict[str, np.ndarray], rows: np.ndarray, first: int, defaults: np.ndarray, limits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The values at the grid's `rows` `[B, T]` of `B` stays, `first` the position of the first of them.

    `known` holds rows of `hours`, sorted. Before a channel's first measurement stands its default; then its last value,
    for as many minutes as `limits` allows; then the mean of all measurements so far. Both `[C]`.

    Returns:
        Values `[B, T, C]` float64, and whether a channel was measured in that hour, `[B, T, C]` bool.
    """
    stays, channels = np.arange(len(rows))[:, None, None], np.arange(len(defaults))
    series = stays * len(defaults) + channels  # [B, 1, C]
    known_series = (known["position"] - first) * len(defaults) + known["channel"]
    stride = 1 << 32
    found = np.searchsorted(known_series * stride + known["hour"], series * stride + rows[:, :, None], side="right") - 1
    measured = found >= 0
    measured[measured] = known_series[found[measured]] == np.broadcast_to(series, found.shape)[measured]
    if not measured.any():
        return np.broadcast_to(defaults, found.shape).copy(), measured
    fresh = 60 * rows[:, :, None] - known["last_minute"][found] <= limits
    values = np.where(fresh, known["last_value"][found], known["mean"][found])
    return np.where(measured, values, defaults), measured & (known["hour"][found] == rows[:, :, None])

"""Which stays are kept, and which variables enough of them have measured."""

from experiments.errors import UserError
from scripts.eicu.constants import CHANNELS, CONSTANTS
from scripts.eicu.stages import Stages

# Two heart rates of one clock hour are less than 60 minutes apart, so that the largest gap lies between the last of one
# such hour and the first of the next that has any: a tenth of the rows remain to be sorted.
STAYS = f"""
WITH patients AS (
    SELECT
        stay,
        coalesce(any_value(uniquepid), stay::VARCHAR) AS person,
        coalesce(bool_or(hospitaldischargelocation = 'Death'), false) AS hospital_death,
        coalesce(bool_or(unitdischargelocation = 'Death'), false) AS unit_death
    FROM patient GROUP BY stay
), clock_hours AS (
    SELECT stay, floor("offset" / 60) AS clock_hour, min("offset") AS first_minute, max("offset") AS last_minute
    FROM vitalPeriodic WHERE heartrate IS NOT NULL GROUP BY ALL
), gaps AS (
    SELECT *, first_minute - lag(last_minute) OVER (PARTITION BY stay ORDER BY clock_hour) AS gap FROM clock_hours
), spans AS (
    SELECT stay, min(first_minute) AS first_minute, max(last_minute) AS last_minute, max(gap) AS gap
    FROM gaps GROUP BY stay
)
SELECT
    patients.*, first_minute, last_minute,
    CASE
        WHEN first_minute IS NULL THEN 'no heart rate'
        WHEN last_minute - first_minute < 60 * {CONSTANTS["minimum_hours"]} THEN 'too short'
        WHEN last_minute - first_minute > 60 * {CONSTANTS["maximum_hours"]} THEN 'too long'
        WHEN gap > {CONSTANTS["maximum_gap"]} THEN 'gap between heart rates'
        ELSE 'kept'
    END AS verdict
FROM patients LEFT JOIN spans USING (stay) ORDER BY stay
"""

# In the authors' order: numbers sorted as text.
COHORT = """
SELECT
    row_number() OVER (ORDER BY stay::VARCHAR) - 1 AS position,
    stay, person, hospital_death, unit_death, first_minute, last_minute,
    ceil((last_minute - first_minute) / 60)::BIGINT AS hours
FROM stays WHERE verdict = 'kept' ORDER BY position
"""


def select_stays(stages: Stages) -> dict[str, int]:
    """Make `stays` and `cohort` readable; the number of stays by verdict.

    A stay is kept when its heart rates span 5 to 30 days, both included, and are at most 60 minutes apart.

    Raises:
        UserError: none is kept.
    """
    stages.run("stays", STAYS, "patient", "vitalPeriodic")
    counts = dict(stages.rows("SELECT verdict, count(*) FROM stays GROUP BY verdict ORDER BY verdict"))
    if not counts.get("kept"):
        reasons = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "patient is empty"
        raise UserError(f"no stay is left ({reasons}): the source must hold stays of 5 to 30 days")
    stages.run("cohort", COHORT, "stays")
    return counts


def select_variables(stages: Stages) -> dict[str, float]:
    """Share of the kept stays that ever measured each variable, of all vital signs and all laboratory values."""
    stages.run("coverage", coverage_query(), "cohort", "vitalPeriodic", "vitalAperiodic", "lab")
    return dict(stages.rows("SELECT variable, share FROM coverage"))


def coverage_query() -> str:
    measured = []
    for name in ("vitalPeriodic", "vitalAperiodic"):
        table = CONSTANTS["tables"][name]
        columns = ", ".join(f'count({column}) AS "{table["prefix"]}{column}"' for column in table["values"])
        measured.append(
            f"SELECT variable, stay FROM (UNPIVOT (SELECT stay, {columns} FROM {name} SEMI JOIN cohort USING (stay) "
            "GROUP BY stay) ON * EXCLUDE (stay) INTO NAME variable VALUE points) WHERE points > 0"
        )
    measured.append(
        "SELECT DISTINCT 'lab_' || labname AS variable, stay FROM lab SEMI JOIN cohort USING (stay) "
        "WHERE labname IS NOT NULL AND labresult IS NOT NULL"
    )
    return (
        "SELECT variable, count(*) / (SELECT count(*) FROM cohort) AS share "
        f"FROM ({' UNION ALL '.join(measured)}) GROUP BY variable ORDER BY variable"
    )


def differences(coverage: dict[str, float]) -> tuple[list[str], list[str]]:
    """Channels that too few stays have measured, and variables that enough have but that are no channel."""
    enough = {name for name, share in coverage.items() if share >= CONSTANTS["minimum_coverage"]}
    return [name for name in CHANNELS if name not in enough], sorted(enough - set(CHANNELS))

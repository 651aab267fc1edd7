"""What every table holds: a title, how to read it, a renderer, and rows that name configs; a file for each model.

A row's runs have stages: (seeds, order) of training. Orders 1 to 4 are DPSOM beside published numbers, 5 is most rows,
9 what can wait. A new model adds rows to a table or a file with its own `TABLES`, and that to this one.
"""

from scripts.contents import clusterings, dpsom, golden, somvae, tdpsom, topography, tpae
from scripts.rendering.results import Table

TABLES: dict[str, Table] = {
    **dpsom.TABLES,
    **somvae.TABLES,
    **clusterings.TABLES,
    **tdpsom.TABLES,
    **topography.TABLES,
    **tpae.TABLES,
    **golden.TABLES,
}

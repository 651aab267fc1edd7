"""Commands around the experiments: many runs, tables, pictures, the page of results, export, search, speed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the project's folder

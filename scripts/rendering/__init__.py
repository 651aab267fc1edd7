"""Renderers of tables: records and other people's numbers to Markdown and CSV."""

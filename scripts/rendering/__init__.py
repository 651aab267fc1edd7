"""From records and other people's numbers to tables in Markdown, CSV and LaTeX, learning curves and charts."""

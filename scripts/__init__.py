"""Commands around the experiments: many runs, tables, pictures, the page of results, export, search, speed."""

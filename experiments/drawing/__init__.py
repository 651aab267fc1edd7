"""Figures, and the arrays that the page of results draws from."""

"""Metrics of maps, clusters and hours."""

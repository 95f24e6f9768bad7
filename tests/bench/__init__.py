"""Measurements: resumable cells, their figures as committed JSON, tables rendered from those."""

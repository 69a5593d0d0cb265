"""Evaluated runs as one HTML page."""

"""Samplers on data: what is observed, what is drawn, and what a stopped run left."""

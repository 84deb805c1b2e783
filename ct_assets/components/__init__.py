"""Dagster component types that a team instantiates from YAML.

What goes here: component classes and the assets they build. What does not: instances (`ct_assets.defs`).
"""

from ct_assets.components.retraining_pipeline import RetrainingPipeline

__all__ = ["RetrainingPipeline"]

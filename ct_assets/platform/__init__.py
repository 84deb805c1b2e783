"""What a team writes to get a retraining pipeline, and its validation. Pure: no clock, environment, Dagster, database.

What goes here: the pipeline's spec (`spec.py`), the reading of a YAML document with the position of every value
(`document.py`). What does not: what becomes of a spec (components build the assets from it).
"""

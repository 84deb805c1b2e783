"""Bytes of a delivery become typed rows and a verdict for each: the front door for files.

What goes here: source (bytes), records (structure), text columns, casts, rules, duplicates, the judgement.
What does not: files on disk, databases, Dagster, the clock. Time and names are arguments.
"""

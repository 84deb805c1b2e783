"""Seeded sample data with its planted truth: what a demo runs on and what tests use as an oracle.

What goes here: generators whose output follows from their arguments alone, and the truth that they planted.
What does not: any judgement of the data (``contracts``, ``ingest``), a clock, a database.
"""

"""ct_assets: keep models current, with data that is checked before it is trusted.

A map, left to right as the data moves; this module imports nothing.

- ``contracts``      what data must look like: ODCS file -> rules -> a verdict per row
- ``ingest``         the bytes of a delivery -> typed rows and a verdict
- ``features``       feature view specs, point-in-time training sets
- ``training``       dataset, fit, evaluate, gates, promotion decisions
- ``platform``       what a team writes: the pipeline's spec and its validation
- ``sampling``       seeded sample data with its planted truth
- ``settings``       the one place that reads the environment
- ``adapters``       the outside world: PostgreSQL, storage, landing, model registry, clock
- ``orchestration``  Dagster's vocabulary, written once
- ``components``     what a team instantiates from YAML
- ``defs``           the instances, one folder per team and pipeline
- ``cli``            ``ct``
"""

"""The tests, mirroring the packages; beside them conformance, faults, graph, architecture, e2e and bench.

What goes here: values asserted against an independent oracle, on real components. What does not: tests that only show
that something ran.
"""

"""Event streams: which events count, and what a window of them is worth. Pure: no clock, no database, no broker.

What goes here: the definition, decoding, acceptance (duplicates, conflicts, lateness), the window kernel, watermarks, and
the brute-force oracle that says what all of them mean. What does not: reading a topic (``adapters.events``), storing
(``adapters.stream``), the worker's loop. Time is integer microseconds UTC; windows are half-open ``[t - W, t)``.
"""

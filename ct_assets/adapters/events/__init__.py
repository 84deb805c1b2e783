"""Where events come from and go to: one port, a Kafka topic or an embedded log behind it.

What goes here: sources, sinks, the schema registry's client, the local broker for tests and the demo.
What does not: decoding, deduplication, windows (``ct_assets.streaming``), state (``adapters.stream``).
"""

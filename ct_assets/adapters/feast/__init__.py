"""Feast's plug-ins: our online and offline stores behind its interfaces, and definitions projected into its views.

What goes here: what Feast calls. What does not: tables and reads themselves (``adapters.stream``). Only Feast, the
feature repository and commands that start Feast import these modules: importing Feast takes seconds.
"""

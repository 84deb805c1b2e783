"""Feature views and point-in-time training sets.

What goes here: what a feature is (``spec``), how a day of features is computed (``daily``), how labels are joined to
them (``training_set``). What does not: tables (``adapters.feature_tables``), Feast (``feature_repo``), models.
"""

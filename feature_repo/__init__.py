"""A Feast repository over the published tables: `feast apply` and `feast serve` work in this folder.

What goes here: the projection of feature views into Feast's objects, and how Feast finds the installation's database.
What does not: what a feature is (``ct_assets.features`` is the only place that says it).
"""

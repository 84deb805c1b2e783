"""`ct serve`: scores of the champion over HTTP and for files, from features that Feast reads at the pinned version.

What goes here: following the champion pointer, reading features, scoring, the log of scores, the HTTP application. What
does not: training (``ct_assets.training``), the pointer and the artefacts (``ct_assets.adapters``), options (``cli.serve``).
"""

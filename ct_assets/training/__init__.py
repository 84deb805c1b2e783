"""Fitting, judging and deciding: a recipe, its evaluation by rolling origins, the gates, the plots.

What goes here: pure functions over frames; scikit-learn is imported inside them. What does not: where models are
kept and which one leads (``adapters.artefacts``, ``adapters.champion``), what features are (``features``).
"""

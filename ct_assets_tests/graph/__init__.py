"""What the asset graph is, so that a change of it is a reviewable difference."""

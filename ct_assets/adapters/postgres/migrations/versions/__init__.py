"""The migrations themselves, in order. Never edit one that was released: add the next number."""

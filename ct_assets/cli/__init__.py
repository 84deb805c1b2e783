"""``ct``: thin commands over the same functions the assets use.

What goes here: options, printing, exit codes. What does not: logic.
"""

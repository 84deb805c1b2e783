"""`python -m ct_assets.cli`: the same as `ct`, for a process that starts another one with its own interpreter.

What goes here: this call. What does not: commands.
"""

from ct_assets.cli.main import main

main()

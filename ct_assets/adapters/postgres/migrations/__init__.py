"""Numbered schema migrations, applied by alembic: each ``versions/NNNN_name.sql`` with a few lines of Python around it.

What goes here: schemas and tables that the code itself needs. What does not: tables made from contracts
(``adapters.tables``), which grow with the contract.
"""

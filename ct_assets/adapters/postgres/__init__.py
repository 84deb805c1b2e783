"""PostgreSQL: the embedded server, connections with bounded retry, numbered migrations, binary COPY.

What goes here: what is true of any table. What does not: the ledger's own tables and rules (``adapters.ledger``).
"""

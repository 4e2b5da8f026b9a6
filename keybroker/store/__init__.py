"""The broker's state store: SQLAlchemy Core over SQLite (one process) or PostgreSQL (replicas).

`engine` opens it, `commit` makes writes durable many at a time, `schema` says what is in it, and one module per
aggregate reads and writes it. Nothing here decides anything.
"""

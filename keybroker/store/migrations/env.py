"""Alembic's entry point: runs the revisions on the connection that `keybroker.store.migrate` hands over."""

from __future__ import annotations

from alembic import context

# No file and no URL: the caller's transaction is the only way in, so that a migration is all or nothing.
context.configure(
    connection=context.config.attributes["connection"], transactional_ddl=True, transaction_per_migration=False
)
with context.begin_transaction():
    context.run_migrations()

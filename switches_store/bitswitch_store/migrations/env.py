"""Alembic's entry: it runs the versions in the transaction that `bitswitch_store.catalog` opened.

Knows no URL: there is nothing to configure, and the `alembic` command is not needed to run it.
"""

from alembic import context

# The caller's transaction is the only one: either every step is there, or none.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
context.run_migrations()

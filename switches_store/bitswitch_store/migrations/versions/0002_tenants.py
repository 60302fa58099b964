"""Whoever calls: shares, keys, limits, the audit, usage; and blobs that wait to be collected.

Written out rather than derived from `bitswitch_store.tables`: a step that was taken never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From 0001, where each version was public or not: a name is now if all its versions were.

    So that nothing is shown which was not before.
    """
    op.add_column("names", sa.Column("public", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(
        "UPDATE names SET public = true"
        " WHERE EXISTS (SELECT 1 FROM switches s WHERE s.tenant = names.tenant AND s.name = names.name)"
        " AND NOT EXISTS (SELECT 1 FROM switches s WHERE s.tenant = names.tenant AND s.name = names.name"
        " AND NOT s.public)"
    )
    op.drop_column("switches", "public")
    op.create_table(
        "shares",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("shared_with", sa.String(64), primary_key=True),
        sa.ForeignKeyConstraint(["tenant", "name"], ["names.tenant", "names.name"]),
    )
    op.create_index("ix_shares_shared_with", "shares", ["shared_with"])
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True)),
        sa.Column("revoked", sa.DateTime(timezone=True)),
    )
    op.create_index("ix_keys_tenant", "keys", ["tenant"])
    op.create_table(
        "limits",
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("concurrent_requests", sa.BigInteger),
        sa.Column("stored_bytes", sa.BigInteger),
        sa.Column("stored_switches", sa.BigInteger),
        sa.Column("batch_inputs", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key", sa.String(16)),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("digest", sa.String(71)),
        sa.Column("request_id", sa.String(128), nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_table(
        "usage",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("tenant", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("inputs", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )
    op.create_table(
        "garbage",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )

"""The resident base model: loading, identity, features, heads. Knows nothing of switches being applied."""

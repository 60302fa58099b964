"""The bitswitch server: one resident base model, thousands of fine-tunes of it."""

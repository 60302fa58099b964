"""What a switch is, and where switches live. Knows nothing of HTTP or of a forward pass."""

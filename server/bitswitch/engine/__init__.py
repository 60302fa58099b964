"""Applying switches to the resident weights and running the model; the only writer of weights."""

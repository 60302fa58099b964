"""The router: which switches an input belongs to, by nearest neighbours in the query sets; or none of them.

Knows nothing of weights, of the engine, or of who asks: it gets feature vectors and the digests it may see.
"""

from bitswitch.router.auto import AutoSwitch

__all__ = ["AutoSwitch"]

"""The HTTP surface. Knows shapes and statuses; no torch, faiss or safetensors in here."""

"""Better bits for the same bytes, from a few unlabelled texts: here a fine-tune runs beside its switch.

Only the command line imports this room; a server has no use for it. `calibration.py` is where to begin.
"""

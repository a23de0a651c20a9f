"""Environments behind one convention: numpy arrays, NEXT_STEP autoreset, padding rows marked."""

"""What users would time, beside the tools that they would use instead. See `modes.py`; not installed."""

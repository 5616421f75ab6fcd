"""The settings of the program. Start at `settings.py`."""

"""One run: fill the outbox, deliver, report. Start at `run.py`."""

"""Fake Iterable API and MySQL server on loopback, for the demo, the tests and the benchmarks.

Start with `iterable_api.py` (the HTTP server), `project.py` (what each API call does) and
`mysql_server.py`. `python -m sandbox --help` runs the API alone.
"""

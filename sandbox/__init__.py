"""The two neighbours of the program, on loopback: an Iterable API and a MySQL server."""

"""The version of this program, and the name that it gives itself in HTTP requests."""

VERSION = "1.5.0"
USER_AGENT = f"mysql-to-iterable/{VERSION}"

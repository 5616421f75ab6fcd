"""The tests; a package, so that one file of it can import another (`tests.support.mariadb`)."""

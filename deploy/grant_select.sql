-- Creates a user who can read the two tables of the query and nothing else. Replace the password
-- below, then run this as an administrator in the database that has the tables:
--
--     mysql -u root -p YOUR_DATABASE < deploy/grant_select.sql
--
-- For MySQL 8, MariaDB 10.6 and newer. Then set DB_USER=iterable_sync and DB_PASSWORD.

CREATE USER IF NOT EXISTS 'iterable_sync'@'%' IDENTIFIED BY 'your_database_password_here';

-- '%' allows every machine. If you know the machine that the program runs on, write its name or address
-- instead, in all three lines. If MySQL is reached over a network, require TLS (and set DB_SSL_CA):
-- ALTER USER 'iterable_sync'@'%' REQUIRE SSL;

-- These are the tables of the current database. A query of your own (QUERY_FILE) may need others.
GRANT SELECT ON customers TO 'iterable_sync'@'%';
GRANT SELECT ON page_views TO 'iterable_sync'@'%';

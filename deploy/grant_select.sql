-- A user that can read the two tables of the query and nothing else. Put a password of your own in
-- its place below, then run this as an administrator, in the database that holds the tables:
--
--     mysql -u root -p YOUR_DATABASE < deploy/grant_select.sql
--
-- Works with MySQL 8 and MariaDB. The settings are then DB_USER=iterable_sync and that password.

CREATE USER IF NOT EXISTS 'iterable_sync'@'%' IDENTIFIED BY 'your_database_password_here';

-- '%' is any machine. Better, where you know it: the one that the program runs on, in all three
-- lines. And where MySQL is reached over a network, demand TLS (and set DB_SSL_CA):
-- ALTER USER 'iterable_sync'@'%' REQUIRE SSL;

-- Without a database's name these mean the tables of the database that you are in. A query of your
-- own (QUERY_FILE) may need others.
GRANT SELECT ON customers TO 'iterable_sync'@'%';
GRANT SELECT ON page_views TO 'iterable_sync'@'%';

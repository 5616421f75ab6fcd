-- The two tables that the sync reads. Runs unchanged on MySQL 8, MariaDB 10.6 and the sandbox.
--
-- You do not need this file when your tables exist already: the program works with any tables and
-- any query that returns the columns it is told to use (README, "Set it up"). It is what the
-- tests, the benchmarks and `python main.py --demo` use, and a good model of the indexes.

CREATE TABLE customers (
    id         INT UNSIGNED NOT NULL AUTO_INCREMENT,
    -- Compared byte by byte: two rows whose addresses differ only in case are two rows here.
    -- 254 characters is the longest address that e-mail allows (RFC 5321).
    email      VARCHAR(254) COLLATE utf8mb4_bin NULL,
    first_name VARCHAR(255) NULL,
    last_name  VARCHAR(255) NULL,
    plan_type  VARCHAR(32) NOT NULL DEFAULT 'free',   -- free, basic, pro or enterprise
    candidate  VARCHAR(255) NULL,
    PRIMARY KEY (id),
    -- Finds the pro customers, already in the order in which the query returns them.
    KEY customers_plan (plan_type, id),
    -- For people who look somebody up.
    KEY customers_email (email)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_general_ci;

CREATE TABLE page_views (
    id         INT UNSIGNED NOT NULL AUTO_INCREMENT,
    user_id    INT UNSIGNED NOT NULL,
    page       VARCHAR(64) NOT NULL,
    device     VARCHAR(64) NULL,
    browser    VARCHAR(64) NULL,
    location   VARCHAR(255) NULL,
    event_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (id),
    -- The one the query lives on: two short ranges (a page, since a time), and everything that is
    -- ranked stands in the index itself (InnoDB adds the primary key), so no row is touched.
    KEY page_views_recent (page, event_time, user_id),
    -- One customer's history, latest first; also serves the foreign key.
    KEY page_views_user (user_id, event_time, id, page),
    CONSTRAINT page_views_customer FOREIGN KEY (user_id) REFERENCES customers (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_general_ci;

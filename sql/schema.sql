-- The two tables that the query reads. For MySQL 8, MariaDB 10.6 and newer.
--
-- You do not need this file if you have tables of your own: see docs/your-own-tables.md. The tests,
-- the benchmarks and `python main.py --demo` use it, and it shows which indexes the query needs.

CREATE TABLE customers (
    id         INT UNSIGNED NOT NULL AUTO_INCREMENT,
    -- Compared byte by byte, so that two rows may differ only in upper and lower case.
    -- An e-mail address has at most 254 characters (RFC 5321).
    email      VARCHAR(254) COLLATE utf8mb4_bin NULL,
    first_name VARCHAR(255) NULL,
    last_name  VARCHAR(255) NULL,
    plan_type  VARCHAR(32) NOT NULL DEFAULT 'free',   -- free, basic, pro or enterprise
    candidate  VARCHAR(255) NULL,
    PRIMARY KEY (id),
    -- For the query: the customers of a plan, already in the query's order.
    KEY customers_plan (plan_type, id),
    -- To look up one customer.
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
    -- For the query: one short range for each page, and all columns that are ranked (InnoDB adds the
    -- primary key to every index), so that no row of the table is read.
    KEY page_views_recent (page, event_time, user_id),
    -- The history of one customer, and the foreign key.
    KEY page_views_user (user_id, event_time, id, page),
    CONSTRAINT page_views_customer FOREIGN KEY (user_id) REFERENCES customers (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_general_ci;

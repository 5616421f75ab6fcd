-- The tables that this job reads. For MySQL 8, MariaDB 10.6 and newer.

CREATE TABLE shop_customers (
    customer_id INT UNSIGNED NOT NULL PRIMARY KEY,
    email       VARCHAR(254) NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE orders (
    order_number VARCHAR(20) NOT NULL PRIMARY KEY,
    customer_id  INT UNSIGNED NOT NULL,
    total        DECIMAL(10, 2) NOT NULL,
    currency     CHAR(3) NOT NULL,
    item_count   SMALLINT UNSIGNED NOT NULL,
    ordered_at   TIMESTAMP NOT NULL,
    KEY orders_recent (ordered_at, customer_id),
    CONSTRAINT orders_customer FOREIGN KEY (customer_id) REFERENCES shop_customers (customer_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

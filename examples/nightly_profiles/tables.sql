-- The table that this job reads. For MySQL 8, MariaDB 10.6 and newer.

CREATE TABLE crm_contacts (
    contact_id     INT UNSIGNED NOT NULL PRIMARY KEY,
    email          VARCHAR(254) NULL,
    first_name     VARCHAR(100) NULL,
    city           VARCHAR(100) NULL,
    birthday       DATE NULL,
    newsletter     TINYINT(1) NOT NULL DEFAULT 0,
    lifetime_value DECIMAL(12, 2) NULL,
    preferences    JSON NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

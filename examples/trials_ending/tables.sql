-- The tables that this job reads. For MySQL 8, MariaDB 10.6 and newer.

CREATE TABLE accounts (
    account_id INT UNSIGNED NOT NULL PRIMARY KEY,
    mail       VARCHAR(254) NULL,
    company    VARCHAR(100) NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

CREATE TABLE trials (
    trial_id     INT UNSIGNED NOT NULL PRIMARY KEY,
    account_id   INT UNSIGNED NOT NULL,
    plan         VARCHAR(32) NOT NULL,
    ends_at      DATETIME NOT NULL,              -- UTC
    converted_at DATETIME NULL,
    KEY trials_ends_at (ends_at),
    CONSTRAINT trials_account FOREIGN KEY (account_id) REFERENCES accounts (account_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4;

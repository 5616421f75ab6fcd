-- A trial that ends tomorrow, one that ends next month, one that has become a subscription.

INSERT INTO accounts (account_id, mail, company) VALUES
    (1, 'ann@example.com', 'Ann & Co'),
    (2, 'ben@example.com', NULL),
    (3, 'cleo@example.com', 'Cleo Ltd');

INSERT INTO trials (trial_id, account_id, plan, ends_at, converted_at) VALUES
    (11, 1, 'team', UTC_TIMESTAMP() + INTERVAL 1 DAY, NULL),
    (12, 2, 'team', UTC_TIMESTAMP() + INTERVAL 30 DAY, NULL),
    (13, 3, 'solo', UTC_TIMESTAMP() + INTERVAL 1 DAY, UTC_TIMESTAMP());

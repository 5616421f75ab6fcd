-- Two customers with orders of today, one without.

INSERT INTO shop_customers (customer_id, email) VALUES
    (7, 'ann@example.com'),
    (8, 'ben@example.com'),
    (9, 'cleo@example.com');

INSERT INTO orders (order_number, customer_id, total, currency, item_count, ordered_at) VALUES
    ('A-1001', 7, 12.00, 'EUR', 1, NOW() - INTERVAL 5 HOUR),
    ('A-1002', 7, 59.90, 'EUR', 3, NOW() - INTERVAL 2 HOUR),
    ('A-1003', 8, 1250.05, 'USD', 12, NOW() - INTERVAL 1 HOUR);

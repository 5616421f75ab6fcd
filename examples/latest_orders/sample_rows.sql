-- Two customers with orders, one without.

INSERT INTO shop_customers (customer_id, email) VALUES
    (7, 'ann@example.com'),
    (8, 'ben@example.com'),
    (9, 'cleo@example.com');

INSERT INTO orders (order_number, customer_id, total, currency, item_count, ordered_at) VALUES
    ('A-1001', 7, 12.00, 'EUR', 1, '2026-01-12 09:15:00'),
    ('A-1002', 7, 59.90, 'EUR', 3, '2026-01-13 14:30:45'),
    ('A-1003', 8, 1250.05, 'USD', 12, '2026-01-13 18:00:00');

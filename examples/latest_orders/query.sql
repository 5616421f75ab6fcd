-- Each customer's latest order since the start of the window.
--
-- One row a customer: of two orders between two runs only the later one is sent. Run this job more
-- often than a customer orders.

WITH ranked AS (
    SELECT order_number, ROW_NUMBER() OVER (
        PARTITION BY customer_id ORDER BY ordered_at DESC, order_number DESC
    ) AS recency
    FROM orders
    WHERE ordered_at >= %(window_start)s
)
SELECT
    shop_customers.customer_id AS id,
    shop_customers.email,
    orders.order_number AS event_id,
    orders.total,
    orders.currency,
    orders.item_count,
    orders.ordered_at AS event_time
FROM ranked
JOIN orders ON orders.order_number = ranked.order_number
JOIN shop_customers ON shop_customers.customer_id = orders.customer_id
WHERE ranked.recency = 1
ORDER BY shop_customers.customer_id

-- "Phase 2 Query 2": who is sent to Iterable, and with what.
--
-- Pro customers who viewed the pricing or the settings page since the start of the window; one
-- row for each customer: the latest such view, and of views at the same second the highest id.
--
-- TO EDIT
--   * The plan:    customers.plan_type = '...', near the end.
--   * The pages:   page_views.page IN (...). Letter case does not matter under the usual
--                  collations (names that end in _ci); on a column with a _bin or _cs collation
--                  write LOWER(page_views.page) IN (...), lower case within.
--   * The window:  ENGAGEMENT_WINDOW_DAYS in .env, not here. The one parameter, window_start, is
--                  the start of the run less that many days, a DATETIME in DB_TIMEZONE.
--   * A new field: add its column to the last SELECT, and its name to USER_FIELDS or EVENT_FIELDS
--                  in .env. The columns id, email, page and event_time are always needed.
--   * A percent sign is written twice, as in LIKE 'pric%%': a single one belongs to a parameter.
--   * One SELECT and nothing else; the session is read only anyway.
--
-- WHY IT IS WRITTEN LIKE THIS
--   Rank narrow, then hydrate: the first part ranks views by columns that the index
--   page_views (page, event_time, user_id) holds, so it reads that index only; the second fetches
--   the wide rows of the winners by primary key. The first part returns nothing but view ids, on
--   purpose: with user_id in it MariaDB may run it once per customer (LATERAL DERIVED).

WITH ranked_views AS (
    SELECT
        page_views.id AS view_id,
        ROW_NUMBER() OVER (
            PARTITION BY page_views.user_id
            ORDER BY page_views.event_time DESC, page_views.id DESC
        ) AS recency
    FROM page_views
    WHERE page_views.page IN ('pricing', 'settings')
      AND page_views.event_time >= %(window_start)s
)
SELECT
    customers.id,
    customers.email,
    customers.first_name,
    customers.last_name,
    customers.plan_type,
    customers.candidate,
    page_views.page,
    page_views.device,
    page_views.browser,
    page_views.location,
    page_views.event_time
FROM ranked_views
JOIN page_views ON page_views.id = ranked_views.view_id
JOIN customers ON customers.id = page_views.user_id
WHERE ranked_views.recency = 1
  AND customers.plan_type = 'pro'
ORDER BY customers.id

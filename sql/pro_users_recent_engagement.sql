-- The users who are sent to Iterable ("Phase 2 Query 2").
--
-- Returns one row for each customer with the plan pro who has viewed the pricing or the settings page
-- since the start of the window: the customer's latest such view. Of two views in the same second the
-- one with the higher id is returned. docs/tables-and-query.md explains the query.
--
-- TO CHANGE
--   * The plan:    customers.plan_type = '...', near the end.
--   * The pages:   page_views.page IN (...). Upper and lower case are the same under the usual
--                  collations (names that end in _ci). On a column with a _bin or _cs collation write
--                  LOWER(page_views.page) IN (...), with lower-case names.
--   * The window:  ENGAGEMENT_WINDOW_DAYS in .env. %(window_start)s is the start of the run minus that
--                  many days: in UTC if event_time is a TIMESTAMP, in DB_TIMEZONE if it is a DATETIME.
--                  Where another column is compared write %(window_start_utc)s or
--                  %(window_start_local)s.
--   * The fields:  add a column to the last SELECT, and its name to USER_FIELDS or EVENT_FIELDS in
--                  .env. The columns id, email, page and event_time are always needed.
--   * Every other percent sign is plain SQL: write it as in a MySQL client.
--   * Keep it one SELECT. The session is read only.
--
-- WHY IT HAS TWO PARTS
--   The first part ranks views and needs only columns of the index page_views (page, event_time,
--   user_id), so it reads nothing but that index. The second part fetches the full rows of the best
--   views by primary key. The first part returns only view ids: if it also returned user_id, MariaDB
--   might run it once for each customer (LATERAL DERIVED).

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

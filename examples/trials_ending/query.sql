-- Trials that end within the next three days and have not become a subscription.
--
-- The event happens three days before the end. So with ENGAGEMENT_WINDOW_DAYS=3 the window holds
-- exactly the trials that end between now and in three days. ends_at is a DATETIME in UTC, therefore
-- the event time is called event_time_utc. A trial that is extended gets an event of its own, since
-- the end is a part of event_id. Of several trials of one account the program sends the latest.

SELECT
    accounts.account_id AS id,
    accounts.mail AS email,
    accounts.company,
    trials.plan,
    DATE_FORMAT(trials.ends_at, '%Y-%m-%d') AS ends_on,
    CONCAT(trials.trial_id, '-', DATE_FORMAT(trials.ends_at, '%Y%m%d')) AS event_id,
    trials.ends_at - INTERVAL 3 DAY AS event_time_utc
FROM trials
JOIN accounts ON accounts.account_id = trials.account_id
WHERE trials.ends_at >= %(window_start)s + INTERVAL 3 DAY
  AND trials.ends_at <= UTC_TIMESTAMP() + INTERVAL 3 DAY
  AND trials.converted_at IS NULL
ORDER BY accounts.account_id

-- The profiles of all contacts with an e-mail address. No event, so no page, device or event time,
-- and no window: every run reads all rows and sends only the profiles that have changed.

SELECT
    contact_id AS id,
    email,
    first_name,
    city,
    birthday,
    newsletter,
    lifetime_value,
    preferences
FROM crm_contacts
WHERE email IS NOT NULL
ORDER BY contact_id

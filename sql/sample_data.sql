-- Sample data for `python main.py --demo`: 26 customers that the query returns, several of them special
-- cases (see the comments), and six that it does not return. Times are relative to now, in UTC.
-- For MySQL 8, MariaDB 10.6 and newer. Load it into an empty database, after schema.sql.

SET time_zone = '+00:00';

INSERT INTO customers (id, email, first_name, last_name, plan_type, candidate) VALUES
    (1, 'sarah.johnson@email.com', 'Sarah', 'Johnson', 'pro', 'yes'),
    (2, 'michael.chen@example.com', 'Michael', 'Chen', 'pro', 'no'),
    (3, 'zoe.mueller@example.com', 'Zoë', 'Müller', 'pro', 'yes'),
    -- An apostrophe in the name and in the address.
    (4, 'siobhan.o''brien@example.com', 'Siobhán', 'O''Brien', 'pro', 'no'),
    (5, 'li.xiaolong@example.com', '小龙', '李', 'pro', 'yes'),
    (6, 'amelie.rocket@example.com', 'Amélie 🚀', 'Dupont', 'pro', 'yes'),
    -- NULL: the field is left out of the payload.
    (7, 'madonna@example.com', 'Madonna', NULL, 'pro', NULL),
    (8, 'anonymous@example.com', NULL, NULL, 'pro', NULL),
    -- Invalid, never sent: a malformed address, and no address.
    (9, 'not-an-email', 'Nadia', 'Petrova', 'pro', 'no'),
    (10, NULL, 'Omar', 'Haddad', 'pro', 'yes'),
    -- The same address twice: the row with the later view is sent, the other one is a duplicate.
    (11, 'Dana.Scott@example.com', 'Dana', 'Scott', 'pro', 'no'),
    (12, 'dana.scott@example.com', 'Dana', 'Scott', 'pro', 'yes'),
    -- Forgotten in Iterable (GDPR): Iterable rejects the row.
    (13, 'priya.forgotten@example.com', 'Priya', 'Nair', 'pro', 'no'),
    -- An address that this program accepts and Iterable rejects.
    (14, 'pat.morgan@example.con', 'Pat', 'Morgan', 'pro', 'yes'),
    -- The sandbox responds to this event with 502 once; it is retried.
    (15, 'olivia.brown@example.com', 'Olivia', 'Brown', 'pro', 'yes'),
    -- Spaces around the address are removed.
    (16, ' grace.hopper@example.com ', 'Grace', 'Hopper', 'pro', 'no'),
    (17, 'noah.williams+news@example.com', 'Noah', 'Williams', 'pro', 'yes'),
    (18, 'yuki.tanaka@example.com', '由紀', '田中', 'pro', 'no'),
    (19, 'fatima.al-sayed@example.com', 'Fatima', 'Al-Sayed', 'pro', 'yes'),
    (20, 'lucas.silva@example.com', 'Lucas', 'Silva', 'pro', 'no'),
    (21, 'emma.garcia@example.com', 'Emma', 'García', 'pro', 'yes'),
    (22, 'kwame.mensah@example.com', 'Kwame', 'Mensah', 'pro', 'no'),
    (23, 'ingrid.olsen@example.com', 'Ingrid', 'Ølsen', 'pro', 'yes'),
    (24, 'raj.patel@example.com', 'Raj', 'Patel', 'pro', 'no'),
    (25, 'chloe.martin@example.com', 'Chloé', 'Martin', 'pro', 'yes'),
    (26, 'tom.becker@example.com', 'Tom', 'Becker', 'pro', 'no'),
    -- Not returned by the query: another plan, an old view, other pages, no view.
    (27, 'free.user@example.com', 'Fred', 'Free', 'free', 'no'),
    (28, 'basic.user@example.com', 'Bea', 'Basic', 'basic', 'no'),
    (29, 'enterprise.user@example.com', 'Edgar', 'Enterprise', 'enterprise', 'yes'),
    (30, 'long.ago@example.com', 'Lara', 'Longago', 'pro', 'yes'),
    (31, 'reads.only.docs@example.com', 'Dora', 'Docs', 'pro', 'no'),
    (32, 'never.came@example.com', 'Nick', 'Never', 'pro', 'no');

INSERT INTO page_views (id, user_id, page, device, browser, location, event_time) VALUES
    (1, 1, 'settings', 'mobile', 'Safari', 'San Francisco, CA', CURRENT_TIMESTAMP - INTERVAL 3 DAY),
    (2, 1, 'pricing', 'desktop', 'Chrome', 'San Francisco, CA', CURRENT_TIMESTAMP - INTERVAL 2 HOUR),
    -- Later, but of a page that the query does not look for.
    (3, 1, 'home', 'desktop', 'Chrome', 'San Francisco, CA', CURRENT_TIMESTAMP - INTERVAL 1 HOUR),
    (4, 2, 'Pricing', 'mobile', 'Safari', 'Austin, TX', CURRENT_TIMESTAMP - INTERVAL 5 HOUR),
    (5, 3, 'SETTINGS', 'tablet', 'Firefox', 'Köln, DE', CURRENT_TIMESTAMP - INTERVAL 26 HOUR),
    (6, 4, 'pricing', 'desktop', 'Edge', 'Dún Laoghaire, IE', CURRENT_TIMESTAMP - INTERVAL 40 MINUTE),
    (7, 5, 'settings', 'mobile', 'Chrome', '上海', CURRENT_TIMESTAMP - INTERVAL 9 HOUR),
    (8, 6, 'pricing', 'desktop', 'Firefox', 'Paris, FR', CURRENT_TIMESTAMP - INTERVAL 4 DAY),
    (9, 7, 'pricing', 'desktop', 'Safari', NULL, CURRENT_TIMESTAMP - INTERVAL 30 HOUR),
    (10, 8, 'settings', NULL, NULL, NULL, CURRENT_TIMESTAMP - INTERVAL 2 DAY),
    (11, 9, 'pricing', 'mobile', 'Chrome', 'Sofia, BG', CURRENT_TIMESTAMP - INTERVAL 7 HOUR),
    (12, 10, 'settings', 'desktop', 'Chrome', 'Amman, JO', CURRENT_TIMESTAMP - INTERVAL 8 HOUR),
    (13, 11, 'pricing', 'desktop', 'Chrome', 'London, UK', CURRENT_TIMESTAMP - INTERVAL 3 DAY),
    (14, 12, 'pricing', 'mobile', 'Safari', 'London, UK', CURRENT_TIMESTAMP - INTERVAL 1 DAY),
    (15, 13, 'pricing', 'desktop', 'Edge', 'Kochi, IN', CURRENT_TIMESTAMP - INTERVAL 11 HOUR),
    (16, 14, 'settings', 'desktop', 'Chrome', 'Denver, CO', CURRENT_TIMESTAMP - INTERVAL 12 HOUR),
    (17, 15, 'pricing', 'tablet', 'Safari', 'Leeds, UK', CURRENT_TIMESTAMP - INTERVAL 13 HOUR),
    (18, 16, 'settings', 'desktop', 'Firefox', 'New York, NY', CURRENT_TIMESTAMP - INTERVAL 14 HOUR),
    -- Two views in the same second: the one with the higher id is sent.
    (19, 17, 'settings', 'mobile', 'Chrome', 'Chicago, IL', CURRENT_TIMESTAMP - INTERVAL 15 HOUR),
    (20, 17, 'pricing', 'desktop', 'Edge', 'Chicago, IL', CURRENT_TIMESTAMP - INTERVAL 15 HOUR),
    (21, 18, 'pricing', 'mobile', 'Safari', '東京', CURRENT_TIMESTAMP - INTERVAL 16 HOUR),
    (22, 18, 'pricing', 'mobile', 'Safari', '東京', CURRENT_TIMESTAMP - INTERVAL 5 DAY),
    (23, 19, 'Settings', 'desktop', 'Chrome', 'Cairo, EG', CURRENT_TIMESTAMP - INTERVAL 17 HOUR),
    (24, 20, 'pricing', 'desktop', 'Chrome', 'São Paulo, BR', CURRENT_TIMESTAMP - INTERVAL 18 HOUR),
    (25, 21, 'PRICING', 'mobile', 'Firefox', 'Sevilla, ES', CURRENT_TIMESTAMP - INTERVAL 19 HOUR),
    (26, 22, 'settings', 'mobile', 'Opera', 'Accra, GH', CURRENT_TIMESTAMP - INTERVAL 20 HOUR),
    (27, 23, 'pricing', 'desktop', 'Edge', 'Bergen, NO', CURRENT_TIMESTAMP - INTERVAL 21 HOUR),
    (28, 24, 'pricing', 'desktop', 'Chrome', 'Pune, IN', CURRENT_TIMESTAMP - INTERVAL 22 HOUR),
    (29, 24, 'settings', 'desktop', 'Chrome', 'Pune, IN', CURRENT_TIMESTAMP - INTERVAL 6 HOUR),
    (30, 25, 'pricing', 'tablet', 'Safari', 'Lyon, FR', CURRENT_TIMESTAMP - INTERVAL 23 HOUR),
    -- Just inside the window of seven days.
    (31, 26, 'settings', 'desktop', 'Firefox', 'Graz, AT', CURRENT_TIMESTAMP - INTERVAL 164 HOUR),
    (32, 27, 'pricing', 'desktop', 'Chrome', 'Reno, NV', CURRENT_TIMESTAMP - INTERVAL 1 DAY),
    (33, 28, 'settings', 'mobile', 'Safari', 'Boise, ID', CURRENT_TIMESTAMP - INTERVAL 1 DAY),
    (34, 29, 'pricing', 'desktop', 'Edge', 'Oslo, NO', CURRENT_TIMESTAMP - INTERVAL 1 DAY),
    (35, 30, 'pricing', 'desktop', 'Chrome', 'Quito, EC', CURRENT_TIMESTAMP - INTERVAL 12 DAY),
    (36, 31, 'docs', 'desktop', 'Firefox', 'Turin, IT', CURRENT_TIMESTAMP - INTERVAL 1 HOUR);

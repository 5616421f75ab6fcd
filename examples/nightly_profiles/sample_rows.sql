-- Two contacts, and one without an e-mail address, who is not in the query's result.

INSERT INTO crm_contacts VALUES
    (1, 'ann@example.com', 'Ann', 'Porto', '1990-04-30', 1, 1250.50, '{"sms": true, "topics": ["news"]}'),
    (2, 'ben@example.com', 'Ben', NULL, NULL, 0, NULL, NULL),
    (3, NULL, 'Cleo', 'Kyiv', NULL, 0, 10.00, NULL);

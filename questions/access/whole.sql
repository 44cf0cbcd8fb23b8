-- Further tables, only if nothing is out of scope: they are about all objects at once.
CREATE VIEW paths AS
SELECT * REPLACE (pseudonym_hash(person_hash, person) AS person_hash, pseudonym(person) AS person) FROM live.paths;

CREATE VIEW touch_sources AS SELECT * FROM live.touch_sources;

CREATE VIEW stale_users AS SELECT pseudonym(user_id) AS user_id FROM live.stale_users;

CREATE VIEW stock_cuts AS SELECT * FROM live.stock_cuts;

CREATE VIEW awaited AS SELECT * FROM live.awaited;

CREATE VIEW oddities AS SELECT * FROM live.oddities;

CREATE VIEW projections AS SELECT * FROM live.projections;

-- Messages to deliver, and how channels fare. Times are seconds since 1970, UTC.
-- messages: one row per message and channel. body: the message as JSON, dropped once it was sent or given up.
-- about: what the message is about, for whoever enqueued it and follows what becomes of it; null once it is forgotten.
-- state: waiting, sending, sent, given_up. due: not before then. delivered: recipients who got it, as JSON.
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    channel TEXT NOT NULL,
    severity INTEGER NOT NULL,
    body TEXT,
    about TEXT,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'sent', 'given_up')),
    enqueued REAL NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    attempted REAL,
    settled REAL,
    delivered TEXT NOT NULL DEFAULT '[]',
    error TEXT,
    UNIQUE (key, channel)
) STRICT;
CREATE INDEX IF NOT EXISTS open_messages ON messages (channel, state, severity, id) WHERE state IN ('waiting', 'sending');
CREATE INDEX IF NOT EXISTS attempts ON messages (channel, attempted);
CREATE INDEX IF NOT EXISTS followed ON messages (id) WHERE about IS NOT NULL;
CREATE INDEX IF NOT EXISTS settled ON messages (settled);
-- channels: failures: attempts that failed in a row, the first of them at `since`. rests_until: no attempt before then.
CREATE TABLE IF NOT EXISTS channels (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL DEFAULT 0,
    since REAL,
    error TEXT,
    rests_until REAL NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0
) STRICT;

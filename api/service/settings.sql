-- The settings store. Instants are in seconds since the epoch.

-- Grain: one person. `scope`: JSON object, the rows that the person may see (questions/access); `{}`: all.
-- `password_hash`: null for a person who signs in with OpenID Connect only. `subject`: the person's id at the provider.
CREATE TABLE IF NOT EXISTS people (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL,
    scope TEXT NOT NULL DEFAULT '{}',
    password_hash TEXT,
    subject TEXT UNIQUE,
    language TEXT,
    zone TEXT,
    created_at REAL NOT NULL,
    disabled_at REAL
) STRICT;

-- Grain: one token of a system. `hash`: SHA-256 of its secret part. `sources`: JSON list of the names that events which
-- it publishes may have as their `source`. `previous_hash`: the secret before the last rotation, valid until
-- `previous_until`.
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    scope TEXT NOT NULL DEFAULT '{}',
    sources TEXT NOT NULL DEFAULT '[]',
    hash BLOB NOT NULL,
    previous_hash BLOB,
    previous_until REAL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    revoked_at REAL,
    used_at REAL
) STRICT;

-- Grain: one signed-in browser. `hash`: SHA-256 of the cookie's value.
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY,
    person TEXT NOT NULL COLLATE NOCASE REFERENCES people (name) ON DELETE CASCADE,
    csrf TEXT NOT NULL,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL
) STRICT;

-- Grain: one saved view: an address within the service, under a name. `shared`: whether others see it in their list.
CREATE TABLE IF NOT EXISTS saved_views (
    id TEXT PRIMARY KEY,
    person TEXT NOT NULL COLLATE NOCASE REFERENCES people (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    shared INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    UNIQUE (person, name)
) STRICT;

-- Grain: one secret that the service made for itself, such as the key of pseudonyms.
CREATE TABLE IF NOT EXISTS secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

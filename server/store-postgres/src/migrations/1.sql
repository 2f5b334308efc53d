-- The tables of a tenant; `main` stands for its schema. Few of them: each costs a dozen rows of the catalogue.

-- Where the tenant stands; one row, whose lock orders everything that is written for the tenant.
CREATE TABLE main.standing (
    only_row boolean PRIMARY KEY CHECK (only_row),
    format integer NOT NULL,
    -- The version of the schema that the views on collections show; 0 where there are none.
    views bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL,
    horizon bigint NOT NULL,
    epoch bigint NOT NULL,
    -- Which history of the database the epoch belongs to; on another one, devices have to offer what it lacks.
    lineage text NOT NULL,
    digest_key bytea NOT NULL,
    created_at_ms bigint NOT NULL,
    -- Who moves the tenant, which takes no writes meanwhile.
    frozen_by bytea
) WITH (fillfactor = 50);

-- What readers get: the latest state of each row, its tombstone, and what is left of it in scopes that it left. The
-- scope stands as its name: numbers for scopes would save a few bytes and cost a join in every statement.
CREATE TABLE main.changes (
    seq bigint NOT NULL,
    written_at_ms bigint NOT NULL,
    -- Under which number the changes of its documents lie; NULL where there are none.
    document bigint,
    collection integer NOT NULL,
    -- 0: a living row; 1: a deleted row; 2: a row that left the scope.
    kind smallint NOT NULL,
    scope text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (scope, seq)
);
CREATE UNIQUE INDEX rows_by_id ON main.changes (collection, id) WHERE kind < 2;
CREATE INDEX departures_by_id ON main.changes (collection, id) WHERE kind = 2;
CREATE INDEX purgeable ON main.changes (written_at_ms) WHERE kind > 0;

-- Document changes. In the order of (born, position) each follows what it builds on; born is the seq of the commit
-- that brought it.
CREATE TABLE main.chunks (
    document bigint NOT NULL,
    seq bigint NOT NULL,
    born bigint NOT NULL,
    position integer NOT NULL,
    column_id integer NOT NULL,
    hash bytea NOT NULL,
    bytes bytea NOT NULL,
    PRIMARY KEY (document, column_id, hash)
);
CREATE INDEX chunks_by_seq ON main.chunks (document, seq);

-- 256 sums of 16 bytes for each collection in each scope, in 4 parts of 64 with the total of each: so a part stays in
-- its row, and a small commit writes one.
CREATE TABLE main.sums (
    collection integer NOT NULL,
    part smallint NOT NULL,
    scope text COLLATE "C" NOT NULL,
    total bytea NOT NULL,
    sums bytea NOT NULL,
    PRIMARY KEY (scope, collection, part)
) WITH (fillfactor = 50);

CREATE TABLE main.marks (
    high_water bigint NOT NULL,
    settled bigint NOT NULL,
    last_stamp bigint NOT NULL,
    device bytea PRIMARY KEY
) WITH (fillfactor = 70);

CREATE TABLE main.outcomes (
    number bigint NOT NULL,
    device bytea NOT NULL,
    content bytea NOT NULL,
    answer bytea NOT NULL,
    PRIMARY KEY (device, number)
);

-- The resources, as the shared queries expect them.
CREATE TABLE main.devices (
    id bytea PRIMARY KEY,
    user_id bytea NOT NULL,
    name text NOT NULL,
    grants text NOT NULL,
    suspended bigint NOT NULL,
    created_at_ms bigint NOT NULL
);

CREATE TABLE main.signing_keys (
    generation bigint PRIMARY KEY,
    kid text NOT NULL UNIQUE,
    algorithm text NOT NULL,
    sealed_private_key bytea NOT NULL,
    public_jwk text NOT NULL,
    created_at_ms bigint NOT NULL,
    retired_at_ms bigint
);

CREATE TABLE main.schemas (
    version bigint PRIMARY KEY,
    follows bigint NOT NULL UNIQUE,
    json text NOT NULL,
    applied_at_ms bigint NOT NULL
);

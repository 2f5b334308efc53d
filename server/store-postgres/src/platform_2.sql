-- Other clusters of databases, in which tenants may be instead of here. The URL is sealed with the master key.
CREATE TABLE farshore.clusters (
    name text COLLATE "C" PRIMARY KEY,
    sealed_url bytea NOT NULL,
    added_at_ms bigint NOT NULL
);

-- Where a tenant is, if not here, and where it is being moved to.
ALTER TABLE farshore.tenants
    ADD COLUMN cluster text COLLATE "C" REFERENCES farshore.clusters (name),
    ADD COLUMN moving_to text COLLATE "C";

-- The copy of each tenant that began to arrive last.
CREATE TABLE farshore.arrivals (
    tenant text COLLATE "C" PRIMARY KEY,
    token bytea NOT NULL
)

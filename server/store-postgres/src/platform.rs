//! The schema `farshore`, prepared at the start: which tenants there are, and under which master key.

use std::time::Duration;

use data_encoding::HEXLOWER;
use farshore_store::StoreError;
use farshore_store::catalog::CatalogError;
use farshore_store::sealing::{MasterKey, UnsealError};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use crate::config::PostgresConfig;
use crate::failure::{Failure, code_of, one_line};
use crate::names::Roles;
use crate::version::{OPEN_CVE, ServerVersion, Verdict};

/// The newest format of the schema `farshore`.
const FORMAT: i32 = 1;
/// What the master key check is sealed for.
const MASTER_KEY_CHECK_PURPOSE: &str = "master-key-check";
/// The number of the lock under which one node prepares the platform while others wait.
pub(crate) const PREPARATION_LOCK: i64 = 0x6661_7273_686f_7265;
/// Longest wait for another node that prepares the platform, in milliseconds.
const PREPARATION_TIMEOUT_MS: u32 = 30_000;
/// What the views on collections read rows with.
const ROW_READER: &str = include_str!("rows.sql");
/// What tells that the database lacks commits that it once had.
const LINEAGE: &str = include_str!("lineage.sql");
/// What that says where the host does not let anybody ask.
const UNKNOWN_LINEAGE: &str = "unknown";
/// Bytes of the id that tells the roles of one platform from those of another on the same cluster.
const PLATFORM_ID_BYTES: usize = 4;

/// Why the store does not open. Each is one line that says what and where; none holds a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody answers there, or not as Postgres does.
    #[error("{server}: the database cannot be reached: {problem}")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// What went wrong.
        problem: String,
    },
    /// The server lets us not in: a wrong password, an unknown role or database.
    #[error("{server}: the database refuses us: {problem}")]
    Refused {
        /// Who refused.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The server is older than what is served.
    #[error("{server}: this is Postgres {found}, and 15 is the oldest that works")]
    TooOld {
        /// Where it is.
        server: String,
        /// Its version.
        found: String,
    },
    /// The role lacks a right.
    #[error(
        "{server}: {problem}; as a superuser, run: ALTER ROLE \"{role}\" CREATEROLE; \
         GRANT CREATE ON DATABASE \"{database}\" TO \"{role}\""
    )]
    Rights {
        /// Where.
        server: String,
        /// What the server said.
        problem: String,
        /// The role that we sign in with.
        role: String,
        /// The database.
        database: String,
    },
    /// An extension is not there that every database begins with.
    #[error("{server}: {problem}; as a superuser, run: CREATE EXTENSION plpgsql")]
    Extension {
        /// Where.
        server: String,
        /// What the server said.
        problem: String,
    },
    /// There is a schema `farshore`, but not ours, or of a role that we may not use.
    #[error(
        "{server}: the schema farshore is there and is not this server's: {problem}; \
         name another database, or sign in with the role that made it"
    )]
    Foreign {
        /// Where.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What is there does not open.
    #[error("{server}: {source}")]
    Catalog {
        /// Where.
        server: String,
        /// Why.
        source: CatalogError,
    },
}

/// What was found or made at the start.
#[derive(Debug)]
pub(crate) struct Platform {
    pub roles: Roles,
    pub version: ServerVersion,
}

/// Connects, checks the server, and prepares the platform where that was not done yet. Several nodes may start at the
/// same time.
pub(crate) async fn prepare(
    config: &PostgresConfig,
    master: &MasterKey,
) -> Result<Platform, OpenError> {
    let server = config.url.to_string();
    let mut connection = connect(config, &server).await?;
    let found = about(&mut connection).await.map_err(|error| unreachable(&server, &error))?;
    check_server(&found, &server)?;
    let roles = in_one_transaction(&mut connection, &found, master).await;
    // What is left open ends with the connection.
    let _ = connection.close().await;
    let roles = roles.map_err(|failure| explain(failure, server, &found))?;
    Ok(Platform { roles, version: found.version })
}

async fn connect(config: &PostgresConfig, server: &str) -> Result<PgConnection, OpenError> {
    let patience = Duration::from_millis(config.limits.acquire_timeout_ms.into());
    let options = config.url.options();
    match timeout(patience, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error @ sqlx::Error::Database(_))) => {
            Err(OpenError::Refused { server: server.to_owned(), problem: one_line(&error) })
        }
        Ok(Err(error)) => Err(unreachable(server, &error)),
        Err(_) => {
            let problem = format!("no answer within {} ms", config.limits.acquire_timeout_ms);
            Err(OpenError::Unreachable { server: server.to_owned(), problem })
        }
    }
}

fn unreachable(server: &str, error: &sqlx::Error) -> OpenError {
    OpenError::Unreachable { server: server.to_owned(), problem: one_line(error) }
}

/// What the server says about itself and us.
#[derive(Debug)]
struct About {
    version: ServerVersion,
    role: String,
    database: String,
    passes_row_security: bool,
    inherits: bool,
    fsync: bool,
}

async fn about(connection: &mut PgConnection) -> Result<About, sqlx::Error> {
    let query = "SELECT current_setting('server_version_num')::int, current_user::text, \
        current_database()::text, r.rolsuper OR r.rolbypassrls, r.rolinherit, \
        current_setting('fsync') = 'on' \
        FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
    // In one message: outside of a transaction a pooler may hand the second one of a statement to another server.
    let row = sqlx::raw_sql(query).fetch_one(connection).await?;
    let version: i32 = row.try_get(0)?;
    Ok(About {
        version: ServerVersion(version.unsigned_abs()),
        role: row.try_get(1)?,
        database: row.try_get(2)?,
        passes_row_security: row.try_get(3)?,
        inherits: row.try_get(4)?,
        fsync: row.try_get(5)?,
    })
}

fn check_server(found: &About, server: &str) -> Result<(), OpenError> {
    let (version, role) = (found.version, &found.role);
    match version.verdict() {
        Verdict::Fine => {}
        Verdict::Open { closed_in } => tracing::warn!(
            %server, %version,
            "this release of Postgres shows rows of other tenants through statistics ({OPEN_CVE}); \
             upgrade to {closed_in} or newer"
        ),
        Verdict::TooOld => {
            return Err(OpenError::TooOld {
                server: server.to_owned(),
                found: version.to_string(),
            });
        }
    }
    if found.passes_row_security {
        tracing::warn!(
            %server, %role,
            "the role is a superuser or passes row-level security, which takes a wall between tenants away; \
             sign in with a role that has LOGIN, CREATEROLE and NOINHERIT"
        );
    } else if found.inherits && version.line() == 15 {
        tracing::warn!(
            %server, %role,
            "the role inherits the rights of every tenant's role; take that away: ALTER ROLE \"{role}\" NOINHERIT"
        );
    }
    if !found.fsync {
        tracing::warn!(%server, "fsync is off: a power cut loses what was acknowledged");
    }
    Ok(())
}

async fn in_one_transaction(
    connection: &mut PgConnection,
    found: &About,
    master: &MasterKey,
) -> Result<Roles, Failure> {
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\
         SET LOCAL search_path = pg_catalog, pg_temp;\
         SET LOCAL statement_timeout = {PREPARATION_TIMEOUT_MS}"
    );
    script(connection, begin).await?;
    // Anybody who may sign in may hold the lock: once there are tenants, nobody waits for it any more.
    let mut there = is_prepared(connection).await?;
    if !there {
        script(connection, format!("SELECT pg_advisory_xact_lock({PREPARATION_LOCK})")).await?;
        there = is_prepared(connection).await?;
    }
    let roles = if there {
        read(connection, master).await?
    } else {
        create(connection, found.version, master).await?
    };
    let lineage: String = sqlx::query("SELECT farshore.lineage()")
        .persistent(false)
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if lineage == UNKNOWN_LINEAGE {
        tracing::warn!(
            "this database does not tell when a standby was promoted: after one that lagged, start once with \
             --restored-from-backup, so that devices offer what it lacks"
        );
    }
    script(connection, "COMMIT".to_owned()).await?;
    Ok(roles)
}

async fn is_prepared(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not by `to_regclass`: it remembers that there was none, also when another node has just made it.
    let look = "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables \
        WHERE schemaname = 'farshore' AND tablename = 'platform')";
    sqlx::query(look).persistent(false).fetch_one(connection).await?.try_get(0)
}

async fn create(
    connection: &mut PgConnection,
    version: ServerVersion,
    master: &MasterKey,
) -> Result<Roles, Failure> {
    let operation = "prepare the platform";
    let mut id = [0; PLATFORM_ID_BYTES];
    aws_lc_rs::rand::fill(&mut id).map_err(|error| StoreError::database(operation, error))?;
    let id = HEXLOWER.encode(&id);
    let roles = Roles::new(&id);
    let owner = roles.owner();
    let tables = format!(
        "CREATE SCHEMA farshore;\
         {ROW_READER}{LINEAGE}\
         CREATE TABLE farshore.platform (\
             only_row boolean PRIMARY KEY CHECK (only_row),\
             format integer NOT NULL,\
             id text NOT NULL,\
             master_key_check bytea NOT NULL);\
         CREATE TABLE farshore.clusters (\
             name text COLLATE \"C\" PRIMARY KEY,\
             sealed_url bytea NOT NULL,\
             max_connections bigint NOT NULL,\
             added_at_ms bigint NOT NULL);\
         CREATE TABLE farshore.tenants (\
             id text COLLATE \"C\" PRIMARY KEY,\
             key text COLLATE \"C\" NOT NULL UNIQUE,\
             erased boolean NOT NULL,\
             created_at_ms bigint NOT NULL,\
             cluster text COLLATE \"C\" REFERENCES farshore.clusters (name),\
             moving_to text COLLATE \"C\",\
             mover bytea);\
         CREATE TABLE farshore.arrivals (\
             tenant text COLLATE \"C\" PRIMARY KEY,\
             key text COLLATE \"C\" NOT NULL);\
         CREATE ROLE {owner} NOLOGIN;\
         {}",
        grant_to_us(&owner, version)
    );
    script(connection, tables).await?;
    let sealed = master
        .seal(MASTER_KEY_CHECK_PURPOSE, b"")
        .map_err(|error| StoreError::database(operation, error))?;
    let insert = "INSERT INTO farshore.platform (only_row, format, id, master_key_check) \
        VALUES (true, $1, $2, $3)";
    let insert = sqlx::query(insert).persistent(false).bind(FORMAT).bind(id).bind(sealed);
    insert.execute(connection).await?;
    Ok(roles)
}

async fn read(connection: &mut PgConnection, master: &MasterKey) -> Result<Roles, Failure> {
    let query = "SELECT format, id, master_key_check FROM farshore.platform";
    let row: PgRow = sqlx::query(query).persistent(false).fetch_one(connection).await?;
    let (format, id): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if format > FORMAT {
        let (found, newest) = (format.unsigned_abs(), FORMAT.unsigned_abs());
        return Err(StoreError::NewerFormat { found, newest }.into());
    }
    let sealed: Vec<u8> = row.try_get(2)?;
    match master.open(MASTER_KEY_CHECK_PURPOSE, &sealed) {
        Ok(_) => Ok(Roles::new(&id)),
        Err(UnsealError::WrongMasterKey) => Err(Failure::WrongMasterKey),
        Err(error @ UnsealError::Damaged) => {
            Err(Failure::Damaged(format!("farshore.platform: the master key check: {error}")))
        }
    }
}

/// Makes us a member of a role, so that we may take it on, without inheriting its rights.
pub(crate) fn grant_to_us(role: &str, version: ServerVersion) -> String {
    // Before 16 whether rights are inherited is a matter of the member, not of the membership.
    let options = if version.line() >= 16 { " WITH INHERIT FALSE, SET TRUE" } else { "" };
    format!("GRANT {role} TO CURRENT_USER{options}")
}

async fn script(connection: &mut PgConnection, text: String) -> Result<(), Failure> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await?;
    Ok(())
}

fn explain(failure: Failure, server: String, found: &About) -> OpenError {
    let code = match &failure {
        Failure::Sqlx(error) => code_of(error),
        _ => None,
    };
    let (role, database) = (found.role.clone(), found.database.clone());
    let problem = one_line(&failure);
    match code.as_deref() {
        // Not allowed, where nothing is there yet: creating a schema or a role.
        Some("42501") if !problem.contains("schema farshore") => {
            OpenError::Rights { server, problem, role, database }
        }
        // No such object, which is the language that our functions are written in.
        Some("42704") if problem.contains("plpgsql") => OpenError::Extension { server, problem },
        // Not allowed; exists already; has no such column; is no table.
        Some("42501" | "42P06" | "42703" | "42809") => OpenError::Foreign { server, problem },
        _ => {
            let source = match failure {
                Failure::WrongMasterKey => CatalogError::WrongMasterKey { what: server.clone() },
                failure => CatalogError::Store(failure.during("prepare the platform")),
            };
            OpenError::Catalog { server, source }
        }
    }
}

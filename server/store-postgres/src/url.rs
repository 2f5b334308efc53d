//! Where the database is. The password that may stand in a URL never shows: not in `Debug`, not in an error.

use std::fmt;
use std::str::FromStr;

use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

/// What may stand behind the question mark; anything else is refused rather than passed by, since a misspelt
/// `sslmode` would otherwise mean no TLS.
const PARAMETERS: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// Why a text is no URL of a database. None of them repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// It begins with something else.
    #[error("it does not begin with postgres:// or postgresql://")]
    Scheme,
    /// A parameter is none of those that are known.
    #[error("it has the parameter {name:?}; known are {}", PARAMETERS.join(", "))]
    UnknownParameter {
        /// Its name.
        name: String,
    },
    /// It cannot be read for another reason.
    #[error("{problem}")]
    Malformed {
        /// What is wrong.
        problem: String,
    },
}

/// Where the database is, and who signs in there.
#[derive(Clone)]
pub struct DatabaseUrl(Box<PgConnectOptions>);

impl DatabaseUrl {
    /// How to connect: with nothing that a pooler in transaction mode would refuse or keep for somebody else.
    pub(crate) fn options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::clone(&self.0);
        options
            .statement_cache_capacity(0)
            .extra_float_digits(None)
            // Statements name tenants; the store logs what matters by itself.
            .disable_statement_logging()
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(DatabaseUrlError::Scheme);
        }
        let parameters = text.split_once('?').map_or("", |(_, parameters)| parameters);
        let names = parameters.split('&').filter(|parameter| !parameter.is_empty());
        for name in names.map(|parameter| parameter.split('=').next().unwrap_or(parameter)) {
            if !PARAMETERS.contains(&name) {
                return Err(DatabaseUrlError::UnknownParameter { name: name.to_owned() });
            }
        }
        let options: PgConnectOptions = text.parse().map_err(|error: sqlx::Error| {
            DatabaseUrlError::Malformed { problem: error.to_string().replace('\n', " ") }
        })?;
        let name = options.get_application_name().unwrap_or("farshore").to_owned();
        Ok(Self(Box::new(options.application_name(&name))))
    }
}

impl fmt::Display for DatabaseUrl {
    /// Everything but the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, port) = (self.0.get_username(), self.0.get_port());
        match self.0.get_socket() {
            Some(socket) => write!(f, "postgres://{user}@{}:{port}", socket.display())?,
            None => write!(f, "postgres://{user}@{}:{port}", self.0.get_host())?,
        }
        self.0.get_database().map_or(Ok(()), |database| write!(f, "/{database}"))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

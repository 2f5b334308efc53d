//! The services that the tests need: started for the length of a run, installed first where that is allowed.

use std::path::Path;
use std::process::Command;

use test_services::ServiceError;
use test_services::packages::{self, APT_PACKAGES, INSTALL_HINT};
use test_services::postgres::{Postgres, URL_VARIABLE};

use crate::failure::Failure;
use crate::process::{run, setting};

/// The program that installs packages on Debian and Ubuntu.
const APT_GET: &str = "/usr/bin/apt-get";

/// A Postgres for the tests, which ends when this is dropped or we end; or the one that the environment names.
pub fn postgres() -> Result<Postgres, Failure> {
    if !packages::are_installed() {
        install()?;
    }
    if setting(URL_VARIABLE).is_none() {
        eprintln!("xtask: starting Postgres");
    }
    Postgres::find_or_start().map_err(|error| match error {
        ServiceError::Missing => Failure::Missing(INSTALL_HINT.to_owned()),
        ServiceError::Failed { .. } => Failure::Service(error.to_string()),
    })
}

/// Installs the packages where we may.
fn install() -> Result<(), Failure> {
    if !Path::new(APT_GET).is_file() || !is_root() {
        return Err(Failure::Missing(INSTALL_HINT.to_owned()));
    }
    let packages = APT_PACKAGES.join(" ");
    eprintln!(
        "xtask: Postgres, PgBouncer or NATS is not here; running apt-get install -y {packages}"
    );
    if run(apt_get(&["install", "-y", "--no-install-recommends"], &APT_PACKAGES)).is_ok() {
        return Ok(());
    }
    // A fresh machine may have no lists of packages yet.
    run(apt_get(&["update"], &[]))?;
    run(apt_get(&["install", "-y", "--no-install-recommends"], &APT_PACKAGES))
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Command {
    let mut command = Command::new(APT_GET);
    command.args(arguments).args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

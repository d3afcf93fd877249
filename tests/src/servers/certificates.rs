//! A certificate authority of a test's own, and what it signs. The keys are gone with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::guard::Guard;
use crate::place::temporary_directory;
use crate::postmaster::run;

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

pub struct Authority {
    directory: PathBuf,
    _guard: Guard,
}

/// A certificate and its key, as PEM files that live as long as their authority.
#[derive(Clone, Debug)]
pub struct Certificate {
    file: PathBuf,
    key_file: PathBuf,
}

impl Authority {
    pub fn new() -> Result<Authority> {
        let directory = temporary_directory()?;
        let authority = Authority { _guard: Guard::watch(&directory)?, directory };
        run(Command::new("openssl")
            .args(["req", "-x509", "-days", "30", "-subj", "/CN=pgflow tests"])
            .args(KEY)
            .args(["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .arg("-keyout")
            .arg(authority.path("ca.key"))
            .arg("-out")
            .arg(authority.file()))?;
        Ok(authority)
    }

    /// Its own certificate: for `sslrootcert` and `ca_file`.
    pub fn file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// For a server of these names (`DNS:db.example`, `IP:127.0.0.1`).
    pub fn server(&self, names: &[&str]) -> Result<Certificate> {
        self.sign("server", names, "serverAuth")
    }

    /// For a client: the role's name is the common name.
    pub fn client(&self, role: &str) -> Result<Certificate> {
        self.sign(role, &[], "clientAuth")
    }

    fn sign(&self, common_name: &str, names: &[&str], usage: &str) -> Result<Certificate> {
        let number = fs::read_dir(&self.directory)?.count();
        let certificate =
            Certificate { file: self.path(&format!("{number}.pem")), key_file: self.path(&format!("{number}.key")) };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", "30", "-subj", &format!("/CN={common_name}")]).args(KEY);
        command.arg("-CA").arg(self.file()).arg("-CAkey").arg(self.path("ca.key"));
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", "keyUsage=critical,digitalSignature"]);
        command.args(["-addext", &format!("extendedKeyUsage={usage}")]);
        if !names.is_empty() {
            command.args(["-addext", &format!("subjectAltName={}", names.join(","))]);
        }
        run(command.arg("-keyout").arg(&certificate.key_file).arg("-out").arg(&certificate.file))?;
        Ok(certificate)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Certificate {
    pub fn file(&self) -> &Path {
        &self.file
    }

    pub fn key_file(&self) -> &Path {
        &self.key_file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Cluster, SUPERUSER};
    use crate::postmaster::Programs;

    fn psql(cluster: &Cluster, options: &str, password: &str) -> Result<String> {
        let connection =
            format!("host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user=ann {options}", cluster.port());
        let answer = run(Programs::find()?.client("psql").env("PGPASSWORD", password).args([
            "-XAtc",
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            &connection,
        ]))?;
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }

    #[test]
    fn a_cluster_with_tls_takes_nobody_without_it_or_without_the_password() {
        let authority = Authority::new().unwrap();
        let certificate = authority.server(&["DNS:localhost", "IP:127.0.0.1"]).unwrap();
        let cluster = Cluster::options().not_preloaded().with_tls(&certificate).max_connections(20).start().unwrap();
        cluster.connect("postgres", SUPERUSER).unwrap().run("CREATE ROLE ann LOGIN PASSWORD 'right'").unwrap();
        let full = format!("sslmode=verify-full sslrootcert={}", authority.file().display());
        assert_eq!(psql(&cluster, &full, "right").unwrap(), "TLSv1.3");
        assert!(psql(&cluster, &full, "wrong").is_err());
        assert!(psql(&cluster, "sslmode=disable", "right").is_err());
        let stranger = Authority::new().unwrap();
        let full = format!("sslmode=verify-full sslrootcert={}", stranger.file().display());
        assert!(psql(&cluster, &full, "right").is_err());
    }
}

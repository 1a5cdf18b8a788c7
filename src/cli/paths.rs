//! The default paths of the daemon's socket and configuration.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looks up one environment variable. Tests pass in their own, since the process has only one
/// environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The reason why there is no default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// XDG_RUNTIME_DIR is needed, and is not an absolute path.
    #[error("neither TOKEND_SOCKET nor XDG_RUNTIME_DIR (an absolute path) is set")]
    NoRuntimeDir,
    /// A home directory is needed, and there is none.
    #[error("none of TOKEND_CONFIG, XDG_CONFIG_HOME and HOME (absolute paths) is set")]
    NoHome,
}

/// The process's own environment, as a [`Lookup`].
#[must_use]
pub fn from_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// `TOKEND_SOCKET`, else `/run/tokend/tokend.sock` for root, else
/// `$XDG_RUNTIME_DIR/tokend/tokend.sock`.
pub fn default_socket() -> Result<PathBuf, PathError> {
    socket_in(&from_environment, is_root())
}

/// `TOKEND_CONFIG`, else `/etc/tokend/tokend.toml` for root, else
/// `$XDG_CONFIG_HOME/tokend/tokend.toml` (`~/.config`).
pub fn default_config() -> Result<PathBuf, PathError> {
    config_in(&from_environment, is_root())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn socket_in(environment: Lookup<'_>, root: bool) -> Result<PathBuf, PathError> {
    if let Some(path) = set(environment, "TOKEND_SOCKET") {
        return Ok(path);
    }
    if root {
        return Ok("/run/tokend/tokend.sock".into());
    }
    let folder = absolute(environment, "XDG_RUNTIME_DIR").ok_or(PathError::NoRuntimeDir)?;
    Ok(folder.join("tokend/tokend.sock"))
}

fn config_in(environment: Lookup<'_>, root: bool) -> Result<PathBuf, PathError> {
    if let Some(path) = set(environment, "TOKEND_CONFIG") {
        return Ok(path);
    }
    if root {
        return Ok("/etc/tokend/tokend.toml".into());
    }
    let folder = absolute(environment, "XDG_CONFIG_HOME")
        .or_else(|| Some(absolute(environment, "HOME")?.join(".config")))
        .ok_or(PathError::NoHome)?;
    Ok(folder.join("tokend/tokend.toml"))
}

/// The variable's value as a path. An empty variable counts as not set.
fn set(environment: Lookup<'_>, name: &str) -> Option<PathBuf> {
    let value = environment(name)?;
    (!value.is_empty()).then(|| value.into())
}

/// The value if it is an absolute path. The XDG base directory specification says to ignore
/// relative ones.
fn absolute(environment: Lookup<'_>, name: &str) -> Option<PathBuf> {
    set(environment, name).filter(|path| Path::is_absolute(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |name| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        }
    }

    #[test]
    fn sockets() {
        let socket = |set: &[(&str, &str)], root| {
            socket_in(&environment(set), root).map(|path| path.display().to_string())
        };
        assert_eq!(
            socket(&[("TOKEND_SOCKET", "x.sock")], true).unwrap(),
            "x.sock"
        );
        assert_eq!(
            socket(
                &[("TOKEND_SOCKET", ""), ("XDG_RUNTIME_DIR", "/run/user/0")],
                true
            )
            .unwrap(),
            "/run/tokend/tokend.sock"
        );
        assert_eq!(
            socket(&[("XDG_RUNTIME_DIR", "/run/user/1000")], false).unwrap(),
            "/run/user/1000/tokend/tokend.sock"
        );
        assert_eq!(
            socket(&[("XDG_RUNTIME_DIR", "run")], false),
            Err(PathError::NoRuntimeDir)
        );
        assert_eq!(socket(&[], false), Err(PathError::NoRuntimeDir));
    }

    #[test]
    fn configurations() {
        let config = |set: &[(&str, &str)], root| {
            config_in(&environment(set), root).map(|path| path.display().to_string())
        };
        assert_eq!(
            config(&[("TOKEND_CONFIG", "/x.toml")], true).unwrap(),
            "/x.toml"
        );
        assert_eq!(
            config(&[("HOME", "/root")], true).unwrap(),
            "/etc/tokend/tokend.toml"
        );
        assert_eq!(
            config(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")], false).unwrap(),
            "/c/tokend/tokend.toml"
        );
        assert_eq!(
            config(&[("XDG_CONFIG_HOME", "c"), ("HOME", "/h")], false).unwrap(),
            "/h/.config/tokend/tokend.toml"
        );
        assert_eq!(config(&[], false), Err(PathError::NoHome));
    }
}

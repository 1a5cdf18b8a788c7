//! Checks that the users and groups in access rules exist, and that they can reach the socket. The
//! rules decide who may have a credential. Owner and mode of the socket decide who may ask at all.

use std::collections::HashSet;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::accounts::{Owned, UserAccount, WRITE, group, group_name, members};
use super::daemon::Daemon;
use super::report::DoctorReport;
use super::report::plural;
use crate::caller::SystemDirectory;
use crate::core::policy::Access;
use crate::core::profile::{AccessRule, Config, UserOrGroup};

pub const AREA: &str = "callers";

/// At most this many members of a group are named one by one.
const NAMED: usize = 5;

/// An entry of `access` or `admins`, and the configuration key that it belongs to.
struct RuleEntry<'a> {
    rule: &'a AccessRule,
    key: String,
}

/// Every distinct entry, with the first place where it appears.
fn entries(config: &Config) -> Vec<RuleEntry<'_>> {
    let mut known = HashSet::new();
    let of_profiles = config.profiles.iter().flat_map(|(name, profile)| {
        let rules = match profile {
            Ok(profile) => &profile.access,
            Err(invalid) => &invalid.access,
        };
        rules
            .iter()
            .map(move |rule| (rule, format!("profiles.{name}.access")))
    });
    let admins = config.server.admins.iter();
    let admins = admins.map(|rule| (rule, "server.admins".to_owned()));
    of_profiles
        .chain(admins)
        .filter(|(rule, _)| known.insert((&rule.user, &rule.group, &rule.unit)))
        .map(|(rule, key)| RuleEntry { rule, key })
        .collect()
}

/// Checks every entry of every profile.
pub fn look(report: &mut DoctorReport, config: &Config, socket: &Path, daemon: &Daemon) {
    let entries = entries(config);
    if entries.is_empty() {
        return report.well(
            AREA,
            "no profile has `access`: root and the daemon's own user may use them".into(),
        );
    }
    let gate = Gate::of(config, socket, daemon);
    for RuleEntry { rule, key } in &entries {
        let (_, said) = Access::resolve(
            std::slice::from_ref(*rule),
            daemon.user().uid,
            &SystemDirectory,
        );
        for line in &said {
            report.warning(
                AREA,
                key,
                format!("{key}: {line}"),
                "correct the entry, or make what it names",
            );
        }
        if !said.is_empty() {
            continue;
        }
        if let Some(line) = contradiction(rule) {
            report.warning(AREA, key, format!("{key}: {line}"), "correct the entry");
        } else if let Some(gate) = &gate {
            connecting(report, gate, rule, key);
        }
    }
    if gate.is_none() {
        report.well(
            AREA,
            "who gets as far as the socket is not known while no daemon runs".into(),
        );
    }
    if !report.has_findings(AREA) {
        let count = entries.len();
        let ies = if count == 1 { "y" } else { "ies" };
        report.well(AREA, format!("{count} different entr{ies} of access rules"));
    }
}

/// The complaint about an entry whose user and group no caller can have both. All keys of an entry
/// must match.
fn contradiction(rule: &AccessRule) -> Option<String> {
    let (Some(user), Some(named)) = (&rule.user, &rule.group) else {
        return None;
    };
    let UserOrGroup::Name(user) = user else {
        // The database need not know a number. The groups of such a user are those of its process.
        return None;
    };
    let gid = gid(named)?;
    let who = UserAccount::of_name(user)?;
    (!who.groups.contains(&gid)).then(|| {
        let group = group_name(gid);
        format!(
            "the user {user} is not in the group {group}, and an entry with both wants both: it matches no one, unless a unit \
             has SupplementaryGroups={group}"
        )
    })
}

/// The file permissions that decide who may connect.
struct Gate<'a> {
    socket: &'a Path,
    owned: Owned,
    /// True if the group is the daemon's own.
    own: bool,
}

impl<'a> Gate<'a> {
    /// The socket's permissions as they are, or as they will be made.
    fn of(config: &Config, socket: &'a Path, daemon: &Daemon) -> Option<Gate<'a>> {
        let is_socket =
            std::fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
        if daemon.answers && is_socket {
            let owned = Owned::of(socket)?;
            let own = daemon.user().groups.first() == Some(&owned.gid);
            return Some(Gate { socket, owned, own });
        }
        let who = daemon.who.as_ref()?;
        let gid = match &config.server.socket_group {
            Some(principal) => gid(principal)?,
            None => *who.groups.first()?,
        };
        Some(Gate {
            socket,
            owned: Owned {
                uid: who.uid,
                gid,
                mode: config.server.socket_mode,
            },
            own: who.groups.first() == Some(&gid),
        })
    }

    /// The reason why this user does not reach the socket, and what to do about it. None if it
    /// does.
    fn stops(&self, who: &UserAccount) -> Option<(String, String)> {
        let folder = self.socket.parent().unwrap_or(Path::new("/"));
        if let Some((place, found)) = who.stopped_by(folder, super::accounts::PASS) {
            return Some((
                format!("the folder {} ({})", place.display(), found.told()),
                format!(
                    "run `chmod o+x {}`: the socket's mode decides",
                    place.display()
                ),
            ));
        }
        if who.may(WRITE, self.owned) {
            return None;
        }
        let why = format!(
            "the socket {} ({})",
            self.socket.display(),
            self.owned.told()
        );
        // Members of the daemon's own group may read what the daemon may. Members of root's group
        // may read even more.
        let (first, group) = if self.own || self.owned.gid == 0 {
            let group = "tokend-clients".to_owned();
            let first = format!(
                "give the socket a group for its callers, which neither root's nor the daemon's own is (`groupadd --system {group}`; \
                 `SocketGroup={group}` in tokend.socket, else `socket_group` in [server]); "
            );
            (first, group)
        } else {
            (String::new(), group_name(self.owned.gid))
        };
        let cure = if self.owned.mode & 0o020 == 0 {
            "open the socket to a group: `socket_mode = \"0660\"` and `socket_group` in [server]"
                .into()
        } else {
            format!(
                "{first}run `usermod -aG {group} USER` and start its processes anew, or put SupplementaryGroups={group} into their \
                 unit (which is not seen here)"
            )
        };
        Some((why, cure))
    }
}

fn connecting(report: &mut DoctorReport, gate: &Gate<'_>, rule: &AccessRule, key: &str) {
    let mut stopped = |whom: &str, user: &str, (why, cure): (String, String)| {
        report.warning(
            AREA,
            key,
            format!("{key} permits {whom}, whom {why} keeps from connecting"),
            cure.replace("USER", user),
        );
    };
    match (&rule.user, &rule.group) {
        (Some(UserOrGroup::Name(name)), _) => {
            let stop = UserAccount::of_name(name).and_then(|who| gate.stops(&who));
            if let Some(stop) = stop {
                stopped(&format!("the user {name}"), name, stop);
            }
        }
        (Some(UserOrGroup::Id(uid)), _) => {
            if let Some(stop) = gate.stops(&UserAccount::of_uid(*uid)) {
                stopped(&format!("the user {uid}"), &uid.to_string(), stop);
            }
        }
        (None, Some(principal)) => {
            let Some(gid) = gid(principal) else {
                return;
            };
            // This is a user with that group and no other.
            let anybody = UserAccount {
                uid: u32::MAX,
                groups: vec![gid],
            };
            let Some(stop) = gate.stops(&anybody) else {
                return;
            };
            let group = group_name(gid);
            let members = members(gid);
            let out: Vec<&String> = members
                .iter()
                .filter(|name| {
                    UserAccount::of_name(name).is_some_and(|who| gate.stops(&who).is_some())
                })
                .collect();
            if members.is_empty() {
                stopped(&format!("the group {group}"), "USER", stop);
            } else if !out.is_empty() {
                let named: Vec<&str> = out.iter().take(NAMED).map(|name| name.as_str()).collect();
                let whom = format!(
                    "the group {group}, {} member{} of it ({}{})",
                    out.len(),
                    plural(out.len()),
                    named.join(", "),
                    if out.len() > NAMED { ", …" } else { "" }
                );
                stopped(&whom, named.first().unwrap_or(&"USER"), stop);
            }
        }
        // Nobody can tell which users a unit's processes have.
        (None, None) => {}
    }
}

fn gid(principal: &UserOrGroup) -> Option<u32> {
    match principal {
        UserOrGroup::Id(gid) => Some(*gid),
        UserOrGroup::Name(name) => group(name).map(|(gid, _)| gid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This is the usual mistake. Broken by `stops` that looks at the folder alone.
    #[test]
    fn who_is_not_in_the_sockets_group_is_stopped_and_told_of_the_group() {
        let folder = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir()
            .expect("folder");
        let socket = folder.path().join("s");
        let gate = |mode| Gate {
            socket: &socket,
            owned: Owned {
                uid: 4_000_000,
                gid: 4_000_001,
                mode,
            },
            own: false,
        };
        let worker = |groups: &[u32]| UserAccount {
            uid: 4_000_002,
            groups: groups.to_vec(),
        };
        assert_eq!(gate(0o660).stops(&worker(&[1, 4_000_001])), None);
        assert_eq!(gate(0o666).stops(&worker(&[])), None);
        let (why, cure) = gate(0o660).stops(&worker(&[1])).expect("stopped");
        assert!(
            why.contains("mode 0660, user 4000000, group 4000001"),
            "{why}"
        );
        assert!(cure.contains("usermod -aG 4000001 USER"), "{cure}");
        let own = Gate {
            own: true,
            ..gate(0o660)
        };
        let (_, cure) = own.stops(&worker(&[1])).expect("stopped");
        assert!(
            cure.contains("SocketGroup=tokend-clients")
                && cure.contains("usermod -aG tokend-clients USER"),
            "{cure}"
        );
        let mut roots = gate(0o660);
        roots.owned.gid = 0;
        let (_, cure) = roots.stops(&worker(&[1])).expect("stopped");
        assert!(
            cure.contains("socket_group") && !cure.contains("root USER"),
            "{cure}"
        );
        let (_, cure) = gate(0o600).stops(&worker(&[4_000_001])).expect("stopped");
        assert!(cure.contains("socket_mode"), "{cure}");
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("mode");
        let (why, cure) = gate(0o666).stops(&worker(&[])).expect("stopped");
        assert!(
            why.contains("the folder") && cure.contains("chmod o+x"),
            "{why} {cure}"
        );
    }

    #[test]
    fn root_is_never_stopped_and_a_rule_for_both_wants_both() {
        let rule = |group: &str| AccessRule {
            user: Some(UserOrGroup::Name("root".into())),
            group: Some(UserOrGroup::Name(group.into())),
            unit: None,
        };
        assert_eq!(contradiction(&rule("root")), None);
        // Every database has this group, and it belongs to nobody but its own user.
        let line = contradiction(&rule("nogroup")).or_else(|| contradiction(&rule("nobody")));
        assert!(
            line.is_some_and(|line| line.contains("matches no one")),
            "neither nogroup nor nobody"
        );
    }
}

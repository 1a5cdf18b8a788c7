//! May this caller have this profile's credential? The default is no. Every key of an entry must
//! hold, any entry suffices, and an unknown fact about a caller never matches.

pub mod stated;
pub mod subuid;
#[cfg(test)]
mod tests;
pub mod unit;

use std::collections::HashSet;
use std::fmt;

use super::profile::{AccessRule, UserOrGroup};

/// Who asks, according to the kernel. Ids that stand for an id of another user namespace never
/// appear here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The effective user at the time of the connection.
    pub uid: u32,
    /// The effective group at the time of the connection.
    pub gid: u32,
    /// The supplementary groups at the time of the connection.
    pub groups: Vec<u32>,
    /// The process that connected. It is for records only, never for decisions, since numbers are
    /// used again.
    pub pid: Option<i32>,
}

impl Caller {
    /// Whether the same rules hold for both callers, whatever their units.
    #[must_use]
    pub fn is_same_principal(&self, other: &Caller) -> bool {
        (self.uid, self.gid, &self.groups) == (other.uid, other.gid, &other.groups)
    }
}

/// What the daemon knows about the caller's systemd unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// The unit has not been looked up so far.
    NotAsked,
    /// The caller is in no unit, or its unit cannot be known.
    Unknown,
    /// The caller is in this unit.
    Known(&'a str),
}

impl<'a> Unit<'a> {
    /// The name of the unit, if it is known.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match self {
            Unit::Known(name) => Some(name),
            Unit::NotAsked | Unit::Unknown => None,
        }
    }
}

/// The caller that a decision is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The ids of the caller.
    pub caller: &'a Caller,
    /// The unit of the caller, as far as it is known.
    pub unit: Unit<'a>,
}

/// Root, the daemon's own user, and users and groups that access rules name. An entry with only a
/// unit names nobody here, since the callers in it are unknown until a unit is looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    users: HashSet<u32>,
    groups: HashSet<u32>,
}

impl Named {
    /// Whether these include the caller.
    #[must_use]
    pub fn has(&self, caller: &Caller) -> bool {
        let is_named = |gid| self.groups.contains(gid);
        self.users.contains(&caller.uid)
            || is_named(&caller.gid)
            || caller.groups.iter().any(is_named)
    }
}

/// The access rules of one profile, with names turned into numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    daemon: u32,
    entries: Vec<PolicyEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PolicyEntry {
    user: Option<Id>,
    group: Option<Id>,
    unit: Option<Box<str>>,
    /// The rule as it was written.
    rule: AccessRule,
}

/// A number, or a name that does not exist: it matches no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Known(u32),
    Nobody,
}

/// The result of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The entry with this index permits.
    Entry(usize),
    /// There are no entries, and the caller is root or the daemon's own user.
    Default,
    /// No entry permits.
    Denied,
    /// No entry permits without the caller's unit, but some entry might if the unit were known.
    NeedsUnit,
}

impl Decision {
    /// Whether the caller is permitted.
    #[must_use]
    pub fn permits(self) -> bool {
        matches!(self, Decision::Entry(_) | Decision::Default)
    }
}

/// The form of the configuration: `access[0]`.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Entry(index) => write!(f, "access[{index}]"),
            Decision::Default => f.write_str("default"),
            Decision::Denied | Decision::NeedsUnit => f.write_str("none"),
        }
    }
}

/// The numbers of users and groups, from the system's database.
pub trait Directory {
    /// The uid of a user name. None: there is no such user.
    ///
    /// # Errors
    /// The database does not answer, which says nothing about the user.
    fn user(&self, name: &str) -> Result<Option<u32>, Unanswered>;
    /// The gid of a group name. None: there is no such group.
    ///
    /// # Errors
    /// The database does not answer, which says nothing about the group.
    fn group(&self, name: &str) -> Result<Option<u32>, Unanswered>;
}

/// A name could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Why, for people.
    pub why: String,
    /// The number that the name had at the last look-up that succeeded.
    pub last: Option<u32>,
}

impl Access {
    /// Turns rules into numbers. Also returns what an operator should know: names that do not
    /// exist, which match no caller, and names that cannot be looked up now, which keep the number
    /// that they had.
    #[must_use]
    pub fn resolve(
        rules: &[AccessRule],
        daemon_uid: u32,
        directory: &impl Directory,
    ) -> (Access, Vec<String>) {
        let mut unknown = Vec::new();
        let mut resolve =
            |principal: &Option<UserOrGroup>,
             kind: &str,
             find: &dyn Fn(&str) -> Result<Option<u32>, Unanswered>| {
                principal.as_ref().map(|principal| match principal {
                UserOrGroup::Id(id) => Id::Known(*id),
                UserOrGroup::Name(name) => match find(name) {
                    Ok(Some(id)) => Id::Known(id),
                    Ok(None) => {
                        unknown.push(format!("access names the {kind} {name:?}, which this host does not know: the entry matches no one"));
                        Id::Nobody
                    }
                    Err(Unanswered { why, last: Some(id) }) => {
                        unknown.push(format!("access names the {kind} {name:?}, which cannot be looked up now ({why}): its last known number {id} still counts"));
                        Id::Known(id)
                    }
                    Err(Unanswered { why, last: None }) => {
                        unknown.push(format!("access names the {kind} {name:?}, which cannot be looked up now ({why}): until it can, the entry matches no one"));
                        Id::Nobody
                    }
                },
            })
            };
        let entries: Vec<PolicyEntry> = rules
            .iter()
            .map(|rule| PolicyEntry {
                user: resolve(&rule.user, "user", &|name| directory.user(name)),
                group: resolve(&rule.group, "group", &|name| directory.group(name)),
                unit: rule.unit.as_deref().map(Box::from),
                rule: rule.clone(),
            })
            .collect();
        (
            Access {
                daemon: daemon_uid,
                entries,
            },
            unknown,
        )
    }

    /// Permits only root, not even the daemon's own user.
    #[must_use]
    pub fn root_only() -> Access {
        Access {
            daemon: 0,
            entries: Vec::new(),
        }
    }

    /// Whom the rules name, for people.
    #[must_use]
    pub fn named_ones(&self) -> String {
        if !self.entries.is_empty() {
            let rules: Vec<String> = self
                .entries
                .iter()
                .map(|one| one.rule.to_string())
                .collect();
            rules.join(", ")
        } else if self.daemon == 0 {
            "root".to_owned()
        } else {
            "root and the daemon's own user".to_owned()
        }
    }

    /// Decides. Entries that do not ask for the unit go first, so that the unit of most callers is
    /// never looked up.
    #[must_use]
    pub fn decide(&self, subject: Subject<'_>) -> Decision {
        if self.entries.is_empty() {
            return if self.is_own(subject.caller) {
                Decision::Default
            } else {
                Decision::Denied
            };
        }
        self.named(subject)
    }

    /// Decides the same for administrators: root and the daemon's own user are administrators,
    /// besides callers that an entry permits.
    #[must_use]
    pub fn administers(&self, subject: Subject<'_>) -> Decision {
        if self.is_own(subject.caller) {
            return Decision::Default;
        }
        self.named(subject)
    }

    fn is_own(&self, caller: &Caller) -> bool {
        caller.uid == 0 || caller.uid == self.daemon
    }

    fn named(&self, subject: Subject<'_>) -> Decision {
        let mut matching = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.ids_match(subject.caller));
        if let Some((index, _)) = matching.clone().find(|(_, entry)| entry.unit.is_none()) {
            return Decision::Entry(index);
        }
        match subject.unit {
            Unit::NotAsked if matching.next().is_some() => Decision::NeedsUnit,
            Unit::NotAsked | Unit::Unknown => Decision::Denied,
            Unit::Known(unit) => matching
                .find(|(_, entry)| entry.unit_matches(unit))
                .map_or(Decision::Denied, |(index, _)| Decision::Entry(index)),
        }
    }

    /// Adds the users and groups that entries name, whatever else the entries require.
    pub fn add_to(&self, named: &mut Named) {
        named.users.extend([0, self.daemon]);
        for entry in &self.entries {
            match (entry.user, entry.group) {
                (Some(Id::Known(uid)), _) => drop(named.users.insert(uid)),
                (None, Some(Id::Known(gid))) => drop(named.groups.insert(gid)),
                _ => {}
            }
        }
    }

    /// Whether any rule depends on a caller's unit.
    #[must_use]
    pub fn asks_for_units(&self) -> bool {
        self.entries.iter().any(|entry| entry.unit.is_some())
    }

    /// Every entry as it was written, and the reason why it does not hold for this caller, if it
    /// does not.
    #[must_use]
    pub fn explain(&self, subject: Subject<'_>) -> Vec<(String, Option<String>)> {
        let entries = self.entries.iter();
        entries
            .map(|entry| (entry.rule.to_string(), entry.why_not(subject)))
            .collect()
    }
}

impl PolicyEntry {
    /// Whether user and group of the entry hold for the caller.
    fn ids_match(&self, caller: &Caller) -> bool {
        // Parsing lets no empty entry through. An empty one would match every caller.
        (self.user.is_some() || self.group.is_some() || self.unit.is_some())
            && self.user.is_none_or(|user| user == Id::Known(caller.uid))
            && self.group.is_none_or(|group| has_group(caller, group))
    }

    fn unit_matches(&self, unit: &str) -> bool {
        self.unit
            .as_deref()
            .is_none_or(|pattern| unit::is_meant(pattern, unit))
    }

    fn why_not(&self, subject: Subject<'_>) -> Option<String> {
        let Subject { caller, unit } = subject;
        let nobody = |id: Option<Id>| id == Some(Id::Nobody);
        if nobody(self.user) || nobody(self.group) {
            return Some("it names somebody whom this host does not know".into());
        }
        if self.user.is_some_and(|user| user != Id::Known(caller.uid)) {
            return Some(format!("the user is {}", caller.uid));
        }
        if self.group.is_some_and(|group| !has_group(caller, group)) {
            return Some("the user is not in the group".into());
        }
        match (&self.unit, unit) {
            (Some(_), Unit::NotAsked | Unit::Unknown) => Some("the unit is not known".into()),
            (Some(_), Unit::Known(unit)) if !self.unit_matches(unit) => {
                Some(format!("the unit is {unit}"))
            }
            _ => None,
        }
    }
}

fn has_group(caller: &Caller, group: Id) -> bool {
    match group {
        Id::Known(gid) => caller.gid == gid || caller.groups.contains(&gid),
        Id::Nobody => false,
    }
}

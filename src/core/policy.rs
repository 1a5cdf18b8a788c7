//! May this caller have this profile's credential? Default deny; every key of an entry must hold, any entry suffices, and
//! what is not known about a caller never matches.

use super::profile::{AccessRule, Principal};

/// Who is asking, as the kernel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Effective user when it connected.
    pub uid: u32,
    /// Effective group when it connected.
    pub gid: u32,
    /// Supplementary groups when it connected.
    pub groups: Vec<u32>,
    /// Process that connected; for records only, never for decisions, since numbers are used again.
    pub pid: Option<i32>,
}

/// Access rules of one profile with names turned into numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    daemon: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    user: Option<Id>,
    group: Option<Id>,
    unit: bool,
}

/// A number, or a name that nobody has: it matches no one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Id {
    Known(u32),
    Nobody,
}

/// What makes a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The entry of this index permits.
    Entry(usize),
    /// No entries, and the caller is root or the daemon's own user.
    Default,
    /// Nothing permits.
    Denied,
}

impl Decision {
    /// Whether the caller may.
    #[must_use]
    pub fn permits(self) -> bool {
        self != Decision::Denied
    }
}

/// Numbers of users and groups, from the system's database.
pub trait Directory {
    /// uid of a user name; None: there is no such user.
    ///
    /// # Errors
    /// When the database does not answer, which says nothing about the user.
    fn user(&self, name: &str) -> Result<Option<u32>, Unanswered>;
    /// gid of a group name; None: there is no such group.
    ///
    /// # Errors
    /// When the database does not answer, which says nothing about the group.
    fn group(&self, name: &str) -> Result<Option<u32>, Unanswered>;
}

/// A name could not be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// Why, for people.
    pub why: String,
    /// The number that the name had when it was last looked up.
    pub last: Option<u32>,
}

impl Access {
    /// Turns rules into numbers. What somebody should know is returned too: names that are not found, which match no one,
    /// and names that cannot be looked up now, which keep the number that they had.
    #[must_use]
    pub fn resolve(
        rules: &[AccessRule],
        daemon_uid: u32,
        directory: &impl Directory,
    ) -> (Access, Vec<String>) {
        let mut unknown = Vec::new();
        let mut resolve =
            |principal: &Option<Principal>,
             kind: &str,
             find: &dyn Fn(&str) -> Result<Option<u32>, Unanswered>| {
                principal.as_ref().map(|principal| match principal {
                Principal::Id(id) => Id::Known(*id),
                Principal::Name(name) => match find(name) {
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
        let entries: Vec<Entry> = rules
            .iter()
            .map(|rule| Entry {
                user: resolve(&rule.user, "user", &|name| directory.user(name)),
                group: resolve(&rule.group, "group", &|name| directory.group(name)),
                unit: rule.unit.is_some(),
            })
            .collect();
        if let Some(unit) = rules.iter().find_map(|rule| rule.unit.as_ref()) {
            unknown.push(format!(
                "access names the unit {unit:?}, and this version does not know callers' units: the entry matches no one"
            ));
        }
        (
            Access {
                daemon: daemon_uid,
                entries,
            },
            unknown,
        )
    }

    /// Decides.
    #[must_use]
    pub fn decide(&self, caller: &Caller) -> Decision {
        if self.entries.is_empty() {
            return if caller.uid == 0 || caller.uid == self.daemon {
                Decision::Default
            } else {
                Decision::Denied
            };
        }
        self.entries
            .iter()
            .position(|entry| entry.matches(caller))
            .map_or(Decision::Denied, Decision::Entry)
    }

    /// Whether the caller is an administrator: root, the daemon's own user, or whom an entry names.
    #[must_use]
    pub fn administers(&self, caller: &Caller) -> bool {
        caller.uid == 0
            || caller.uid == self.daemon
            || self.entries.iter().any(|entry| entry.matches(caller))
    }
}

impl Entry {
    fn matches(&self, caller: &Caller) -> bool {
        // The caller's unit is not known, and what is not known never matches.
        !self.unit
            && (self.user.is_some() || self.group.is_some())
            && self.user.is_none_or(|user| user == Id::Known(caller.uid))
            && self.group.is_none_or(|group| match group {
                Id::Known(gid) => caller.gid == gid || caller.groups.contains(&gid),
                Id::Nobody => false,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Book;

    impl Directory for Book {
        fn user(&self, name: &str) -> Result<Option<u32>, Unanswered> {
            Ok((name == "worker").then_some(1000))
        }
        fn group(&self, name: &str) -> Result<Option<u32>, Unanswered> {
            Ok((name == "ops").then_some(50))
        }
    }

    fn rule(user: Option<&str>, group: Option<&str>, unit: Option<&str>) -> AccessRule {
        AccessRule {
            user: user.map(|name| Principal::Name(name.into())),
            group: group.map(|name| Principal::Name(name.into())),
            unit: unit.map(Into::into),
        }
    }

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller {
            uid,
            gid,
            groups: groups.to_vec(),
            pid: None,
        }
    }

    fn decide(rules: &[AccessRule], caller: &Caller) -> Decision {
        Access::resolve(rules, 990, &Book).0.decide(caller)
    }

    #[test]
    fn without_rules_root_and_the_daemons_user_may() {
        assert_eq!(decide(&[], &caller(0, 0, &[])), Decision::Default);
        assert_eq!(decide(&[], &caller(990, 5, &[])), Decision::Default);
        assert_eq!(decide(&[], &caller(1000, 0, &[0])), Decision::Denied);
    }

    #[test]
    fn with_rules_only_whom_they_name_may_and_root_is_no_exception() {
        let rules = [rule(Some("worker"), None, None)];
        assert_eq!(decide(&rules, &caller(1000, 1, &[])), Decision::Entry(0));
        assert_eq!(decide(&rules, &caller(0, 0, &[])), Decision::Denied);
        assert_eq!(decide(&rules, &caller(990, 0, &[])), Decision::Denied);
    }

    #[test]
    fn all_keys_of_an_entry_must_hold_and_any_entry_suffices() {
        let rules = [
            rule(Some("worker"), Some("ops"), None),
            rule(None, Some("ops"), None),
        ];
        assert_eq!(decide(&rules, &caller(1000, 1, &[50])), Decision::Entry(0));
        assert_eq!(decide(&rules, &caller(7, 50, &[])), Decision::Entry(1));
        assert_eq!(decide(&rules, &caller(1000, 1, &[])), Decision::Denied);
    }

    #[test]
    fn what_is_not_known_never_matches() {
        assert_eq!(
            decide(&[rule(None, None, Some("*"))], &caller(0, 0, &[])),
            Decision::Denied
        );
        assert_eq!(
            decide(
                &[rule(Some("worker"), None, Some("w.service"))],
                &caller(1000, 0, &[])
            ),
            Decision::Denied
        );
        let (access, unknown) = Access::resolve(&[rule(Some("ghost"), None, None)], 990, &Book);
        assert_eq!(access.decide(&caller(1000, 0, &[])), Decision::Denied);
        assert_eq!(unknown.len(), 1);
        assert_eq!(
            decide(&[rule(None, None, None)], &caller(0, 0, &[])),
            Decision::Denied
        );
    }

    #[test]
    fn administrators_are_root_the_daemon_and_whom_the_rules_name() {
        let (admins, _) = Access::resolve(&[rule(Some("worker"), None, None)], 990, &Book);
        assert!(admins.administers(&caller(0, 0, &[])));
        assert!(admins.administers(&caller(990, 0, &[])));
        assert!(admins.administers(&caller(1000, 0, &[])));
        assert!(!admins.administers(&caller(1001, 0, &[])));
    }

    /// Does not answer, and remembers one user.
    struct Down;

    impl Directory for Down {
        fn user(&self, name: &str) -> Result<Option<u32>, Unanswered> {
            Err(Unanswered {
                why: "no answer".into(),
                last: (name == "worker").then_some(1000),
            })
        }
        fn group(&self, name: &str) -> Result<Option<u32>, Unanswered> {
            self.user(name)
        }
    }

    #[test]
    fn a_database_that_does_not_answer_takes_nothing_from_anybody_and_gives_nothing() {
        let rules = [
            rule(Some("worker"), None, None),
            rule(Some("new"), None, None),
        ];
        let (access, said) = Access::resolve(&rules, 990, &Down);
        assert_eq!(access.decide(&caller(1000, 1, &[])), Decision::Entry(0));
        assert_eq!(access.decide(&caller(1001, 1, &[])), Decision::Denied);
        assert!(
            said[0].contains("1000 still counts") && said[1].contains("matches no one"),
            "{said:?}"
        );
    }
}

//! Who is permitted, and what a refused caller is told.

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
        user: user.map(|name| UserOrGroup::Name(name.into())),
        group: group.map(|name| UserOrGroup::Name(name.into())),
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

fn subject<'a>(caller: &'a Caller, unit: Unit<'a>) -> Subject<'a> {
    Subject { caller, unit }
}

fn decide(rules: &[AccessRule], caller: &Caller) -> Decision {
    decide_in(rules, caller, Unit::Unknown)
}

fn decide_in(rules: &[AccessRule], caller: &Caller, unit: Unit<'_>) -> Decision {
    Access::resolve(rules, 990, &Book)
        .0
        .decide(subject(caller, unit))
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
    assert_eq!(
        access.decide(subject(&caller(1000, 0, &[]), Unit::Unknown)),
        Decision::Denied
    );
    assert_eq!(unknown.len(), 1);
    assert_eq!(
        decide(&[rule(None, None, None)], &caller(0, 0, &[])),
        Decision::Denied
    );
}

#[test]
fn the_unit_is_asked_for_only_where_it_decides() {
    let rules = [
        rule(Some("worker"), None, Some("orders@*.service")),
        rule(None, Some("ops"), None),
    ];
    let (worker, ops) = (caller(1000, 1, &[]), caller(1000, 50, &[]));
    let decide = |caller, unit| decide_in(&rules, caller, unit);
    assert_eq!(decide(&worker, Unit::NotAsked), Decision::NeedsUnit);
    assert_eq!(decide(&worker, Unit::Unknown), Decision::Denied);
    let right = Unit::Known("orders@1.service");
    assert_eq!(decide(&worker, right), Decision::Entry(0));
    let wrong = Unit::Known("orders.service");
    assert_eq!(decide(&worker, wrong), Decision::Denied);
    // The same entry decides whether or not the unit has become known meanwhile.
    assert_eq!(decide(&ops, Unit::NotAsked), Decision::Entry(1));
    assert_eq!(decide(&ops, right), Decision::Entry(1));
    // The unit could not change anything.
    let stranger = caller(7, 7, &[]);
    assert_eq!(decide(&stranger, Unit::NotAsked), Decision::Denied);
    assert_eq!(decide(&stranger, right), Decision::Denied);
    assert!(!Decision::NeedsUnit.permits());
    let any = [rule(None, None, Some("*"))];
    assert_eq!(
        decide_in(&any, &stranger, Unit::Unknown),
        Decision::Denied,
        "in no unit is not in any"
    );
}

#[test]
fn each_entry_says_why_it_does_not_hold() {
    let rules = [
        rule(Some("ghost"), None, None),
        rule(Some("worker"), Some("ops"), None),
        rule(Some("worker"), None, Some("a.service")),
        rule(None, None, Some("b.service")),
    ];
    let (access, _) = Access::resolve(&rules, 990, &Book);
    let why = |caller: &Caller, unit| -> Vec<Option<String>> {
        let lines = access.explain(subject(caller, unit)).into_iter();
        lines.map(|(_, why)| why).collect()
    };
    let text = |text: &str| Some(text.to_owned());
    let unknown = text("it names somebody whom this host does not know");
    assert_eq!(
        why(&caller(1000, 1, &[]), Unit::Known("b.service")),
        [
            unknown.clone(),
            text("the user is not in the group"),
            text("the unit is b.service"),
            None
        ]
    );
    assert_eq!(
        why(&caller(7, 50, &[]), Unit::Unknown),
        [
            unknown,
            text("the user is 7"),
            text("the user is 7"),
            text("the unit is not known")
        ]
    );
    assert_eq!(
        access.explain(subject(&caller(7, 7, &[]), Unit::Unknown))[2].0,
        "{ user = \"worker\", unit = \"a.service\" }"
    );
}

#[test]
fn administrators_are_root_the_daemon_and_whom_the_rules_name() {
    let (admins, _) = Access::resolve(&[rule(Some("worker"), None, None)], 990, &Book);
    assert!(
        admins
            .administers(subject(&caller(0, 0, &[]), Unit::Unknown))
            .permits()
    );
    assert!(
        admins
            .administers(subject(&caller(990, 0, &[]), Unit::Unknown))
            .permits()
    );
    assert!(
        admins
            .administers(subject(&caller(1000, 0, &[]), Unit::Unknown))
            .permits()
    );
    assert!(
        !admins
            .administers(subject(&caller(1001, 0, &[]), Unit::Unknown))
            .permits()
    );
}

/// A directory that does not answer, and remembers one user.
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
    assert_eq!(
        access.decide(subject(&caller(1000, 1, &[]), Unit::Unknown)),
        Decision::Entry(0)
    );
    assert_eq!(
        access.decide(subject(&caller(1001, 1, &[]), Unit::Unknown)),
        Decision::Denied
    );
    assert!(
        said[0].contains("1000 still counts") && said[1].contains("matches no one"),
        "{said:?}"
    );
}

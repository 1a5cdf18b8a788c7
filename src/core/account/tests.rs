use proptest::prelude::*;

use super::*;

const USER: u64 = 16;
const IN_ALL: u64 = 64;

fn limits() -> AccountLimits {
    AccountLimits {
        held: [HeldLimit {
            in_all: IN_ALL,
            per_user: USER,
        }; HELD.len()],
        spent: [SpentLimit {
            per_second: 10.0,
            burst: 10.0,
        }; SPENT.len()],
    }
}

fn user(uid: u32) -> Principal {
    Principal {
        uid,
        unit: None,
        reserved: false,
    }
}

fn unit(uid: u32, unit: &str) -> Principal {
    Principal {
        unit: Some(unit.into()),
        ..user(uid)
    }
}

fn at(millis: u64) -> BootTime {
    BootTime(Duration::from_millis(millis))
}

/// Charges one by one until a charge is refused. Returns how many went through, and the limit that
/// ended it.
fn fill(book: &mut AccountBook, who: &Principal, what: Resource) -> (u64, LimitOwner) {
    for taken in 0..=IN_ALL {
        if let Err(full) = book.charge(who, what, 1) {
            return (taken, full);
        }
    }
    unreachable!("more than there is")
}

#[test]
fn a_user_has_its_limit_and_a_unit_three_quarters_of_it() {
    let mut book = AccountBook::new(limits());
    assert_eq!(
        fill(&mut book, &unit(1, "a"), Resource::Streams),
        (12, LimitOwner::Unit(12))
    );
    assert_eq!(
        fill(&mut book, &unit(1, "b"), Resource::Streams),
        (4, LimitOwner::User(16))
    );
    assert_eq!(
        fill(&mut book, &user(1), Resource::Streams),
        (0, LimitOwner::User(16))
    );
    assert_eq!(
        fill(&mut book, &user(2), Resource::Streams),
        (16, LimitOwner::User(16))
    );
    assert_eq!(book.refused_held(Resource::Streams), 4);
    book.release(&unit(1, "a"), Resource::Streams, 12);
    assert_eq!(
        fill(&mut book, &unit(1, "b"), Resource::Streams),
        (8, LimitOwner::Unit(12))
    );
    assert_eq!(
        book.of_user(1, Resource::Connections),
        0,
        "each is counted by itself"
    );
}

#[test]
fn the_last_of_what_there_is_in_all_is_for_those_with_a_reserved_place() {
    let mut book = AccountBook::new(limits());
    for uid in 1..=3 {
        fill(&mut book, &user(uid), Resource::Connections);
    }
    assert_eq!(
        fill(&mut book, &user(4), Resource::Connections),
        (8, LimitOwner::InAll(56))
    );
    let named = Principal {
        reserved: true,
        ..user(5)
    };
    assert_eq!(
        fill(&mut book, &named, Resource::Connections),
        (8, LimitOwner::InAll(64))
    );
    assert_eq!(book.refused_in_all(Resource::Connections), 2);
}

#[test]
fn what_is_spent_comes_back_with_time_and_debts_are_waited_for() {
    let mut book = AccountBook::new(limits());
    let spend = |book: &mut AccountBook, who: &Principal, millis| {
        let mut times = 0;
        while book.may_spend(who, Spent::Requests, at(millis)).is_ok() {
            book.spend(who, Spent::Requests, 1, at(millis));
            times += 1;
        }
        times
    };
    assert_eq!(spend(&mut book, &user(1), 0), 10);
    assert_eq!(spend(&mut book, &user(2), 0), 10, "another's account");
    assert_eq!(spend(&mut book, &user(1), 500), 5);
    assert_eq!(spend(&mut book, &user(1), 10_000), 10);
    assert_eq!(
        book.may_spend(&user(1), Spent::Requests, at(10_000)),
        Err(Duration::from_millis(100))
    );
    // The user looks at more profiles than it may at once: it is served, and pays afterwards.
    book.spend(&user(3), Spent::Profiles, 60, at(0));
    assert_eq!(
        book.may_spend(&user(3), Spent::Profiles, at(0)),
        Err(Duration::from_millis(5100))
    );
    assert!(
        book.may_spend(&user(3), Spent::Requests, at(0)).is_ok(),
        "another kind"
    );
    assert_eq!(spend(&mut book, &unit(4, "a"), 0), 7, "three quarters");
    assert_eq!(
        spend(&mut book, &unit(4, "b"), 0),
        3,
        "the rest of the user's"
    );
}

#[test]
fn accounts_are_not_remembered_for_ever_and_debtors_are() {
    let mut book = AccountBook::new(limits());
    book.charge(&user(7), Resource::Streams, 1).expect("room");
    book.spend(&user(8), Spent::Profiles, 1_000_000_000, at(0));
    for uid in 100..10_100 {
        book.spend(&user(uid), Spent::Requests, 1, at(u64::from(uid) * 1000));
        book.tidy(at(u64::from(uid) * 1000));
    }
    assert!(book.usages().len() <= REMEMBERED + 1);
    assert_eq!(book.of_user(7, Resource::Streams), 1);
    assert!(
        book.may_spend(&user(8), Spent::Profiles, at(10_100_000))
            .is_err()
    );
    for n in 0..10_000 {
        let _ = book.charge(&unit(9, &format!("u{n}")), Resource::Bytes, 1);
    }
    let units = book.usages().iter().filter(|one| one.uid == 9).count();
    assert!(units <= UNITS_OF_A_USER + 1, "{units}");
}

/// One step of a principal that wants as much as possible.
#[derive(Clone, Debug)]
enum Step {
    Charge(u8, usize, u64),
    Release,
    Spend(u8, usize, u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, 0..HELD.len(), 1..USER * 2)
            .prop_map(|(unit, what, much)| Step::Charge(unit, what, much)),
        Just(Step::Release),
        (0..4u8, 0..SPENT.len(), 1..100u64)
            .prop_map(|(unit, what, much)| Step::Spend(unit, what, much)),
        (1..2000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever one principal does, in whichever units: another with a reserved place gets as much
    /// as its own limit allows, at every moment. When all is given back, nothing is left. Broken by
    /// an account that two users share, by a refusal that charges, by a release that forgets the
    /// unit, and by a total without the reserve.
    #[test]
    fn nobody_pays_for_what_another_takes(steps in proptest::collection::vec(step(), 1..200)) {
        let mut book = AccountBook::new(AccountLimits {
            held: [HeldLimit { in_all: USER * 8, per_user: USER }; HELD.len()],
            ..limits()
        });
        let bystander = Principal { reserved: true, ..user(1000) };
        let mut charges: Vec<(Principal, Resource, u64)> = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                Step::Charge(number, what, much) => {
                    // Eight users of four units each may together want sixteen times what there is.
                    let who = unit(u32::try_from(much % 8).expect("small"), &number.to_string());
                    if book.charge(&who, HELD[what], much).is_ok() {
                        charges.push((who, HELD[what], much));
                    }
                }
                Step::Release => {
                    if let Some((who, what, much)) = charges.pop() {
                        book.release(&who, what, much);
                    }
                }
                Step::Spend(number, what, much) => {
                    let who = unit(u32::from(number), "x");
                    if book.may_spend(&who, SPENT[what], at(now)).is_ok() {
                        book.spend(&who, SPENT[what], much, at(now));
                    }
                }
                Step::Wait(millis) => now += millis,
            }
            for what in HELD {
                prop_assert!(book.charge(&bystander, what, USER).is_ok(), "{what:?}");
                book.release(&bystander, what, USER);
            }
            for what in SPENT {
                prop_assert!(book.may_spend(&bystander, what, at(now)).is_ok(), "{what:?}");
            }
            for usage in book.usages() {
                for what in HELD {
                    let most = if usage.unit.is_some() { unit_share(USER) } else { USER };
                    prop_assert!(usage.held[what as usize] <= most);
                }
            }
        }
        for (who, what, much) in charges {
            book.release(&who, what, much);
        }
        for what in HELD {
            prop_assert_eq!(book.in_all(what), 0);
        }
        prop_assert!(book.usages().iter().all(|usage| usage.held == [0; HELD.len()]));
    }
}

//! Names of systemd units: finds the unit of a cgroup, and matches units with rules.

/// The endings of units that hold processes. A slice holds other units only.
pub const KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The unit of a process in the cgroup of this path, as the `0::` line of /proc/PID/cgroup has it.
///
/// The unit is the first component that is not a slice. What lies below a unit is made by the unit
/// itself, or by its user's own service manager, and can have any name. None: no unit, for instance
/// in the hierarchy of a container runtime.
#[must_use]
pub fn of_cgroup(path: &str) -> Option<&str> {
    path.split('/')
        .filter(|component| !component.is_empty())
        // systemd puts an underscore before names that the kernel reserves.
        .map(|component| component.strip_prefix('_').unwrap_or(component))
        .find(|component| !component.ends_with(".slice"))
        .filter(|component| KINDS.iter().any(|kind| component.ends_with(kind)))
}

/// The cgroup of the unified hierarchy, from the text of /proc/PID/cgroup.
#[must_use]
pub fn cgroup_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Whether a pattern with `*` (any text) and `?` (any character) matches this unit.
#[must_use]
pub fn is_meant(pattern: &str, unit: &str) -> bool {
    let (pattern, unit) = (pattern.as_bytes(), unit.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // The position of the last `*`, and how much of the unit it takes.
    let mut star = None;
    while seen < unit.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == unit[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                // Only the last star has to take more: the text before it has found its place.
                let Some((back, taken)) = star else {
                    return false;
                };
                star = Some((back, taken + 1));
                at = back + 1;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_component_that_is_not_a_slice() {
        for (path, unit) in [
            ("/system.slice/orders.service", Some("orders.service")),
            (
                "/system.slice/system-orders.slice/orders@1.service",
                Some("orders@1.service"),
            ),
            ("/init.scope", Some("init.scope")),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            // A user's own manager, and a unit that divides its cgroup, choose the names below
            // them.
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service",
                Some("user@1000.service"),
            ),
            (
                "/system.slice/evil.service/orders.service",
                Some("evil.service"),
            ),
            (
                "/system.slice/evil.service/system.slice/orders.service",
                Some("evil.service"),
            ),
            ("/system.slice/_cpu.service/payload", Some("cpu.service")),
            ("/system.slice/data.mount", Some("data.mount")),
            ("/", None),
            ("", None),
            ("/system.slice", None),
            ("/docker/0123456789", None),
            ("/docker/orders.service", None),
            ("/../../system.slice/orders.service", None),
            ("/system.slice/orders.service (deleted)", None),
        ] {
            assert_eq!(of_cgroup(path), unit, "{path:?}");
        }
    }

    #[test]
    fn only_the_line_of_the_unified_hierarchy_counts() {
        let text = "12:name=systemd:/system.slice/a.service\n1:cpu:/b.service\n0::/system.slice/c.service\n";
        assert_eq!(cgroup_of(text), Some("/system.slice/c.service"));
        assert_eq!(cgroup_of("1:name=systemd:/a.service\n"), None);
        assert_eq!(cgroup_of(""), None);
    }

    #[test]
    fn patterns_mean_whole_names() {
        for (pattern, unit, expected) in [
            ("orders.service", "orders.service", true),
            ("orders.service", "orders.services", false),
            ("orders.service", "my-orders.service", false),
            ("orders@*.service", "orders@1.service", true),
            ("orders@*.service", "orders@.service", true),
            ("orders@*.service", "orders@1.scope", false),
            ("orders@*.service", "orders@a.service.service", true),
            ("*", "x.scope", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a?c.service", "abc.service", true),
            ("a?c.service", "ac.service", false),
            ("*a*b", "aab", true),
            ("*a*b", "aaba", false),
            ("**.service", "a.service", true),
            ("session-?.scope", "session-12.scope", false),
        ] {
            assert_eq!(is_meant(pattern, unit), expected, "{pattern:?} {unit:?}");
        }
    }

    /// Broken by a matcher that goes back to every star: the match would take longer than the
    /// machine lasts.
    #[test]
    fn a_pattern_of_stars_takes_no_time() {
        let pattern = "*a".repeat(64) + "b";
        assert!(!is_meant(&pattern, &"a".repeat(256)));
    }
}

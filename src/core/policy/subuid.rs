//! Subordinate uids (subuid(5)): numbers that a user may give to processes in its own user
//! namespaces. Each looks like a separate user to the host, but their owner is responsible for all
//! of them.

/// The ranges of numbers, with their owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubordinateUids {
    /// The first number, the count and the owner, sorted by first number.
    ranges: Vec<(u32, u32, u32)>,
}

impl SubordinateUids {
    /// Reads the text of `/etc/subuid`: `OWNER:FIRST:COUNT` in each line, the owner by name or
    /// number. A line that is malformed or whose owner does not exist is ignored.
    #[must_use]
    pub fn parse(text: &str, mut uid_of: impl FnMut(&str) -> Option<u32>) -> SubordinateUids {
        let mut ranges: Vec<(u32, u32, u32)> = text
            .lines()
            .filter_map(|line| {
                let mut parts = line.trim().split(':');
                let (owner, first, count) = (parts.next()?, parts.next()?, parts.next()?);
                let owner = owner.parse().ok().or_else(|| uid_of(owner))?;
                Some((first.parse().ok()?, count.parse().ok()?, owner))
            })
            .collect();
        ranges.sort_unstable();
        SubordinateUids { ranges }
    }

    /// The owner of the range that this number lies in, else the number itself.
    #[must_use]
    pub fn owner(&self, uid: u32) -> u32 {
        let before = self.ranges.partition_point(|(first, ..)| *first <= uid);
        self.ranges[..before]
            .iter()
            .rev()
            .find(|(first, count, _)| uid - first < *count)
            .map_or(uid, |(.., owner)| *owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subordinate_uid_is_its_owners() {
        let text =
            "worker:100000:65536\n1001:200000:10\nnobody-knows:300000:10\n\nbroken:x:1\n# a:1:2\n";
        let found = SubordinateUids::parse(text, |name| (name == "worker").then_some(1000));
        for (uid, owner) in [
            (0, 0),
            (1000, 1000),
            (99_999, 99_999),
            (100_000, 1000),
            (165_535, 1000),
            (165_536, 165_536),
            (200_009, 1001),
            (200_010, 200_010),
            (300_000, 300_000),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(found.owner(uid), owner, "{uid}");
        }
    }
}

//! Order of a graph that may be deep, wide or broken: no recursion, linear in its links.
//!
//! Knows records only as numbers with sources; what a record is, is no matter here.

use super::Record;

/// All records, each after its sources.
///
/// # Errors
/// The number of a record that is among its own sources. The caller has checked that links are
/// in range.
pub(super) fn sources_first(records: &[Record]) -> Result<Vec<usize>, usize> {
    let users = Users::of(records);
    let mut waits: Vec<usize> = records.iter().map(|r| r.sources().count()).collect();
    let mut order: Vec<usize> = (0..records.len()).filter(|&r| waits[r] == 0).collect();
    let mut done = 0;
    while let Some(&record) = order.get(done) {
        done += 1;
        for &user in users.of_record(record) {
            waits[user] -= 1;
            if waits[user] == 0 {
                order.push(user);
            }
        }
    }
    match waits.iter().position(|&left| left > 0) {
        None => Ok(order),
        Some(stuck) => Err(on_loop(records, &waits, stuck)),
    }
}

/// A record on a loop, found from one that waits for it. Whatever waits has a source that waits,
/// so a walk from source to source must come back to where it has been.
fn on_loop(records: &[Record], waits: &[usize], stuck: usize) -> usize {
    let mut seen = vec![false; records.len()];
    let mut at = stuck;
    while !seen[at] {
        seen[at] = true;
        if let Some(source) = records[at].sources().find(|&s| waits[s] > 0) {
            at = source;
        }
    }
    at
}

/// For each record those that link to it, once per link; all in one allocation.
struct Users {
    starts: Vec<usize>,
    users: Vec<usize>,
}

impl Users {
    fn of(records: &[Record]) -> Self {
        let mut starts = vec![0; records.len() + 1];
        for source in records.iter().flat_map(Record::sources) {
            starts[source + 1] += 1;
        }
        for record in 0..records.len() {
            starts[record + 1] += starts[record];
        }
        let mut free = starts.clone();
        let mut users = vec![0; starts[records.len()]];
        for (user, record) in records.iter().enumerate() {
            for source in record.sources() {
                users[free[source]] = user;
                free[source] += 1;
            }
        }
        Self { starts, users }
    }

    fn of_record(&self, record: usize) -> &[usize] {
        &self.users[self.starts[record]..self.starts[record + 1]]
    }
}

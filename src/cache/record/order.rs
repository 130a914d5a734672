//! Orders the nodes of a graph by their sources, in time linear in its links. It does not recurse, so the
//! graph may be deep.
//!
//! Nodes are numbers, and each has sources.

/// All of `count` nodes, each after its sources.
///
/// # Errors
/// The number of a node that is among its own sources. The caller has checked that sources are in
/// range.
pub(super) fn sources_first<I: Iterator<Item = usize>>(
    count: usize,
    sources: impl Fn(usize) -> I,
) -> Result<Vec<usize>, usize> {
    let users = Users::of(count, &sources);
    let mut waits: Vec<usize> = (0..count).map(|node| sources(node).count()).collect();
    let mut order: Vec<usize> = (0..count).filter(|&node| waits[node] == 0).collect();
    let mut done = 0;
    while let Some(&node) = order.get(done) {
        done += 1;
        for &user in users.of_node(node) {
            waits[user] -= 1;
            if waits[user] == 0 {
                order.push(user);
            }
        }
    }
    match waits.iter().position(|&left| left > 0) {
        None => Ok(order),
        Some(stuck) => Err(on_loop(&sources, &waits, stuck)),
    }
}

/// A node on a loop, found from `stuck`, which waits for its sources. Each waiting node has a source that
/// waits, so a walk from source to source comes back to a node that it has seen.
fn on_loop<I: Iterator<Item = usize>>(
    sources: &impl Fn(usize) -> I,
    waits: &[usize],
    stuck: usize,
) -> usize {
    let mut seen = vec![false; waits.len()];
    let mut at = stuck;
    while !seen[at] {
        seen[at] = true;
        if let Some(source) = sources(at).find(|&source| waits[source] > 0) {
            at = source;
        }
    }
    at
}

/// For each node the nodes that have it as a source, once per link. All are in one allocation.
struct Users {
    starts: Vec<usize>,
    users: Vec<usize>,
}

impl Users {
    fn of<I: Iterator<Item = usize>>(count: usize, sources: &impl Fn(usize) -> I) -> Self {
        let mut starts = vec![0; count + 1];
        for source in (0..count).flat_map(sources) {
            starts[source + 1] += 1;
        }
        for node in 0..count {
            starts[node + 1] += starts[node];
        }
        let mut free = starts.clone();
        let mut users = vec![0; starts[count]];
        for user in 0..count {
            for source in sources(user) {
                users[free[source]] = user;
                free[source] += 1;
            }
        }
        Self { starts, users }
    }

    fn of_node(&self, node: usize) -> &[usize] {
        &self.users[self.starts[node]..self.starts[node + 1]]
    }
}

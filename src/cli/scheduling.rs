//! How the system's scheduler is to treat inlay's threads.
//!
//! It knows nothing of what they do.

use rustix::process::getpriority_process;
use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{Error, ThreadPriority, ThreadPriorityValue};

/// Has this thread, and those that it starts from now on, take no processor from a running process
/// when there is something to do (`SCHED_BATCH`): what fills a socket in the meantime is then moved
/// at once. That matters where the client and the daemon fill all processors, which they do not if
/// one is free. The nice value stays.
///
/// # Errors
/// Where the system refuses.
pub fn yield_to_others() -> Result<(), Error> {
    let nice = getpriority_process(None).map_err(|err| Error::OS(err.raw_os_error()))?;
    let priority = ThreadPriorityValue::try_from(of_nice(nice))
        .map_err(|_| Error::Priority("the nice value is out of its range"))?;
    set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(priority),
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch),
    )
}

/// What `thread-priority` makes this nice value of: it spreads 99 to 0 over -20 to 19, in
/// floats that it cuts off; a fifth of a step keeps clear of that.
fn of_nice(nice: i32) -> u8 {
    let steps = (nice + 20).clamp(0, 39);
    // 98 at most, and never below 0.
    ((5 * 99 * (39 - steps) - 99) / (5 * 39)) as u8
}

#[cfg(test)]
mod tests {
    use thread_priority::unix::thread_schedule_policy;

    use super::*;

    #[test]
    fn every_nice_value_stays() {
        for nice in -20..=19 {
            let value = ThreadPriorityValue::try_from(of_nice(nice)).expect("it is in its range");
            let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
            let made = ThreadPriority::Crossplatform(value).to_posix(policy);
            assert_eq!(made.expect("the policy has it"), nice);
        }
    }

    #[test]
    fn threads_that_are_started_after_yield_too() {
        // In a thread of its own, since the others of this process are to stay as they are.
        let started = std::thread::spawn(|| {
            let before = getpriority_process(None).expect("a nice value");
            yield_to_others().expect("the system allows it");
            assert_eq!(getpriority_process(None).expect("a nice value"), before);
            std::thread::spawn(thread_schedule_policy).join()
        });
        let policy = started.join().expect("no panic").expect("no panic");
        assert_eq!(
            policy.expect("a policy"),
            ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch)
        );
    }
}

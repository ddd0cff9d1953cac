//! The same question to every host at once, and never longer than a person likes to wait.

use std::collections::VecDeque;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use amoeba_world::World;

/// How long all of them together may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Hosts that are asked at the same time.
const THREADS_MAX: usize = 32;

/// Asks every host with `ask` on threads of their own, and gives the answers in the order of `hosts`; `None` for one that
/// did not answer in time. Its thread is left behind.
pub(crate) fn ask<T: Send + 'static>(
    world: &World,
    hosts: &[String],
    ask: impl Fn(&str) -> T + Send + Sync + 'static,
) -> Vec<Option<T>> {
    let (sender, answers) = mpsc::channel();
    let waiting: VecDeque<(usize, String)> = hosts.iter().cloned().enumerate().collect();
    let waiting = Arc::new(Mutex::new(waiting));
    let ask = Arc::new(ask);
    for _ in 0..hosts.len().min(THREADS_MAX) {
        let (sender, waiting, ask) = (sender.clone(), waiting.clone(), ask.clone());
        // Without a thread somebody else takes the host, or it counts as silent.
        let _ = world.threads.spawn("ask", move || {
            let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some((number, host)) = next() {
                if sender.send((number, ask(&host))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut found: Vec<Option<T>> = hosts.iter().map(|_| None).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((number, answer)) => found[number] = Some(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_host_keeps_nobody_waiting() {
        let world = amoeba_loopback::world();
        let hosts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let threads = world.threads.clone();
        let answers = ask(&world, &hosts, move |host| {
            if host == "7" {
                threads.sleep(Duration::from_secs(3600));
            }
            format!("{host}!")
        });
        for (host, answer) in hosts.iter().zip(&answers) {
            let expected = (host != "7").then(|| format!("{host}!"));
            assert_eq!(*answer, expected);
        }
        assert!(ask(&world, &[], |_| ()).is_empty());
    }
}

//! The simulator itself: one seed is one run, crashes leave nothing behind, and hangs are found.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amoeba_sim::{Config, Faults, Sim};
use amoeba_threads as threads;

fn failure_of(run: impl FnOnce() + Send + 'static) -> String {
    let payload = std::thread::spawn(run).join().expect_err("this run fails");
    payload.downcast_ref::<String>().expect("with words").clone()
}

/// Some threads on some hosts that sleep, lock and write, with crashes.
fn a_busy_run(seed: u64) -> (u64, Vec<u32>) {
    let sim = Sim::new(seed, Config { faults: Faults::STORM, ..Config::default() });
    let log = Arc::new(Mutex::new(Vec::new()));
    let hosts = [sim.add_host(), sim.add_host()];
    for (index, host) in hosts.into_iter().enumerate() {
        let log = log.clone();
        sim.program(host, "writer", move |place| {
            let disk = place.disk("disk", 1 << 16);
            let threads = place.world.threads.clone();
            let lock = Arc::new(threads::Mutex::new(&threads, ()));
            for thread in 0..3 {
                let (disk, log, lock, inner) = (disk.clone(), log.clone(), lock.clone(), threads.clone());
                let entropy = place.world.entropy.clone();
                let body = move || loop {
                    let guard = lock.lock();
                    let random = amoeba_world::random::<1>(&*entropy)[0];
                    inner.sleep(Duration::from_micros(u64::from(random)));
                    disk.write(u64::from(random), &[1]).expect("the disk lives as long as we do");
                    drop(guard);
                    log.lock().unwrap().push(index as u32 * 100_000 + thread * 1000 + u32::from(random));
                    inner.sleep(Duration::from_millis(1));
                };
                threads.spawn("writer", body).expect("room");
            }
            threads.sleep(Duration::from_secs(3600));
        });
    }
    sim.run(move |sim| {
        for _ in 0..5 {
            sim.sleep(Duration::from_millis(20));
            sim.crash_host(hosts[0]);
            let victims = sim.processes(hosts[1], "writer");
            victims.into_iter().for_each(|victim| sim.crash_process(victim, Duration::from_millis(3)));
            sim.restart_host(hosts[0]);
        }
    });
    let log = log.lock().unwrap().clone();
    (sim.trace_hash(), log)
}

#[test]
fn one_seed_is_one_run() {
    let runs: Vec<_> = (0..6).map(a_busy_run).collect();
    for (seed, run) in runs.iter().enumerate() {
        assert_eq!(*run, a_busy_run(seed as u64), "seed {seed}");
        assert!(run.1.len() > 100);
    }
    assert_ne!(runs[0].0, runs[1].0);
}

#[test]
fn a_deadlock_is_reported_with_its_threads() {
    let text = failure_of(|| {
        let sim = Sim::new(1, Config::default());
        sim.run(|sim| {
            let semaphore = threads::Semaphore::new(&sim.threads(), 0);
            semaphore.down();
        });
    });
    assert!(text.contains("deadlock") && text.contains("\"root\" of the test: parked"), "{text}");
}

#[test]
fn a_hang_is_reported() {
    let config = Config { time_max: Duration::from_secs(5), ..Config::default() };
    let text = failure_of(move || Sim::new(1, config).run(|sim| sim.sleep(Duration::from_secs(6))));
    assert!(text.contains("no end after 5s"), "{text}");
    let config = Config { steps_max: 1000, ..Config::default() };
    let text = failure_of(move || {
        Sim::new(1, config).run(|sim| {
            loop {
                sim.threads().park(Some(sim.now()));
            }
        });
    });
    assert!(text.contains("no end after 1000 steps"), "{text}");
}

#[test]
fn a_panic_in_a_server_fails_the_run() {
    let text = failure_of(|| {
        let sim = Sim::new(1, Config::default());
        let host = sim.add_host();
        sim.program(host, "server", |_| panic!("an invariant"));
        sim.run(|sim| sim.sleep(Duration::from_secs(1)));
    });
    assert!(text.contains("\"server\" on host 0 panicked: an invariant"), "{text}");
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn killed_threads_unwind_whether_they_ran_waited_or_caught() {
    let sim = Sim::new(3, Config::default());
    let host = sim.add_host();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = dropped.clone();
    sim.run(move |sim| {
        let task = sim.spawn(host, "victim", move |place| {
            let threads = place.world.threads.clone();
            let lock = Arc::new(threads::Mutex::new(&threads, ()));
            for _ in 0..4 {
                let (on_drop, lock, inner) = (OnDrop(counted.clone()), lock.clone(), threads.clone());
                let body = move || {
                    let _on_drop = on_drop;
                    let _guard = lock.lock(); // three of four wait here
                    inner.sleep(Duration::from_secs(100));
                };
                threads.spawn("locker", body).expect("room");
            }
            let inner = threads.clone();
            let stubborn = OnDrop(counted.clone());
            let body = move || {
                let _stubborn = stubborn;
                loop {
                    let sleep = || inner.sleep(Duration::from_secs(1));
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(sleep));
                    inner.sleep(Duration::from_millis(1)); // caught or not, it dies here
                }
            };
            threads.spawn("stubborn", body).expect("room");
            threads.sleep(Duration::from_secs(100));
        });
        sim.sleep(Duration::from_millis(50));
        let victim = task.process().expect("it runs");
        sim.crash_process(victim, Duration::ZERO);
        assert_eq!(task.join(), None);
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 5);
}

#[test]
fn a_destructor_that_waits_for_the_dead_does_not_stop_the_world() {
    struct Waits(threads::Threads);
    impl Drop for Waits {
        fn drop(&mut self) {
            threads::Semaphore::new(&self.0, 0).down();
        }
    }
    let sim = Sim::new(3, Config::default());
    let host = sim.add_host();
    sim.run(move |sim| {
        let task = sim.spawn(host, "victim", |place| {
            let _waits = Waits(place.world.threads.clone());
            place.world.threads.sleep(Duration::from_secs(100));
        });
        sim.sleep(Duration::from_millis(5));
        sim.crash_host(host);
        assert_eq!(task.join(), None);
        sim.sleep(Duration::from_secs(1));
    });
}

#[test]
fn a_crash_in_the_middle_of_writing_loses_no_flushed_byte() {
    for seed in 0..50 {
        let sim = Sim::new(seed, Config::default());
        let host = sim.add_host();
        let flushed = Arc::new(Mutex::new(0u8));
        let noted = flushed.clone();
        sim.program(host, "writer", move |place| {
            let disk = place.disk("disk", 1 << 16);
            let mut old = [0; 4096];
            disk.read(0, &mut old).expect("a living disk");
            let acknowledged = *noted.lock().unwrap();
            // Every sector has the acknowledged generation or a later one.
            assert!(old.iter().all(|byte| *byte >= acknowledged), "seed {seed}");
            for generation in acknowledged + 1..=250 {
                if disk.write(0, &[generation; 4096]).is_err() || disk.flush().is_err() {
                    break;
                }
                *noted.lock().unwrap() = generation;
                place.world.threads.sleep(Duration::from_millis(1));
            }
            place.world.threads.park(None);
        });
        sim.run(move |sim| {
            for operations in 0..20 {
                sim.crash_host_at_disk_operation(host, operations);
                sim.sleep(Duration::from_millis(12));
                assert!(!sim.is_up(host));
                sim.restart_host(host);
            }
        });
        assert!(*flushed.lock().unwrap() > 40);
    }
}

//! The contract of `Scheduler`, and of what AMUTHR builds on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amoeba_threads::{Condition, Mutex, Semaphore, Threads};

/// Spawning, joining, parking, sleeping, mutual exclusion, conditions and semaphores. Takes some tenths of a second of
/// the world's time. Two of its threads panic on purpose.
pub fn threads_keep_their_promises(threads: &Threads) {
    results_come_back(threads);
    a_panic_ends_its_thread_alone(threads);
    an_early_unpark_is_kept(threads);
    a_park_ends_at_its_deadline(threads);
    a_mutex_excludes(threads);
    a_mutex_survives_a_panic(threads);
    a_condition_wakes(threads);
    a_semaphore_counts(threads);
}

fn results_come_back(threads: &Threads) {
    let handles: Vec<_> =
        (0..20).map(|index| threads.spawn("worker", move || index * 2).expect("room for 20")).collect();
    let results: Vec<Option<i32>> = handles.into_iter().map(|handle| handle.join()).collect();
    assert_eq!(results, (0..20).map(|index| Some(index * 2)).collect::<Vec<_>>());
}

fn a_panic_ends_its_thread_alone(threads: &Threads) {
    let handle = threads.spawn("panics", || -> u8 { panic!("on purpose") }).expect("room for one");
    assert_eq!(handle.join(), None);
}

fn an_early_unpark_is_kept(threads: &Threads) {
    let waker = threads.current();
    waker.unpark();
    threads.park(None); // would never return if the wake were lost
    let waker = threads.current();
    threads.spawn("waker", move || waker.unpark()).expect("room for one").join();
    threads.park(None);
}

fn a_park_ends_at_its_deadline(threads: &Threads) {
    let before = threads.now();
    let deadline = before + Duration::from_millis(5);
    while threads.now() < deadline {
        threads.park(Some(deadline));
    }
    threads.park(Some(before)); // long past: returns
    threads.sleep(Duration::from_millis(5));
    assert!(threads.now() >= before + Duration::from_millis(10));
}

fn a_mutex_excludes(threads: &Threads) {
    let counter = Arc::new(Mutex::new(threads, 0));
    let work = |_| {
        let (counter, inner) = (counter.clone(), threads.clone());
        let body = move || {
            for _ in 0..10 {
                let mut value = counter.lock();
                let seen = *value;
                inner.sleep(Duration::from_micros(50)); // others try now
                *value = seen + 1;
            }
        };
        threads.spawn("adder", body).expect("room for eight")
    };
    let handles: Vec<_> = (0..8).map(work).collect();
    assert!(handles.into_iter().all(|handle| handle.join().is_some()));
    assert_eq!(*counter.lock(), 80);
    let held = counter.lock();
    assert!(counter.try_lock().is_none());
    drop(held);
    assert!(counter.try_lock().is_some());
}

fn a_mutex_survives_a_panic(threads: &Threads) {
    let value = Arc::new(Mutex::new(threads, 1));
    let inner = value.clone();
    let body = move || {
        let _held = inner.lock();
        panic!("on purpose");
    };
    threads.spawn("panics", body).expect("room for one").join();
    assert_eq!(*value.lock(), 1);
}

fn a_condition_wakes(threads: &Threads) {
    let queue = Arc::new((Mutex::new(threads, Vec::new()), Condition::new(threads)));
    let inner = queue.clone();
    let consumer = move || {
        let mut taken = Vec::new();
        let mut items = inner.0.lock();
        while taken.len() < 30 {
            while items.is_empty() {
                items = inner.1.wait(items);
            }
            taken.append(&mut items);
        }
        taken
    };
    let consumer = threads.spawn("consumer", consumer).expect("room for one");
    for item in 0..30 {
        queue.0.lock().push(item);
        queue.1.notify_one();
        if item % 7 == 0 {
            threads.sleep(Duration::from_millis(1));
        }
    }
    assert_eq!(consumer.join(), Some((0..30).collect()));
    let guard = queue.0.lock();
    let deadline = threads.now() + Duration::from_millis(2);
    assert!(!queue.1.wait_until(guard, Some(deadline)).1, "nobody notified");
}

fn a_semaphore_counts(threads: &Threads) {
    let semaphore = Arc::new(Semaphore::new(threads, 3));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = |_| {
        let (semaphore, inside, most) = (semaphore.clone(), inside.clone(), most.clone());
        let inner = threads.clone();
        let body = move || {
            semaphore.down();
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            inner.sleep(Duration::from_millis(1));
            inside.fetch_sub(1, Ordering::SeqCst);
            semaphore.up();
        };
        threads.spawn("user", body).expect("room for ten")
    };
    let handles: Vec<_> = (0..10).map(work).collect();
    assert!(handles.into_iter().all(|handle| handle.join().is_some()));
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!(semaphore.level(), 3);
    semaphore.down();
    semaphore.down();
    semaphore.down();
    assert!(!semaphore.try_down(Some(threads.now() + Duration::from_millis(2))), "there is no fourth unit");
}

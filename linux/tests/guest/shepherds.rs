//! Shepherds that wait for guests: each has one after the other, and there are others when they were killed.

use amoeba_cap::Capability;
use amoeba_linux::guest::Isolation;
use amoeba_stubs::process;

use super::{Host, command_of, eventually, everywhere, parent, parent_if_there, sleep_name};

/// Starts a guest that sleeps, and gives it with the number of its warden.
fn sleeper(host: &Host) -> (Capability, u32) {
    let process = host.exec(&command_of(&["sleep", "1000"])).unwrap();
    let records = process::processes(&host.world, &host.server).unwrap();
    let guest = records.iter().find(|record| record.state == process::STATE_RUNNING).unwrap().pid;
    (process, parent(guest))
}

/// The keeper of a guest that is started to find that out; `None` when that does not run, or not long enough.
fn keeper_of_a_guest(host: &Host) -> Option<u32> {
    let process = host.exec(&command_of(&["sleep", "1000"])).ok()?;
    let records = process::processes(&host.world, &host.server).unwrap();
    let is_it = |index: u16| u32::from(index) == process.object().get() & 0xFFFF;
    let guest = records.iter().find(|record| is_it(record.index)).map_or(0, |record| record.pid);
    let keeper = parent_if_there(guest).and_then(parent_if_there);
    let _ = process::signal(&host.world, &process, 9);
    host.wait(&process);
    keeper
}

#[test]
fn a_shepherd_has_one_guest_after_the_other() {
    everywhere("turns", |host| {
        let mut wardens = Vec::new();
        for _ in 0..3 {
            let (process, warden) = sleeper(host);
            wardens.push(warden);
            process::signal(&host.world, &process, 15).unwrap();
            let exit = host.wait(&process);
            assert_eq!((exit.code, exit.signal), (143, 15));
        }
        assert_eq!(wardens[1..], [wardens[0]; 2], "it waited for the next");
        let many: Vec<_> = (0..5).map(|_| host.exec(&command_of(&["sleep", "0.2"])).unwrap()).collect();
        for process in many {
            assert_eq!(host.wait(&process).code, 0);
        }
        let together = process::run(&host.world, &host.server, command_of(&["false"]).encode().unwrap());
        assert_eq!(together.unwrap().result.code, 1);
    });
}

#[test]
fn what_a_guest_leaves_in_shared_memory_is_not_found_by_the_next() {
    let host = Host::start("left", Isolation::Best).unwrap();
    let name = sleep_name(50);
    let (exit, ..) = host.shell(&format!("echo secret > /dev/shm/{name}"));
    assert_eq!(exit.code, 0);
    for _ in 0..4 {
        assert_eq!(host.shell(&format!("cat /dev/shm/{name}")).0.code, 1);
    }
}

#[test]
fn there_are_others_when_all_shepherds_were_killed() {
    everywhere("others", |host| {
        let (process, warden) = sleeper(host);
        let keeper = parent(warden);
        let kill =
            |pid: u32| drop(std::process::Command::new("kill").args(["-9", &pid.to_string()]).status());
        kill(warden);
        assert_eq!(host.wait(&process).signal, 9);
        assert_eq!(host.run(&["true"], b"").unwrap().0.code, 0, "the keeper makes another");
        kill(keeper);
        // Wardens of the old keeper may have guests until they have heard of its end.
        eventually("there is another keeper", || keeper_of_a_guest(host).is_some_and(|now| now != keeper));
        let runs = || host.run(&["true"], b"").is_ok_and(|ran| ran.0.code == 0);
        eventually("its wardens take the guests", runs);
    });
}

//! Shepherds that wait for guests: each has one after the other, and there are others when they were killed.

use amoeba_cap::Capability;
use amoeba_linux::guest::Isolation;
use amoeba_stubs::process;

use super::{Host, command_of, eventually, everywhere, parent, sleep_name};

/// Starts a guest that sleeps, and gives it with the number of its warden.
fn sleeper(host: &Host) -> (Capability, u32) {
    let process = host.exec(&command_of(&["sleep", "1000"])).unwrap();
    let records = process::processes(&host.world, &host.server).unwrap();
    let guest = records.iter().find(|record| record.state == process::STATE_RUNNING).unwrap().pid;
    (process, parent(guest))
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
        // One that is given to a shepherd at the moment of its death does not run.
        eventually("there is another keeper", || host.run(&["true"], b"").is_ok());
        let (process, warden) = sleeper(host);
        assert_ne!(parent(warden), keeper);
        process::signal(&host.world, &process, 9).unwrap();
        assert_eq!(host.wait(&process).signal, 9);
    });
}

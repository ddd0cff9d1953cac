//! Daemons are killed without warning; every file and name that was acknowledged is there afterwards.

use crate::system::{Daemon, System, kill_daemon, random};

/// Files that were acknowledged, to be looked for later.
struct Kept(Vec<(String, Vec<u8>)>);

impl Kept {
    fn store(system: &System) -> Kept {
        system.amoeba(&["mkdir", "kept"]).ok();
        let mut kept = Vec::new();
        for (index, size) in [0, 10, 5_000, 300_000, 2_000_000].into_iter().enumerate() {
            let (name, bytes) = (format!("kept/{index}"), random(size));
            system.amoeba_with(&["put", "-", &name], &bytes).ok();
            kept.push((name, bytes));
        }
        Kept(kept)
    }

    /// All there, by name, unchanged. Commands wait for a daemon that is just being restarted.
    fn check(&self, system: &System, after: &str) {
        for (name, bytes) in &self.0 {
            let outcome = system.wait_for(&format!("{name} after {after}"), || {
                let outcome = system.amoeba(&["cat", name]);
                outcome.status.success().then_some(outcome)
            });
            assert!(outcome.stdout == *bytes, "{name} has changed after {after}: {outcome:?}");
        }
        let names: String = (0..self.0.len()).map(|index| format!("{index}\n")).collect();
        system.amoeba(&["ls", "kept"]).ok().printed(&names);
    }
}

/// Waits until every role that ran before runs again, with another process for each of `killed`.
fn wait_for_restart(system: &System, before: &[Daemon], killed: &[i32]) {
    system.wait_for("the restart of what was killed", || {
        let now = system.daemons();
        let back = |old: &Daemon| now.iter().any(|new| new.role == old.role && !killed.contains(&new.pid));
        before.iter().all(back).then_some(())
    });
}

#[test]
fn each_daemon_may_be_killed_in_turn() {
    let system = System::up();
    let kept = Kept::store(&system);
    let before = system.daemons();
    let roles: Vec<&str> = before.iter().map(|daemon| daemon.role.as_str()).collect();
    for role in ["supervisor", "kernel", "bullet", "directory"] {
        assert!(roles.contains(&role), "no daemon `{role}` among {roles:?}");
    }
    for Daemon { role, .. } in &before {
        let current = system.daemons();
        let Some(victim) = current.iter().find(|daemon| daemon.role == *role) else { continue };
        kill_daemon(victim);
        if role == "supervisor" {
            // Nobody restarts the one who restarts: the next command or `up` does.
            system.amoeba(&["up"]).ok();
        }
        wait_for_restart(&system, &before, &[victim.pid]);
        kept.check(&system, &format!("kill -9 of {role}"));
        system.wait_for("a run after the restart", || {
            let outcome = system.amoeba(&["run", "--", "echo", role]);
            outcome.status.success().then(|| outcome.printed(&format!("{role}\n")))
        });
    }
}

#[test]
fn all_daemons_may_be_killed_at_once() {
    let system = System::up();
    let kept = Kept::store(&system);
    for round in 0..3 {
        let daemons = system.daemons();
        assert!(daemons.len() >= 4, "{daemons:?}");
        // The supervisor first, so that it can restart nothing.
        let first = |daemon: &&Daemon| daemon.role == "supervisor";
        for daemon in daemons.iter().filter(first).chain(daemons.iter().filter(|daemon| !first(daemon))) {
            kill_daemon(daemon);
        }
        system.amoeba(&["up"]).ok();
        kept.check(&system, &format!("kill -9 of all, round {round}"));
    }
}

#[test]
fn down_and_up_again_finds_everything() {
    let system = System::up();
    let kept = Kept::store(&system);
    system.amoeba(&["down"]).ok();
    system.amoeba(&["up"]).ok();
    kept.check(&system, "down and up");
}

#[test]
fn a_command_whose_system_dies_ends_with_75_or_its_own_code() {
    let system = System::up();
    let child = system.command(&["run", "--", "sleep", "1000"]).spawn().unwrap();
    let mut child = child;
    system.wait_for("the command to run", || {
        system.amoeba(&["ps"]).ok().text().contains("sleep 1000").then_some(())
    });
    for daemon in &system.daemons() {
        kill_daemon(daemon);
    }
    let status = crate::system::wait(&mut child, std::time::Duration::from_secs(60));
    let code = status.and_then(|status| status.code());
    assert!(matches!(code, Some(75 | 137)), "never a hang, never a success: {code:?}");
}

#[test]
fn who_waits_for_a_process_whose_kernel_dies_hears_that_it_is_lost() {
    let system = System::up();
    let number = |name: &str| name.rsplit(':').next().map(str::to_owned);
    let name = system.amoeba(&["run", "-d", "--", "sleep", "1000"]).ok().text();
    let mut waiting = [&["wait", &name][..], &["logs", "-f", &name]]
        .map(|command| system.command(command).spawn().unwrap());
    // Long enough for both to have asked; if one has not, it hears the same in other words.
    std::thread::sleep(std::time::Duration::from_millis(500));
    system.daemons().iter().filter(|daemon| daemon.role == "kernel").for_each(kill_daemon);
    for child in &mut waiting {
        let status = crate::system::wait(child, std::time::Duration::from_secs(60));
        assert_eq!(status.and_then(|status| status.code()), Some(75));
    }
    let again = system.wait_for("the kernel", || {
        let outcome = system.amoeba(&["run", "-d", "--", "sleep", "1000"]);
        outcome.status.success().then(|| outcome.text())
    });
    assert_ne!(number(&name), number(&again), "a number of an earlier life names another process");
    system.amoeba(&["kill", &again]).ok();
}

#[test]
fn files_stored_while_servers_are_killed_are_whole_or_refused() {
    let system = System::up();
    system.amoeba(&["mkdir", "busy"]).ok();
    let mut acknowledged = Vec::new();
    for index in 0..20 {
        let (name, bytes) = (format!("busy/{index}"), random(200_000));
        let outcome = std::thread::scope(|scope| {
            let put = scope.spawn(|| system.amoeba_with(&["put", "-", &name], &bytes));
            if index % 4 == 1 {
                let victim = if index % 8 == 1 { "bullet" } else { "directory" };
                system.daemons().iter().filter(|d| d.role == victim).for_each(kill_daemon);
            }
            put.join().unwrap()
        });
        // A refusal is honest; only what was acknowledged is promised.
        if outcome.status.success() {
            acknowledged.push((name, bytes));
        }
    }
    assert!(acknowledged.len() >= 10, "only {} of 20 were stored", acknowledged.len());
    for (name, bytes) in &acknowledged {
        let outcome = system.wait_for(name, || {
            let outcome = system.amoeba(&["cat", name]);
            outcome.status.success().then_some(outcome)
        });
        assert!(outcome.stdout == *bytes, "{name} has changed: {outcome:?}");
    }
}

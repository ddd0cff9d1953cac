//! The state directory, starting and stopping: nothing is made twice, several starts make one system, `down` leaves
//! nobody, and a start that fails says why.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::system::{Daemon, System, kill, kill_daemon, random};

/// Processes whose arguments begin with the binary and a daemon's role, and whose state is that of the test.
fn daemon_processes(system: &System) -> Vec<String> {
    let mark = [b"AMOEBA_STATE=", system.state().as_os_str().as_encoded_bytes(), b"\0"].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.windows(mark.len()).any(|window| window == mark) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

#[test]
fn a_lost_capability_is_put_back_and_never_made_anew() {
    let system = System::up();
    let bytes = random(10_000);
    system.amoeba_with(&["put", "-", "kept"], &bytes).ok();
    system.amoeba(&["down"]).ok();
    for lost in ["root.cap", "bullet.cap", "system.secret"] {
        let (path, saved) = (system.state().join(lost), system.state().join("saved"));
        fs::rename(&path, &saved).unwrap();
        let outcome = system.amoeba(&["up"]).complained(lost);
        assert!(!outcome.status.success(), "{outcome:?}");
        let text = String::from_utf8_lossy(&outcome.stderr).into_owned();
        assert!(text.contains("hint: put the saved copy"), "{text}");
        assert!(!path.exists());
        fs::rename(&saved, &path).unwrap();
    }
    system.amoeba(&["up"]).ok();
    assert!(system.amoeba(&["cat", "kept"]).ok().stdout == bytes);
}

#[test]
fn a_first_start_that_was_interrupted_is_begun_anew() {
    let system = System::up();
    system.amoeba(&["down"]).ok();
    for (mark, capability) in [("bullet.forming", "bullet.cap"), ("directory.forming", "root.cap")] {
        fs::write(system.state().join(mark), "").unwrap();
        fs::remove_file(system.state().join(capability)).unwrap();
    }
    system.amoeba(&["up"]).ok();
    system.amoeba_with(&["put", "-", "new"], b"new").ok();
    assert!(
        !system.state().join("bullet.forming").exists() && !system.state().join("directory.forming").exists()
    );
}

#[test]
fn several_first_starts_make_one_system_and_down_ends_it() {
    let system = System::new();
    fs::remove_dir(system.state()).unwrap();
    for _ in 0..2 {
        let start = || system.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let starts: Vec<_> = (0..6).map(|_| start()).collect();
        for mut start in starts {
            assert!(start.wait().unwrap().success());
        }
        let boots = daemon_processes(&system).iter().filter(|line| line.contains(" boot ")).count();
        assert_eq!(boots, 1, "{:?}", daemon_processes(&system));
        system.amoeba(&["down"]).ok();
        assert_eq!(daemon_processes(&system), Vec::<String>::new());
        system.amoeba(&["status"]).exit(3);
    }
}

#[test]
fn down_during_a_start_leaves_nobody() {
    let system = System::new();
    for round in 0..4 {
        let mut start = system.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        system
            .wait_for("a supervisor", || (round == 0 || !daemon_processes(&system).is_empty()).then_some(()));
        system.amoeba(&["down"]).ok();
        let started = start.wait().unwrap();
        // It may have begun after `down` had ended; else there is nobody, and it says that it failed.
        if !started.success() {
            assert_eq!(daemon_processes(&system), Vec::<String>::new());
        }
        system.amoeba(&["down"]).ok();
        assert_eq!(daemon_processes(&system), Vec::<String>::new());
    }
}

#[test]
fn daemons_that_lost_their_supervisor_and_hang_are_ended() {
    let system = System::up();
    let daemons = system.daemons();
    // A stopped daemon does not hear that its supervisor has gone.
    let bullet = daemons.iter().find(|daemon| daemon.role == "bullet").unwrap();
    kill(bullet.pid, Signal::STOP);
    daemons.iter().filter(|daemon| daemon.role == "supervisor").for_each(kill_daemon);
    system.amoeba(&["status"]).exit(3);
    system.amoeba(&["down"]).ok();
    assert_eq!(daemon_processes(&system), Vec::<String>::new());
    system.amoeba(&["up"]).ok();
    system.amoeba(&["put", "/dev/null", "empty"]).ok();
}

#[test]
fn up_is_true_right_after_a_kill() {
    let system = System::up();
    for _ in 0..5 {
        let daemons = system.daemons();
        let supervisor = daemons.iter().find(|daemon: &&Daemon| daemon.role == "supervisor").unwrap();
        kill(supervisor.pid, Signal::KILL);
        system.amoeba(&["up"]).ok();
        system.wait_for("the old supervisor's end", || {
            // While it ends, the first `up` may have taken it for one that runs; then nothing runs when it has ended.
            let outcome = system.amoeba(&["status", "--json"]);
            let pid = format!("\"pid\":{},", supervisor.pid);
            let text: String = outcome.text().split_whitespace().collect();
            (!outcome.status.success() || !text.contains(&pid)).then_some(())
        });
        system.amoeba(&["up"]).ok();
        system.amoeba(&["ls", "/"]).ok();
    }
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_its_reason_and_only_this_time() {
    let system = System::up();
    system.amoeba(&["down"]).ok();
    let (image, aside) = (system.state().join("bullet.img"), system.state().join("aside"));
    fs::rename(&image, &aside).unwrap();
    system
        .amoeba(&["up"])
        .exit(1)
        .complained("the bullet daemon does not start: cannot open the file server's image");
    fs::rename(&aside, &image).unwrap();
    fs::write(system.state().join("config.toml"), "colour = 1\n").unwrap();
    let outcome = system.amoeba(&["up"]).exit(1).complained("colour");
    assert!(!String::from_utf8_lossy(&outcome.stderr).contains("image"), "an old story: {outcome:?}");
    fs::remove_file(system.state().join("config.toml")).unwrap();
    system.amoeba(&["up"]).ok();
}

#[test]
fn daemons_keep_nothing_open_of_who_started_them() {
    let system = System::new();
    let secret = system.write("stray", b"");
    let up = system.command(&["up"]);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("exec 7<\"$0\" \"$@\"").arg(&secret).arg(up.get_program()).args(up.get_args());
    shell.env_clear().envs(up.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert!(shell.stdout(Stdio::null()).status().unwrap().success());
    for Daemon { role, pid } in system.daemons() {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            assert_ne!(target, secret, "{role} has it open");
        }
    }
    let listing = system.amoeba(&["run", "--", "sh", "-c", "ls -l /proc/self/fd"]).ok();
    assert!(!listing.text().contains("stray"), "{listing:?}");
}

#[test]
fn a_state_directory_that_others_may_change_is_refused_and_one_they_may_read_is_told() {
    let system = System::new();
    let mode = |mode| fs::set_permissions(system.state(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    system.amoeba(&["up"]).exit(1).complained("others may write in the state directory");
    mode(0o755);
    system.amoeba(&["up"]).ok();
    assert!(system.amoeba(&["status"]).ok().text().contains("chmod 700"));
    mode(0o700);
    assert!(!system.amoeba(&["status"]).ok().text().contains("chmod 700"));
}

#[test]
fn a_state_that_cannot_be_read_is_not_called_a_system_that_does_not_run() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can make a directory that this user cannot enter, and the binary is run as somebody else
    }
    let system = System::unprivileged();
    fs::create_dir(system.state().join("run")).unwrap();
    fs::set_permissions(system.state().join("run"), fs::Permissions::from_mode(0o000)).unwrap();
    let outcome = system.amoeba(&["status"]).complained("permission denied");
    assert!(!outcome.status.success() && outcome.status.code() != Some(3), "{outcome:?}");
}

#[test]
fn the_system_is_reached_from_inside_its_processes() {
    let system = System::up();
    let binary = system.command(&["x"]).get_program().to_owned();
    let inside = |arguments: &[&str]| {
        let mut line = vec!["run".as_ref(), "--".as_ref(), binary.as_os_str()];
        line.extend(arguments.iter().map(std::ffi::OsStr::new));
        system.amoeba(&line)
    };
    system.amoeba_with(&["put", "-", "greeting"], b"hello").ok();
    inside(&["cat", "greeting"]).ok().printed("hello");
    inside(&["run", "--", "echo", "nested"]).ok().printed("nested\n");
    assert!(inside(&["status"]).ok().text().contains("inside a process of host"));
    inside(&["up"]).ok();
    inside(&["down"]).exit(1).complained("inside a process of host");
    system.amoeba(&["status"]).ok();
}

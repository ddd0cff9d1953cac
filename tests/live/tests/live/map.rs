//! `amoeba map`: one command for many arguments, over all hosts, and nothing lost or mixed up.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;

use crate::dev::script;
use crate::system::{System, signal, wait};

#[test]
fn sixty_commands_land_on_all_hosts_right_and_in_order() {
    let system = System::new();
    let text = r#"
        while [ $(amoeba host ls | grep -c ' up ') != 3 ]; do sleep 0.1; done
        amoeba map --json sh -c 'sleep 0.0$((60 - $1)); echo "<$1>"; echo err >&2' name ::: $(seq 60)
    "#;
    let outcome = script(&system, &["3"], text).ok();
    let lines: Vec<serde_json::Value> =
        outcome.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 60);
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["arg"], number.to_string());
        assert_eq!((&line["stdout"], &line["stderr"]), (&format!("<{number}>\n").into(), &"err\n".into()));
        assert_eq!(line["code"], 0);
    }
    for host in ["anvil", "bolt", "chisel"] {
        assert!(lines.iter().any(|line| line["host"] == host), "{host} did nothing: {outcome:?}");
    }
}

#[test]
fn three_hundred_files_keep_their_order_and_an_interrupted_map_goes_on() {
    let system = System::new();
    let text = r#"
        mkdir $HOME/project
        cd $HOME/project
        for i in $(seq 300); do head -c $((i * 37)) /dev/zero | tr '\0' x > in.$i; done
        while [ $(amoeba host ls | grep -c ' up ') != 3 ]; do sleep 0.1; done
        count() {
            amoeba map -j 12 --keep-going --journal journal --json --in {} --out {}.size \
                sh -c 'wc -c < $1 > $1.size; case $1 in *7) exit 3;; esac' name {} ::: $(seq -f in.%g 300)
        }
        count && exit 1
        [ $? = 3 ]
        for i in $(seq 300); do [ $(cat in.$i.size) = $((i * 37)) ]; done
        count > again && exit 1
        [ $(wc -l < again) = 30 ]
        printf 'sleep 0.1\necho $1\n' > slow.sh
        slow="-j 3 --journal slow sh ./slow.sh ::: $(seq 300)"
        timeout -s INT 3 amoeba map $slow > first && exit 1
        amoeba map $slow > rest
        [ $(wc -l < rest) -lt 300 ]
        seq 300 > all
        sort -n first rest | cmp - all
        amoeba map --journal slow echo ::: 1 && exit 1
        true
    "#;
    let outcome = script(&system, &["3"], text).ok();
    let outcome = outcome.told("this is not the journal of this command");
    let lines: Vec<serde_json::Value> =
        outcome.text().lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 300);
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line["arg"], format!("in.{number}"));
        assert_eq!(line["code"], if number % 10 == 7 { 3 } else { 0 }, "{line}");
    }
    for host in ["anvil", "bolt", "chisel"] {
        assert!(lines.iter().any(|line| line["host"] == host), "{host} did nothing");
    }
}

#[test]
fn a_lost_host_and_a_killed_run_server_change_nothing_for_what_may_run_twice() {
    let system = System::new();
    let text = r#"
        while [ $(amoeba host ls | grep -c ' up ') != 3 ]; do sleep 0.1; done
        amoeba map -j 6 --retry-maybe --retries 5 sh -c 'sleep 0.1; echo $1' name ::: $(seq 100) &
        map=$!
        sleep 0.4
        kill -9 $(amoeba status | awk '$1 == "pool" { print $2 }')
        state=$(dirname $AMOEBA_STATE)/chisel
        kill -9 $(AMOEBA_STATE=$state amoeba status | awk '$2 ~ /^[0-9]+$/ { print $2 }')
        wait $map
    "#;
    let expected: String = (1..=100).map(|number| format!("{number}\n")).collect();
    script(&system, &["3"], text).ok().printed(&expected);
}

#[test]
fn arguments_failures_and_outputs_on_one_host() {
    let system = System::up();
    system
        .amoeba(&["map", "echo", "{}", "and", "{}", ":::", "a b", "", "*"])
        .ok()
        .printed("a b and a b\n and \n* and *\n");
    system
        .amoeba_with(&["map", "-j", "3", "echo"], b"one\ntwo words\n\nthree")
        .ok()
        .printed("one\ntwo words\nthree\n");
    system.amoeba_with(&["map", "-0", "printf", "%s|"], b"a\nb\0c").ok().printed("a\nb|c|");
    system.amoeba(&["map", "echo", ":::"]).ok().printed("");
    let script = ["sh", "-c", "echo $1; exit $1", "name", ":::", "0", "3", "0", "4"];
    let first = system.amoeba(&[&["map", "-j", "1"][..], &script].concat());
    first.exit(3).printed("0\n3\n").told("3: exit code 3 on ");
    let all = system.amoeba(&[&["map", "-j", "4", "--keep-going"][..], &script].concat());
    all.exit(3).printed("0\n3\n0\n4\n");
    system.amoeba(&["map", "no-such-program", ":::", "a"]).exit(127).complained("not found");
    let bytes = 3_000_000;
    let text = format!("head -c {bytes} /dev/zero | tr '\\0' $1");
    let outcome = system.amoeba(&["map", "sh", "-c", &text, "name", ":::", "a", "b", "c"]).ok();
    let expected: Vec<u8> = [b'a', b'b', b'c'].iter().flat_map(|byte| vec![*byte; bytes]).collect();
    assert!(outcome.stdout == expected, "{} bytes came", outcome.stdout.len());
}

#[test]
fn an_interrupt_reaches_all_that_runs() {
    let system = System::up();
    let text = "trap 'echo got; exit 0' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = system
        .command(&["map", "-j", "2", "sh", "-c", text, "name", ":::", "a", "b", "c", "d"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    system.wait_for("two processes", || {
        let listed = system.json(&["ps", "--json"]);
        (listed.as_array().map(Vec::len) == Some(2)).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300)); // for the traps
    signal(&child, Signal::INT);
    let status = wait(&mut child, Duration::from_secs(60));
    assert_eq!(status.and_then(|status| status.code()), Some(130));
    let left = system.json(&["ps", "--json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
}

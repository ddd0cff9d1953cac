//! Several hosts are one computer: a command runs on any of them as if here, and who loses a host is told so.

use crate::dev::script;
use crate::system::System;

/// Defines `lose`, which ends a host with everything on it, as when somebody pulls its plug.
const LOSE: &str = r#"
    lose() {
        state=$(dirname $AMOEBA_STATE)/$1
        kill -9 $(AMOEBA_STATE=$state amoeba status | awk '$2 ~ /^[0-9]+$/ { print $2 }')
    }
"#;

#[test]
fn a_command_runs_on_the_host_that_is_named_and_its_streams_are_here() {
    let system = System::new();
    let text = r#"
        for host in anvil bolt chisel; do
            echo "to $host" | amoeba run --on $host --view host sh -c 'cat; echo "from ${AMOEBA_SOCKET%/run/*}"; exit 7' && exit 1
            [ $? = 7 ]
        done | sed 's,/.*/,,'
        amoeba run --on nowhere true && exit 1
        [ $? = 126 ]
    "#;
    let expected = "to anvil\nfrom anvil\nto bolt\nfrom bolt\nto chisel\nfrom chisel\n";
    script(&system, &["3"], text).ok().printed(expected).told("there is no host nowhere");
}

#[test]
fn a_pipeline_leads_from_host_to_host() {
    let system = System::new();
    let text = r#"
        amoeba run 'seq 200000 | grep 7 | cksum'
        seq 200000 | grep 7 | cksum
        seq 200000 | amoeba run 'sort -n | tail -n 1'
        amoeba run 'yes | head -n 2'
        amoeba run 'echo one word | sh -c "cat; exit 3"' && exit 1
        [ $? = 3 ]
        amoeba run 'no-such-program | cat' && exit 1
        [ $? = 127 ]
        amoeba run 'cat < x | wc' && exit 1
        [ $? = 125 ]
    "#;
    let outcome = script(&system, &["3"], text).ok();
    let lines: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], lines[1], "{outcome:?}");
    assert_eq!(lines[2..], ["200000", "y", "y", "one word"], "{outcome:?}");
    outcome.told("has a meaning only in a shell");
}

#[test]
fn who_loses_a_host_is_told_and_the_others_go_on() {
    let system = System::new();
    let text = r#"
        amoeba run --on chisel sleep 1000 &
        alone=$!
        amoeba run --on bolt sh -c 'sleep 3; echo goes on' &
        other=$!
        amoeba run 'yes | cat | cat > /dev/null' 2>/dev/null && exit 1
        while ! amoeba ps -a | grep -q '^chisel.*running.*sleep 1000'; do sleep 0.1; done
        lose chisel
        wait $alone && exit 1
        [ $? = 75 ]
        wait $other
        amoeba ps -a
        for i in 1 2 3; do amoeba run true; done
        amoeba map echo ::: a b c d
        while ! amoeba host ls | grep -q '^chisel  *[^ ]*  *down'; do sleep 0.1; done
        amoeba status | grep -q '! host chisel is down'
        amoeba run --on chisel true && exit 1
        [ $? = 126 ]
        AMOEBA_STATE=$(dirname $AMOEBA_STATE)/chisel amoeba up > /dev/null
        while ! amoeba host ls | grep -q '^chisel  *[^ ]*  *up'; do sleep 0.1; done
        amoeba run --on chisel echo back
    "#;
    let outcome = script(&system, &["3"], &[LOSE, text].concat()).ok();
    let outcome = outcome.told("host chisel was lost while the command ran there");
    let text = outcome.text();
    for line in ["goes on", "a\nb\nc\nd", "back"] {
        assert!(text.contains(line), "{outcome:?}");
    }
    outcome.told("host chisel does not answer");
}

#[test]
fn processes_of_other_hosts_are_named_with_their_host() {
    let system = System::new();
    let text = r#"
        id=$(amoeba run -d --on bolt sh -c 'echo kept; exec sleep 1000')
        case $id in bolt:*) ;; *) exit 1;; esac
        amoeba ps -a | grep -q "^bolt *${id#bolt:} *running .*sleep 1000"
        amoeba ps | grep sleep && exit 1
        while [ "$(amoeba logs $id)" != kept ]; do sleep 0.05; done
        amoeba stun $id
        amoeba resume $id
        amoeba kill $id
        amoeba wait $id && exit 1
        [ $? = 143 ]
        amoeba ps -a --json | grep -q '"host": "bolt"'
        amoeba kill nowhere:1 && exit 1
        amoeba host show chisel | grep -q '^state *up'
        amoeba top --once | grep -q '^HOST'
    "#;
    script(&system, &["3"], text).ok().told("there is no host nowhere");
}

#[test]
fn the_run_server_says_why() {
    let system = System::new();
    let text = r#"
        while ! amoeba status | grep -q 'services:.*runsvr'; do sleep 0.1; done
        while [ $(amoeba host ls | grep -c ' up ') != 3 ]; do sleep 0.1; done
        sleep 1
        id=$(amoeba run -d sleep 1000)
        amoeba why $id
        amoeba kill $id
    "#;
    let outcome = script(&system, &["3"], text).ok();
    let text = outcome.text();
    assert!(text.contains("of 3 hosts"), "{outcome:?}");
    for host in ["anvil", "bolt", "chisel"] {
        assert!(text.lines().any(|line| line.starts_with(host)), "{outcome:?}");
    }
}

#[test]
fn files_go_along_and_come_back() {
    let system = System::new();
    let text = r##"
        cd $HOME
        echo alpha > a
        printf '#!/bin/sh\nls\ntr a-z A-Z < b > out\n' > program
        amoeba run --on bolt --in program --in a=b --out result=out ./program
        cat result
        amoeba run --on bolt --out none=nothing sh -c 'ln -s /etc/passwd nothing' && exit 1
        [ ! -e none ]
        amoeba run --on bolt --in a=../a true && exit 1
        head -c 5000000 /dev/urandom > large
        amoeba run --on chisel --in large --out copy cp large copy
        cmp large copy
        amoeba map --in {}.in --out {}.out cp {}.in {}.out ::: x 2>/dev/null && exit 1
        echo 1 > x.in; echo 2 > y.in
        amoeba map --in {}.in --out {}.out cp {}.in {}.out ::: x y
        cat x.out y.out
        [ -z "$(ls -A $(dirname $AMOEBA_STATE)/bolt/guests | grep scratch)" ]
        ls -A | grep amoeba && exit 1
        true
    "##;
    let outcome = script(&system, &["3"], text).ok();
    let outcome = outcome.told("the command has not written nothing");
    assert!(outcome.text().starts_with("b\nprogram\nALPHA\n1\n2"), "{outcome:?}");
}

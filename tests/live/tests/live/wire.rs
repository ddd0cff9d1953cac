//! Hosts on a wire with faults, and on a raw Ethernet. All of it is for root; elsewhere it is skipped, and says so.

use crate::dev::{nothing_left, script};
use crate::system::{System, random};

/// Whether hosts can have a wire here.
fn permitted(system: &System) -> bool {
    let outcome = script(system, &["--faults", "none", "1"], "true");
    let (code, error) = (outcome.code(), outcome.error_text());
    let refused =
        code == Some(125) && (error.contains("only for root") || error.contains("namespace cannot be"));
    if refused {
        eprintln!("SKIPPED: {error}");
    } else {
        assert_eq!(code, Some(0), "{error}");
    }
    !refused
}

#[test]
fn what_crosses_a_bad_wire_arrives_as_it_was() {
    let system = System::new();
    if !permitted(&system) {
        return;
    }
    let file = system.write("file", &random(2_000_000));
    let faults = "loss=3%,duplicate=2%,reorder=5%,corrupt=2%,delay=0.1ms..1ms,seed=11";
    let text = format!(
        r#"
        bolt=$(dirname $AMOEBA_STATE)/bolt
        amoeba put {file} /home/file
        AMOEBA_STATE=$bolt amoeba cat /home/file | cmp - {file}
        for number in $(seq 20); do amoeba run --on bolt -- echo $number; done
        echo status > $AMOEBA_DEV_WIRE
        until grep -q 'orders 2' $AMOEBA_DEV_WIRE.state; do sleep 0.01; done
        cat $AMOEBA_DEV_WIRE.state"#,
        file = file.display()
    );
    let outcome = script(&system, &["2", "--faults", faults], &text).told("seed=11").ok();
    let text = outcome.text();
    let numbers: Vec<&str> = text.lines().take(20).collect();
    assert!(numbers.iter().zip(1..).all(|(line, number)| **line == number.to_string()), "{text}");
    for fault in ["lost", "duplicated", "held back", "damaged"] {
        let count = text.lines().find_map(|line| line.strip_prefix(fault)?.trim().parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 0), "nothing was {fault}: {text}");
    }
    nothing_left(&system);
}

#[test]
fn hosts_that_were_cut_off_find_each_other_again() {
    let system = System::new();
    if !permitted(&system) {
        return;
    }
    let text = r#"
        list() { amoeba host ls | awk -v host=bolt '$1 == host { print $3 }'; }
        echo cut anvil bolt > $AMOEBA_DEV_WIRE
        while [ "$(list)" = up ]; do sleep 0.1; done
        if amoeba run --on bolt -- true; then exit 9; fi
        echo heal > $AMOEBA_DEV_WIRE
        until [ "$(list)" = up ]; do sleep 0.1; done
        amoeba run --on bolt -- echo healed"#;
    script(&system, &["2", "--faults", "none"], text).ok().printed("healed\n");
}

#[test]
fn hosts_need_no_more_than_an_ethernet_that_is_trusted() {
    let system = System::new();
    if !permitted(&system) {
        return;
    }
    // Nothing but the Ethernet: no IP address of the hosts is used any more.
    let text = r#"
        directory=$(dirname $AMOEBA_STATE)
        configure() {
            for host in anvil bolt; do
                export AMOEBA_STATE=$directory/$host
                amoeba down
                sed -i '/^\[link\]/,$d; /^\[\[ethernet\]\]/,$d' $AMOEBA_STATE/config.toml
                printf '\n[[ethernet]]\ninterface = "%s"\ntrusted = %s\n' $1 $2 >> $AMOEBA_STATE/config.toml
            done
        }
        up() { AMOEBA_STATE=$directory/$1 amoeba up > /dev/null; }
        configure eth0 true
        up anvil
        up bolt
        export AMOEBA_STATE=$directory/anvil
        amoeba run --on bolt -- uname -n
        head -c 3000000 /dev/zero | tr '\0' x | amoeba put - /home/file
        AMOEBA_STATE=$directory/bolt amoeba cat /home/file | tr -d x | wc -c
        configure eth0 false
        up anvil
        up bolt
        export AMOEBA_STATE=$directory/anvil
        if amoeba run --on bolt -- true 2> /dev/null; then exit 9; fi
        configure eth7 true
        AMOEBA_STATE=$directory/anvil amoeba up 2>&1 | grep -c 'no interface "eth7"'"#;
    script(&system, &["2"], text).ok().printed("bolt\n0\n1\n");
}

#[test]
fn a_host_with_two_links_passes_on_what_is_for_others() {
    let system = System::new();
    if !permitted(&system) {
        return;
    }
    // anvil speaks UDP alone, chisel Ethernet alone, bolt both.
    let text = r#"
        directory=$(dirname $AMOEBA_STATE)
        state() { export AMOEBA_STATE=$directory/$1; }
        for host in anvil bolt chisel; do state $host; amoeba down; done
        sed -i '/^\[link\]/,$d' $directory/chisel/config.toml
        for host in bolt chisel; do
            printf '\n[[ethernet]]\ninterface = "eth0"\ntrusted = true\n' >> $directory/$host/config.toml
        done
        for host in anvil bolt chisel; do state $host; amoeba up > /dev/null; done
        state anvil
        until amoeba ping -c 1 chisel > /dev/null 2>&1; do sleep 0.1; done
        amoeba ping -c 1 chisel | grep -o 'on the way past bolt, weight 6'
        head -c 3000000 /dev/zero | tr '\0' x | amoeba put - /home/file
        state chisel
        amoeba cat /home/file | tr -d x | wc -c
        amoeba ping -c 1 anvil | grep -o 'ethernet .*weight 6' | cut -d ' ' -f 1
        state bolt
        amoeba down
        state chisel
        if amoeba ping -c 1 anvil > /dev/null 2>&1; then exit 9; fi
        state bolt
        amoeba up > /dev/null
        state anvil
        until amoeba ping -c 1 chisel > /dev/null 2>&1; do sleep 0.1; done
        echo healed"#;
    script(&system, &["3"], text).ok().printed("on the way past bolt, weight 6\n0\nethernet\nhealed\n");
}

//! Finding out: `ping` shows the way, `doctor` finds what is wrong, `trace` shows what passes and shows no secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::dev::{nothing_left, script};
use crate::system::System;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

fn read_json(system: &System, file: &str) -> Value {
    json(&fs::read_to_string(system.work().join(file)).expect("the script wrote it"))
}

/// The checks of a report that are about `subject`, and how they ended.
fn healths<'a>(report: &'a Value, subject: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("a report has checks");
    let about = checks.iter().filter(|check| check["subject"] == subject);
    about.map(|check| check["health"].as_str().expect("it ended somehow")).collect()
}

#[test]
fn ping_measures_this_host_and_an_object_and_tells_who_is_not_there() {
    let system = System::up();
    let host = system.json(&["status", "--json"])["host"].as_str().expect("it has a name").to_owned();
    let ping = |target: &str, more: &[&str]| {
        let arguments = [&["ping", "--json", "-c", "40", "-i", "0"], more, &[target]].concat();
        json(&system.amoeba(&arguments).ok().text())
    };
    for summary in [ping(&host, &[]), ping(&host, &["--size", "100000"]), ping("/profile/cap", &[])] {
        assert_eq!(
            (&summary["sent"], &summary["received"], &summary["lost"]),
            (&40.into(), &40.into(), &0.into())
        );
        let times = &summary["round_trip"];
        let time = |name: &str| times[name].as_f64().expect("it was measured");
        assert!(0.0 < time("min") && time("min") <= time("median") && time("median") <= time("p99"));
        assert_eq!(summary["path"]["reach"], "here");
    }
    // Forty in a row are worth a channel, unless the server was busy whenever it was asked.
    system.wait_for("a channel", || (ping(&host, &[])["path"]["by"] == "channel").then_some(()));
    system.amoeba(&["ping", "-c", "1", "nobody-there"]).exit(1).complained("there is no host nobody-there");
    let text = system.amoeba(&["ping", "-c", "2", "-i", "0", &host]).ok().text();
    assert!(text.contains("2 sent, 2 came back, 0 lost") && text.contains("path: on this host"), "{text}");
}

#[test]
fn doctor_is_content_with_a_healthy_host_and_says_what_is_wrong_with_none() {
    let system = System::up();
    // The state directory of a test is made open to others.
    let state = system.state();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&state, open).expect("it is ours");
    let report = json(&system.amoeba(&["doctor", "--json"]).exit(1).text());
    assert_eq!((&report["healthy"], healths(&report, "state")), (&false.into(), vec!["wrong"]));
    let checks = report["checks"].as_array().expect("a report has checks");
    let fix = checks.iter().find(|check| check["subject"] == "state").map(|check| &check["fix"]);
    assert_eq!(fix, Some(&Value::from(format!("`chmod 700 {}`", state.display()))));
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("it is ours");
    let report = json(&system.amoeba(&["doctor", "--json"]).ok().text());
    assert_eq!(report["healthy"], true);
    assert_eq!(healths(&report, "kernel"), ["ok"]);
    system.amoeba(&["down"]).ok();
    let outcome = system.amoeba(&["doctor"]).exit(1);
    let text = String::from_utf8(outcome.stdout).expect("it prints UTF-8");
    assert!(text.starts_with("WRONG    daemons"), "{text}");
    assert!(text.contains("-> `amoeba up` starts one") && text.contains("memory"), "{text}");
}

#[test]
fn ping_shows_the_way_to_another_host_and_doctor_misses_one_that_is_stopped() {
    let system = System::new();
    let text = r#"
        amoeba ping -c 5 -i 0 --json bolt > far
        amoeba doctor --json > healthy
        bolt=${AMOEBA_STATE%/*}/bolt
        AMOEBA_STATE=$bolt amoeba down
        until ! timeout 20 amoeba doctor --json > sick && grep -q 'last heard' sick; do sleep 0.2; done
        code=0; timeout 30 amoeba ping -c 1 bolt 2> gone || code=$?
        exit $code"#;
    script(&system, &["2"], text).exit(1);
    let far = read_json(&system, "far");
    let path = &far["path"];
    assert_eq!(
        (&far["lost"], &path["reach"], &path["link"]),
        (&0.into(), &"elsewhere".into(), &"udp".into())
    );
    assert_eq!((&path["host"], &path["trusted"]), (&"bolt".into(), &true.into()));
    assert!(path["packet_size"].as_u64().is_some_and(|size| size > 1000), "{path}");
    assert!(path["sealing"].as_str().is_some_and(|suite| !suite.is_empty()), "{path}");
    let healthy = read_json(&system, "healthy");
    assert_eq!((&healthy["healthy"], healths(&healthy, "peer")), (&true.into(), vec!["ok"]));
    assert_eq!(healths(&healthy, "host bolt"), ["ok"]);
    let sick = read_json(&system, "sick");
    assert_eq!((&sick["healthy"], healths(&sick, "peer")), (&false.into(), vec!["wrong"]));
    let gone = fs::read_to_string(system.work().join("gone")).expect("the script wrote it");
    assert!(gone.starts_with("amoeba: host bolt does not answer\n"), "{gone}");
    nothing_left(&system);
}

/// The packets of a file: what was kept of each, and how long it was.
fn packets(file: &[u8]) -> Vec<(&[u8], usize)> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
    assert_eq!(file[..8], [0x4D, 0x3C, 0xB2, 0xA1, 2, 0, 4, 0], "nanosecond pcap, version 2.4");
    assert_eq!(number(&file[20..24]), 1, "frames of an Ethernet");
    let (mut rest, mut packets) = (&file[24..], Vec::new());
    while !rest.is_empty() {
        let (kept, whole) = (number(&rest[8..12]), number(&rest[12..16]));
        assert!(number(&rest[4..8]) < 1_000_000_000 && kept <= whole);
        packets.push((&rest[16..16 + kept], whole));
        rest = &rest[16 + kept..];
    }
    packets
}

#[test]
fn trace_shows_a_transaction_and_its_packets_and_no_secret() {
    let system = System::new();
    // The file of a capability: its check field is what nobody may see.
    let text = r#"
        amoeba cap show /profile/hosts/bolt > bolt.cap
        timeout 60 amoeba trace --json --pcap packets > lines &
        trace=$!
        until grep -q system.echo lines 2>/dev/null; do
            amoeba ping -q -c 3 -i 0 --size 5000 bolt > /dev/null
            amoeba ping -q -c 1 -i 0 @bolt.cap > /dev/null
        done
        until grep -q '"event":"ended"' lines; do sleep 0.1; done
        kill -INT $trace
        code=0; wait $trace || code=$?
        exit $code"#;
    script(&system, &["2"], text).ok();
    let lines = fs::read_to_string(system.work().join("lines")).expect("the script wrote it");
    let records: Vec<Value> = lines.lines().map(json).collect();
    let of = |event: &'static str| records.iter().filter(move |record| record["event"] == event);
    assert!(
        of("request").any(|record| record["command"] == "system.echo" && record["size"] == 5000),
        "{lines}"
    );
    assert!(of("ended").any(|record| record["status"] == "OK" && record["size"] == 5000), "{lines}");
    let sent =
        |record: &&Value| record["rpc"]["kind"] == "REQUEST" && record["rpc"]["command"] == "system.echo";
    assert!(of("packet").any(|record| sent(&record) && record["inward"] == false), "{lines}");
    let came = |record: &Value| record["inward"] == true && record["rpc"]["kind"] == "REPLY";
    assert!(of("packet").any(came), "{lines}");

    let file = fs::read(system.work().join("packets")).expect("it was written");
    let packets = packets(&file);
    assert!(packets.len() >= 4, "{} packets", packets.len());
    for (bytes, whole) in &packets {
        assert_eq!(bytes[12..16], [0x81, 0x46, 0, 0], "FLIP on an Ethernet");
        assert_eq!(bytes[16], 1, "FLIP version 1");
        let length = u32::from_be_bytes(bytes[16 + 28..16 + 32].try_into().expect("four bytes")) as usize;
        assert_eq!(*whole, 16 + 40 + length, "the frame has the length of the packet");
    }
    assert!(packets.iter().any(|(bytes, whole)| bytes.len() < *whole), "data are left out");

    let capability = fs::read_to_string(system.work().join("bolt.cap")).expect("the script wrote it");
    let check = capability.trim().rsplit('/').next().expect("a capability has a check field");
    assert!(check.matches(':').count() == 5 && !lines.contains(check), "{check}");
    let check: Vec<u8> =
        check.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect();
    assert!(!file.windows(6).any(|window| window == check));
    nothing_left(&system);
}

#[test]
fn the_counters_of_every_layer_are_there() {
    let system = System::up();
    let counters = system.json(&["status", "-v", "--json"])["counters"].clone();
    for layer in ["kernel", "transactions", "flip", "datagrams", "channels", "flows", "daemon"] {
        assert!(counters[layer].is_object(), "{layer} in {counters}");
    }
    assert!(counters["transactions"]["transactions here"].as_u64().is_some_and(|count| count > 0));
    let text = system.amoeba(&["status", "-v"]).ok().text();
    assert!(text.contains("\n# flip\n") && text.contains("\npackets out "), "{text}");
}

//! A command on another host sees the files of who typed it, and changes them; a host gets no others.

use crate::dev::script;
use crate::system::{System, finish};

/// Defines `mine`, which runs on another host with the files of this one, as it is without an option, and `sent`, the bytes that this host has sent.
const MINE: &str = r#"
    mkdir -p $HOME/project $HOME/other
    cd $HOME/project
    mine() { amoeba run --on bolt "$@"; }
    sent() { nsenter --net=$AMOEBA_STATE/namespaces/net awk '$1 == "eth0:" { print $10 }' /proc/net/dev; }
"#;

fn run(text: &str) -> crate::system::Outcome {
    script(&System::new(), &["2"], &[MINE, text].concat()).ok()
}

#[test]
fn a_command_sees_its_callers_files_and_no_others() {
    let text = r#"
        echo here > file
        echo elsewhere > $HOME/other/file
        mkdir .ssh && echo key > .ssh/id_rsa
        ln -s $HOME/other way-out
        ln -s /etc/shadow shadow
        mine -- cat file
        mine -- pwd | grep -qx "$PWD"
        mine -- sh -c 'test ! -e .ssh && test ! -e .ssh/id_rsa && ls -A' | sort
        mine -- cat .ssh/id_rsa && exit 1
        mine -- cat way-out/file && exit 1
        mine -- cat $HOME/other/file && exit 1
        mine -- cat shadow /etc/shadow /etc/gshadow && exit 1
        mine -- test -e "$AMOEBA_STATE" && exit 1
        mine -- sh -c 'ls /home /root /srv /boot 2>/dev/null' | grep -v "$(basename $HOME)" | grep . && exit 1
        mine --with $HOME/other -- cat way-out/file
        # The kernel's socket is all there is of the host's state, and /tmp is the process's own.
        mine -- sh -c 'test -S "$AMOEBA_SOCKET" && echo x > /tmp/private && echo x > /etc/private && cat /etc/private'
        test ! -e /tmp/private && test ! -e /etc/private
        mine -- sh -c 'test ! -e /tmp/private && test ! -e /etc/private'
        mine -- sh -c 'echo x | tee /dev/full' && exit 1
        mine -- no-such-program && exit 1
        [ $? = 127 ]
        # The next run sees what is there when it begins.
        echo new > new
        mine -- sh -c 'cat file new && echo changed there > file'
        rm new && echo changed here >> file
        mine -- sh -c 'cat file && test ! -e new'
    "#;
    let outcome = run(text);
    let expected = "here\nfile\nshadow\nway-out\nelsewhere\nx\nx\nhere\nnew\nchanged there\nchanged here";
    assert_eq!(outcome.text(), expected, "{}", outcome.error_text());
}

#[test]
fn what_was_not_there_when_it_was_looked_for_is_there_for_the_next() {
    let text = r#"
        missing() { mine --with $HOME/other:ro -- /usr/bin/test -e $1 && exit 1; true; }
        # By the third run the tree of the one before is there, with the names that nobody has found in it.
        for run in 1 2 3; do missing $HOME/other/shown; missing written; done
        touch $HOME/other/shown written
        mine --with $HOME/other:ro -- /usr/bin/test -e $HOME/other/shown
        mine --with $HOME/other:ro -- /usr/bin/test -e written
        rm $HOME/other/shown written
        missing $HOME/other/shown; missing written
        # So it is with the directory that leads to it.
        missing $HOME/other/a/b; missing $HOME/other/a/b
        mkdir $HOME/other/a; missing $HOME/other/a/b; missing $HOME/other/a/b
        touch $HOME/other/a/b
        mine --with $HOME/other:ro -- /usr/bin/test -e $HOME/other/a/b && echo there
    "#;
    run(text).printed("there\n");
}

#[test]
fn a_program_that_the_host_does_not_have_runs_there_with_its_own_linker_and_libraries() {
    let text = r#"
        mkdir $HOME/other/lib
        cp /bin/cat $HOME/other/its-cat
        cp $(ldd /bin/cat | grep -o '/[^ ]*') $HOME/other/lib
        linker=$(basename $(ldd /bin/cat | grep -o '/[^ ]*ld-[^ ]*'))
        printf '#!%s/other/its-sh\necho script "$@"\n' $HOME > $HOME/other/script
        cp /bin/sh $HOME/other/its-sh
        chmod +x $HOME/other/script
        echo text > file
        mine --with $HOME/other:ro -- $HOME/other/lib/$linker --library-path $HOME/other/lib $HOME/other/its-cat file
        mine --with $HOME/other:ro -- $HOME/other/script runs
        mine --with $HOME/other:ro -- sh -c "echo x > $HOME/other/new" && true
        test ! -e $HOME/other/new
        # A program is shown alone, wherever it lies, if no other of its name is.
        mine -- $HOME/other/its-cat file
        PATH=$HOME/other:$PATH mine -- its-cat file
        ln -s $HOME/other/its-cat link
        mine -- ./link file
        mine -- sh -c "ls $HOME/other; $HOME/other/script" && exit 1
        [ $? = 127 ]
        mine -- $HOME/other/script && exit 1
        [ $? = 126 ]
    "#;
    run(text).printed("text\nscript runs\ntext\ntext\ntext\n");
}

#[test]
fn what_a_command_writes_comes_back_in_order() {
    let text = r#"
        echo one > file
        mine -- sh -c 'echo two >> file; mkdir d; echo x > d/new; ln -s ../file d/link; mv d e; chmod 751 e/new; rm -f nothing'
        cat file e/link
        stat -c '%a %s' e/new
        head -c 3000000 /dev/urandom > large
        mine -- sh -c 'cp large copy; ln copy again; cp /bin/sh tool; chmod u+s tool; ./tool -c "echo runs"; rm -r e'
        cmp large copy && cmp large again
        test ! -u tool && test ! -e e
        mine -- sh -c 'for i in $(seq 50); do echo $i > many-$i; done; cat many-* | wc -l'
        cat many-* | wc -l
        mine --changes -- sh -c 'rm many-*; echo new > made; echo more >> file' 2> changes
        grep -c removed changes
        grep -v removed changes | sed "s,$PWD,HERE,"
        mine --changes --json -- sh -c 'rm made' 2>&1 | sed "s,$PWD,HERE,"
    "#;
    let json = r#"{"path":"HERE/made","change":"removed"}"#;
    let expected =
        format!("one\ntwo\none\ntwo\n751 2\nruns\n50\n50\n50\nchanged HERE/file\nmade HERE/made\n{json}\n");
    run(text).printed(&expected);
}

#[test]
fn what_was_changed_here_meanwhile_is_kept_and_told() {
    let text = r#"
        echo old > file
        mine -- sh -c 'exec 3>>file; echo theirs >&3; echo open > ready; while [ ! -e go ]; do sleep 0.2; done' 2> told &
        command=$!
        while [ ! -s ready ]; do sleep 0.1; done
        echo longer than theirs > file
        touch go
        wait $command && exit 1
        [ $? = 125 ]
        cat file file.conflict-1
        grep -c 'was changed here meanwhile' told
    "#;
    run(text).printed("longer than theirs\nold\ntheirs\n1\n");
}

#[test]
fn a_second_run_ships_nothing_and_large_files_are_read_as_they_come() {
    let text = r#"
        head -c 20000000 /dev/urandom > large
        head -c 3000000 /dev/urandom > middle
        before=$(sent)
        test "$(mine -- cksum < /dev/null large middle)" = "$(cksum large middle)"
        after=$(sent)
        test $((after - before)) -gt 23000000
        mine -- cksum large middle > /dev/null
        before=$(sent)
        mine -- cksum large middle > /dev/null
        after=$(sent)
        test $((after - before)) -lt 1000000
        # Contents that were seen under another name are not shipped either.
        cp middle renamed
        before=$(sent)
        mine -- cmp middle renamed
        after=$(sent)
        test $((after - before)) -lt 1000000
        # Nor after the viewer was ended.
        viewer=$(pgrep -f ' viewer$' | while read pid; do grep -lz "^AMOEBA_STATE=${AMOEBA_STATE%/*}/bolt" /proc/$pid/environ || true; done | cut -d/ -f3)
        kill -9 $viewer
        while grep -qv ') Z' /proc/$viewer/stat; do sleep 0.01; done
        before=$(sent)
        test "$(mine -- cksum large middle)" = "$(cksum large middle)"
        after=$(sent)
        test $((after - before)) -lt 2000000
        # The beginning of a large file is there before its end.
        truncate -s 4G huge
        mine -- head -c 5 huge | wc -c
    "#;
    run(text).printed("5\n");
}

#[test]
fn who_loses_his_caller_is_not_left_waiting() {
    let text = r#"
        echo text > file
        amoeba run --on bolt -- sh -c 'trap "" HUP; echo runs > ready; while [ -e file ]; do sleep 0.1; done; exec sleep 1000' &
        command=$!
        while [ ! -s ready ]; do sleep 0.1; done
        # As the one who stays for a process that nobody waits for: that one is not hung up, but has no files any more.
        id=$(mine -d -- sh -c 'while [ -e file ]; do sleep 0.1; done; echo no files' "$PWD")
        kill -9 $command $(pgrep -f -- "--stay .*$PWD")
        amoeba wait $id
        amoeba logs $id | grep 'no files'
        while AMOEBA_STATE=${AMOEBA_STATE%/*}/bolt amoeba ps | grep -q running; do sleep 0.5; done
        mine -- cat file
    "#;
    run(text).printed("no files\ntext\n");
}

#[test]
fn what_is_hidden_stays_where_it_is_and_who_is_alone_can_send_nobody_for_it() {
    let text = r#"
        mkdir -p .config/gcloud $HOME/.ssh
        echo key | tee .config/gcloud/key > $HOME/.ssh/id_rsa
        mine -- sh -c 'mv .config config 2> /dev/null; cat */gcloud/key .config/gcloud/key' && exit 1
        test -e .config/gcloud/key
        (cd $HOME/.ssh && mine -- cat id_rsa) && exit 1
        [ $? = 126 ]
        mine --with $HOME/.ssh -- cat $HOME/.ssh/id_rsa && exit 1
        [ $? = 125 ]
        # A process works with its caller's capabilities, unless it has none.
        amoeba=$(readlink -f $(command -v amoeba))
        mine -- $amoeba ls / | grep -x home
        echo here > file
        mine --alone -- sh -c 'cat file && echo there > made'
        cat made
        for words in 'ls /' 'ps' "run --view host --on anvil -- cat $HOME/.ssh/id_rsa" "run --view host -- cat $HOME/.ssh/id_rsa"; do
            mine --alone -- $amoeba $words && exit 1
        done
        amoeba map --alone cat ::: file
    "#;
    let outcome = run(text).told("is never shown");
    assert_eq!(outcome.text(), "home\nhere\nthere\nhere", "{}", outcome.error_text());
}

#[test]
fn who_sees_his_callers_files_comes_by_no_hosts() {
    let text = r#"
        mkdir -p $HOME/.ssh && echo key > $HOME/.ssh/id_rsa
        echo here > file
        amoeba=$(readlink -f $(command -v amoeba))
        cp $amoeba tool
        id=$(amoeba run -d --on anvil --view host -- sh -c "cat $HOME/.ssh/id_rsa; exec sleep 1000")
        while [ "$(amoeba logs $id)" != key ]; do sleep 0.1; done
        # On its caller's host, on its own, on the one that is chosen, by the options that mean the host's files, with the
        # capabilities of the directories themselves.
        for words in '--on anvil --view host' '--on bolt --view host' '--view host' '--in file' '--view host -d'; do
            mine -- $amoeba run $words -- cat $HOME/.ssh/id_rsa && exit 1
            [ $? = 126 ]
        done
        mine -- sh -c 'AMOEBA_VIEW=host ./tool run cat "$1"' sh $HOME/.ssh/id_rsa && exit 1
        mine -- ./tool map --view host cat ::: $HOME/.ssh/id_rsa && exit 1
        for words in "kill anvil:$id" "logs anvil:$id" "wait anvil:$id" "stun anvil:$id" "logs /profile/hosts/anvil/ps/$id"; do
            mine -- $amoeba $words && exit 1
        done
        for host in anvil bolt; do
            mine -- $amoeba stat /profile/hosts/$host/proc | grep -E 'rights.*(host|all)' && exit 1
            mine -- $amoeba rm /profile/hosts/$host && exit 1
        done
        mine -- $amoeba mkdir /system/hosts/more && exit 1
        mine -- $amoeba mkdir /new && exit 1
        # What it had before it has: a place to work in, other processes of its kind, files, and what those leave.
        mine -- sh -ec './tool mkdir -p d/e; echo graph | ./tool put - d/e/file; ./tool cat d/e/file; ./tool rm -r d
            echo tmp | ./tool put - /tmp/file; ./tool rm /tmp/file; ./tool run --on anvil -- cat file; ./tool run cat file
            ./tool map -j 2 cat ::: file file; ./tool run -- sleep 1234 & started=$!
            while id=$(./tool ps | awk "\$NF == 1234 { print \$1 }"); test -z "$id"; do kill -0 $started; sleep 0.1; done
            ./tool kill $id; wait $started || echo $?'
        # So has, all the way down, what one that sees a host's files starts.
        amoeba run --on bolt --view host -- $amoeba run --on anvil --view host -- cat $HOME/.ssh/id_rsa
        amoeba run --on bolt --view host -- $amoeba run --on anvil -- ./tool run --view host -- true && exit 1
        [ $? = 126 ]
        amoeba logs $id
        amoeba kill $id
    "#;
    let outcome = run(text).told("own files cannot be started from here").told("leave `--view host`");
    let expected = "graph\nhere\nhere\nhere\nhere\n143\nkey\nkey";
    assert_eq!(outcome.text(), expected, "{}", outcome.error_text());
}

#[test]
fn the_names_of_an_older_system_are_closed_at_its_start() {
    let system = System::up();
    let host = system.amoeba(&["ls", "/profile/hosts"]).text();
    let row = format!("/profile/hosts/{host}");
    let capability = system.amoeba(&["cap", "show", &row]).text();
    // As earlier systems made them; and one that somebody has closed on purpose.
    let masked = |masks: &str, words: &[&str]| {
        let mut command = system.command(words);
        command.env("SPMASK", masks);
        finish(command, None).ok();
    };
    system.amoeba(&["mv", &row, "/profile/earlier"]).ok();
    masked("0xff:0xff:0xff", &["ln", &capability, &row]);
    system.amoeba(&["rm", "-r", "/bin", "/tmp"]).ok();
    masked("0xff:6:4", &["mkdir", "/bin"]);
    masked("0xff:4:4", &["mkdir", "/tmp"]);
    let masks = |path: &str| {
        let rows = system.amoeba(&["stat", path]).text();
        rows.lines().find_map(|line| line.trim().strip_prefix("masks")).map(|masks| masks.trim().to_owned())
    };
    assert_eq!(masks(&row).as_deref(), Some("ff:ff:ff"));
    system.amoeba(&["down"]).ok();
    system.amoeba(&["up"]).ok();
    let closed =
        ["/profile", "/profile/hosts", &row, "/home", "/bin", "/tmp"].map(|path| masks(path).unwrap());
    assert_eq!(closed, ["ff:6:4", "ff:6:4", "ff:2:0", "ff:ff:4", "ff:ff:4", "ff:4:4"]);
}

#[test]
fn a_map_sees_them_too() {
    let text = r#"
        for i in 1 2 3 4 5 6; do echo $i > in-$i; done
        amoeba map -j 4 sh -c 'cat in-$1 > out-$1' sh ::: 1 2 3 4 5 6
        cat out-*
    "#;
    run(text).printed("1\n2\n3\n4\n5\n6\n");
}

#[test]
fn a_host_that_cannot_show_them_says_so() {
    let Some(system) = System::without_name_spaces() else {
        return eprintln!("SKIPPED: a user name space in which there are no others cannot be had");
    };
    let outcome = system.amoeba(&["run", "--view", "mine", "--", "true"]);
    outcome.exit(126).told("the file tree that was asked for cannot be shown").told("--view host");
    system.amoeba(&["run", "--view", "host", "--", "echo", "runs"]).printed("runs\n");
    // On this host its own files are its caller's: they are taken where he has not asked for nothing else.
    system.write("file", b"here\n");
    let told = "cannot show a file tree";
    system.amoeba(&["run", "-v", "--", "cat", "file"]).told(told).ok().printed("here\n");
    system.amoeba(&["run", "--", "sh", "-c", "echo changed > made"]).ok().said("");
    assert_eq!(std::fs::read(system.work().join("made")).unwrap(), b"changed\n");
    system.amoeba(&["map", "cat", ":::", "made"]).ok().printed("changed\n").said("");
    let name = system.amoeba(&["run", "-d", "--", "cat", "made"]).ok().text();
    system.amoeba(&["wait", &name]).ok();
    system.amoeba(&["logs", &name]).ok().printed("changed\n");
    let mut command = system.command(&["run", "--", "true"]);
    command.env("AMOEBA_VIEW", "mine");
    finish(command, None).exit(126);
}

#[test]
fn whose_files_it_sees_is_said_by_options_by_the_environment_or_by_nobody() {
    let text = r#"
        echo here > file
        # The hosts of this test have the same files, and of the caller's this one is not shown.
        hosts() { amoeba run --on bolt "$@" -- test -e $HOME/other; }
        hosts --view host
        AMOEBA_VIEW=host hosts
        hosts --in file
        hosts && exit 1
        AMOEBA_VIEW=host hosts --view mine && exit 1
        AMOEBA_VIEW=host hosts --changes && exit 1
        mine --with $HOME/other -- test -e $HOME/other
        for wrong in '--view mine --in file' '--with . --out file' '--view host --home' '--view host --changes'; do
            mine $wrong -- true && exit 1
            [ $? = 125 ]
        done
        AMOEBA_VIEW=ours mine -- true && exit 1
        [ $? = 125 ]
        # Whoever stands in his home sees nothing of it, and hears that when it may be why.
        cd $HOME
        mine -- true
        mine -- test -e project && exit 1
        mine --home -- test -e project/file
    "#;
    let outcome = run(text);
    let hints = outcome.error_text().matches("`--home` shows it").count();
    assert_eq!(hints, 1, "{}", outcome.error_text());
    outcome.told("--in and --out bring files to a host").told("AMOEBA_VIEW is \"ours\"");
}

#[test]
fn a_detached_command_is_served_until_it_ends() {
    let text = r#"
        echo one > file
        staying() { pgrep -f -- "--stay .*$1 $PWD" || true; }
        id=$(mine -d -- sh -c 'while [ ! -e go ]; do sleep 0.1; done; cat file; echo two > new; echo said >&2' one "$PWD")
        case $id in bolt:*) ;; *) exit 1;; esac
        [ -n "$(staying one)" ]
        touch go
        amoeba wait $id
        cat new
        amoeba logs $id
        while [ -n "$(staying one)" ]; do sleep 0.1; done
        # It says what went wrong before anything runs, and the code is the one that `run` has.
        mine -d -- no-such-program && exit 1
        [ $? = 127 ]
        mine -d --json -- true | tr -d ' \n'; echo
        # A conflict is in the log of who stayed, and nobody's changes are lost.
        id=$(mine -d -- sh -c 'exec 3>>file; echo theirs >&3; echo open > ready; while [ ! -e go2 ]; do sleep 0.1; done' two "$PWD")
        while [ ! -s ready ]; do sleep 0.1; done
        echo longer than theirs > file
        touch go2
        amoeba wait $id && exit 1
        [ $? = 125 ]
        while [ -n "$(staying two)" ]; do sleep 0.1; done
        cat file file.conflict-1
        cat $AMOEBA_STATE/staying/*.log | grep -c 'was changed here meanwhile'
    "#;
    let outcome = run(text);
    let text = outcome.text();
    let mut lines: Vec<&str> = text.lines().collect();
    let json = lines.remove(3);
    assert!(json.starts_with(r#"{"id":"#) && json.ends_with(r#","host":"bolt"}"#), "{json}");
    assert_eq!(lines, ["two", "one", "said", "longer than theirs", "one", "theirs", "1"]);
}

#[test]
fn detached_commands_go_down_with_their_system() {
    let system = System::up();
    system.amoeba(&["run", "-d", "--", "sleep", "1000"]).ok();
    let staying = || {
        let mark = system.state().into_os_string().into_encoded_bytes();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
                let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
                has(&read("cmdline"), b"--stay") && has(&read("environ"), &mark)
            })
            .count()
    };
    assert_eq!(staying(), 1);
    system.amoeba(&["down"]).ok();
    system.wait_for("the end of who has stayed", || (staying() == 0).then_some(()));
}

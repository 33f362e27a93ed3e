use super::*;

fn settings(
    flags: &[(&str, &str)],
    env: &[(&str, &str)],
    file: Option<&str>,
) -> Result<Settings, ConfigError> {
    let look = |pairs: &[(&str, &str)], name: &str| {
        let found = pairs.iter().find(|(key, _)| *key == name);
        found.map(|(_, text)| (*text).to_owned())
    };
    Settings::from_sources(&Sources {
        flags: &|name| look(flags, name),
        env: &|name| look(env, name),
        file: file.map(|text| ("systole.toml", text)),
    })
}

fn refusal(flags: &[(&str, &str)], env: &[(&str, &str)], file: Option<&str>) -> String {
    settings(flags, env, file)
        .expect_err("these settings are wrong")
        .to_string()
}

#[test]
fn with_nothing_given_a_server_is_alone_on_loopback() {
    let settings = settings(&[], &[], None).unwrap();
    assert_eq!(settings.id, ServerId(1));
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8640");
    assert_eq!(settings.advertise, None);
    assert_eq!(settings.ensemble, []);
    assert_eq!(settings.data_dir, PathBuf::from("./systole-data"));
    assert_eq!(settings.shards, Shards::Auto);
    assert_eq!(settings.default_timeout, Millis::from_secs(10));
    assert_eq!(settings.min_timeout, Millis(100));
    assert_eq!(settings.max_timeout, TIMEOUT_MAX);
    assert_eq!(settings.lease, Millis::from_secs(3));
    assert_eq!(settings.log_level, LogLevel::Info);
    assert!(settings.warnings().is_empty());
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let flag = [("listen", "127.0.0.1:1")];
    let env = [("SYSTOLE_LISTEN", "127.0.0.1:2")];
    let file = Some("listen = \"127.0.0.1:3\"");
    let port = |flags: &[_], env: &[_], file| settings(flags, env, file).unwrap().listen.port();
    assert_eq!(port(&flag, &env, file), 1);
    assert_eq!(port(&[], &env, file), 2);
    assert_eq!(port(&[], &[], file), 3);
    assert_eq!(
        port(&[], &[("SYSTOLE_LISTEN", "")], file),
        3,
        "empty is absent"
    );
}

#[test]
fn the_file_takes_both_spellings_and_whole_numbers() {
    let file = "# a comment\nid = 7\ndata_dir = \"/var/lib/systole\"\nmin-timeout = '1s'\n";
    let settings = settings(&[], &[], Some(file)).unwrap();
    assert_eq!(settings.id, ServerId(7));
    assert_eq!(settings.data_dir, PathBuf::from("/var/lib/systole"));
    assert_eq!(settings.min_timeout, Millis::from_secs(1));
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_one() {
    assert_eq!(
        refusal(&[], &[], Some("id = 1\n\nlisen = \"127.0.0.1:1\"\n")),
        "systole.toml:3: \"lisen\" is no setting: did you mean listen?"
    );
    assert_eq!(
        refusal(&[], &[], Some("frobnicate = 1")),
        "systole.toml:1: \"frobnicate\" is no setting"
    );
    assert_eq!(
        refusal(&[], &[], Some("[serve]\nid = 1")),
        "systole.toml:1: \"serve\" is no setting"
    );
}

#[test]
fn a_key_given_in_both_spellings_or_with_an_odd_value_is_refused() {
    assert_eq!(
        refusal(&[], &[], Some("data-dir = 'a'\ndata_dir = 'b'\n")),
        "systole.toml:2: \"data_dir\" is given twice"
    );
    for value in ["true", "1.5", "[1]", "{a=1}", "0x10"] {
        let text = refusal(&[], &[], Some(&format!("shards = {value}")));
        assert!(
            text.contains("neither a string nor a whole number"),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let text = refusal(&[], &[], Some("id = 1\nlisten = \n"));
    assert!(
        text.starts_with("systole.toml:2: this is not TOML: "),
        "{text}"
    );
    let text = refusal(&[], &[], Some("id = 1\nid = 2\n"));
    assert!(
        text.starts_with("systole.toml:2: this is not TOML: "),
        "{text}"
    );
}

#[test]
fn a_wrong_value_is_named_with_the_place_it_came_from() {
    let why = "is not a server id: write a whole number from 1 to 4294967295";
    assert_eq!(
        refusal(&[("id", "0")], &[], None),
        format!("--id \"0\" {why}")
    );
    assert_eq!(
        refusal(&[], &[("SYSTOLE_ID", "x")], None),
        format!("SYSTOLE_ID \"x\" {why}")
    );
    assert_eq!(
        refusal(&[], &[], Some("\nid = -1")),
        format!("systole.toml:2: id \"-1\" {why}")
    );
}

#[test]
fn each_setting_refuses_what_it_cannot_be() {
    let cases = [
        ("listen", "example.com:1", "not an address of this machine"),
        ("advertise", "host", "the port is missing"),
        ("peer-listen", "1", "has no port"),
        ("ensemble", "x", "is not ID=HOST:PORT"),
        ("data-dir", "", "is no directory"),
        ("shards", "0", "from 1 to 256"),
        ("shards", "257", "from 1 to 256"),
        ("pin", "yes", "is neither auto nor off"),
        ("default-timeout", "10", "did you mean 10s?"),
        ("lease", "soon", "is not a duration"),
        ("log-level", "loud", "is not one of error, warn, info"),
    ];
    for (key, text, why) in cases {
        let sentence = refusal(&[(key, text)], &[], None);
        assert!(sentence.starts_with(&format!("--{key} ")), "{sentence}");
        assert!(sentence.contains(why), "{sentence}");
    }
}

#[test]
fn timeouts_must_stand_in_order() {
    let cases: [(&[(&str, &str)], &str); 7] = [
        (
            &[("min-timeout", "49ms")],
            "--min-timeout is 49ms, but must be at least five ticks of the timing wheel, 50ms",
        ),
        (
            &[("max-timeout", "25h")],
            "--max-timeout is 25h, but must be at most a day, 24h",
        ),
        (
            &[("min-timeout", "2m"), ("max-timeout", "1m")],
            "--min-timeout is 2m, but must be at most --max-timeout, 1m",
        ),
        (
            &[("min-timeout", "11s")],
            "--default-timeout is 10s, but must be at least --min-timeout, 11s",
        ),
        (
            &[("max-timeout", "9s")],
            "--default-timeout is 10s, but must be at most --max-timeout, 9s",
        ),
        (
            &[("lease", "999ms")],
            "--lease is 999ms, but must be at least four renewals, 1s",
        ),
        (
            &[("lease", "61s")],
            "--lease is 61s, but must be at most a minute, 1m",
        ),
    ];
    for (flags, sentence) in cases {
        assert_eq!(refusal(flags, &[], None), sentence);
    }
    let edge = [("min-timeout", "50ms"), ("lease", "1s")];
    assert!(settings(&edge, &[], None).is_ok());
}

#[test]
fn a_server_is_one_of_its_ensemble() {
    let three = ("ensemble", "1=a:1,2=b:1,3=c:1");
    assert_eq!(
        refusal(&[three, ("id", "4")], &[], None),
        "--ensemble names the servers 1, 2, 3, but --id is 4: it must be one of them"
    );
    assert_eq!(
        refusal(&[("ensemble", "2=a:1")], &[], None),
        "--ensemble names server 2 alone, but --id is 1"
    );
    let second = settings(&[three, ("id", "2")], &[], None).unwrap();
    assert_eq!(second.own_peer_address(), Some("b:1"));
    assert!(!second.is_alone());
    let alone = [("ensemble", "2=a:1"), ("id", "2")];
    assert!(settings(&alone, &[], None).unwrap().is_alone());
    let nobody = settings(&[], &[], None).unwrap();
    assert!(nobody.is_alone() && nobody.own_peer_address().is_none());
}

#[test]
fn an_even_ensemble_is_warned_about() {
    let warnings = |list| {
        settings(&[("ensemble", list)], &[], None)
            .unwrap()
            .warnings()
    };
    assert!(warnings("1=a:1,2=b:1")[0].contains("than one of 1"));
    assert!(warnings("1=a:1,2=b:1,3=c:1").is_empty());
}

#[test]
fn clients_and_servers_need_a_port_each() {
    let same = [("peer-listen", "127.0.0.1:8640")];
    assert!(refusal(&same, &[], None).contains("need a port each"));
    let named = [("ensemble", "1=127.0.0.1:8640,2=b:1")];
    assert!(refusal(&named, &[], None).contains("need a port each"));
    let elsewhere = [named[0], ("peer-listen", "127.0.0.1:9")];
    assert!(settings(&elsewhere, &[], None).is_ok());
    let chosen = [("listen", "127.0.0.1:0"), ("peer-listen", "127.0.0.1:0")];
    assert!(
        settings(&chosen, &[], None).is_ok(),
        "the kernel chooses two"
    );
}

#[test]
fn an_endpoint_that_nobody_can_reach_is_warned_about() {
    let every = ("listen", "0.0.0.0:8640");
    let warnings = settings(&[every], &[], None).unwrap().warnings();
    assert!(
        warnings[0].contains("--advertise HOST:PORT"),
        "{warnings:?}"
    );
    let told = [every, ("advertise", "db1:8640")];
    assert!(settings(&told, &[], None).unwrap().warnings().is_empty());
}

#[test]
fn auto_leaves_a_core_to_zab_and_runs_at_least_one_shard() {
    assert_eq!(
        [0, 1, 2, 3, 64].map(|cores| Shards::Auto.count(cores)),
        [1, 1, 1, 2, 63]
    );
    assert_eq!(Shards::Count(4).count(2), 4);
}

#[test]
fn every_setting_has_a_place_in_the_environment() {
    assert_eq!(env_name("data-dir"), "SYSTOLE_DATA_DIR");
    // A directory may be called anything; every other setting refuses a control character.
    let every = KEYS.into_iter().chain(TUNING_KEYS);
    for (key, _) in every.filter(|(key, _)| *key != "data-dir") {
        let name = env_name(key);
        let text = refusal(&[], &[(&name, "\u{1}")], None);
        assert!(text.starts_with(&name), "{key}: {text}");
    }
}

#[test]
fn the_tuning_table_is_read_in_both_spellings_and_beaten_by_the_environment() {
    let file = "id = 7\n[tuning]\nring_depth = 64\nhuge-pages = \"off\"\nsegment-mib = 32\n";
    let env = [("SYSTOLE_TUNING_SEGMENT_MIB", "1024")];
    let given = settings(&[], &env, Some(file)).unwrap();
    assert_eq!(given.id, ServerId(7));
    assert_eq!(given.tuning.ring_depth, 64);
    assert!(!given.tuning.huge_pages);
    assert_eq!(given.tuning.segment_bytes(), 1 << 30);
    let left_alone = settings(&[], &[], None).unwrap().tuning;
    let defaults = Tuning {
        batch_window_us: 0,
        busy_poll_us: 0,
        huge_pages: true,
        ring_depth: 256,
        segment_mib: 64,
        socket_buffer_kib: 0,
    };
    assert_eq!(left_alone, defaults);
}

#[test]
fn every_knob_takes_both_ends_of_its_range_and_nothing_beyond() {
    let ranges = [
        ("batch-window-us", 0, BATCH_WINDOW_US_MAX),
        ("busy-poll-us", 0, BUSY_POLL_US_MAX),
        ("ring-depth", RING_DEPTH_MIN, RING_DEPTH_MAX),
        ("segment-mib", SEGMENT_MIB_MIN, SEGMENT_MIB_MAX),
        (
            "socket-buffer-kib",
            SOCKET_BUFFER_KIB_MIN,
            SOCKET_BUFFER_KIB_MAX,
        ),
    ];
    for (key, least, most) in ranges {
        let file = |value: i64| format!("[tuning]\n{key} = {value}");
        for value in [least, most] {
            let text = file(value.into());
            assert!(settings(&[], &[], Some(&text)).is_ok(), "{text}");
        }
        for value in [i64::from(least) - 1, i64::from(most) + 1] {
            let text = refusal(&[], &[], Some(&file(value)));
            let bounds = format!("is not a whole number from {least} to {most}");
            assert!(text.contains(&bounds), "{key}: {text}");
            let place = format!("systole.toml:2: tuning.{key}");
            assert!(text.starts_with(&place), "{key}: {text}");
        }
    }
    let text = refusal(&[], &[], Some("[tuning]\nhuge-pages = 'maybe'"));
    assert!(text.ends_with("is neither on nor off"), "{text}");
}

#[test]
fn a_knob_is_known_in_its_table_and_nowhere_else() {
    assert_eq!(
        refusal(&[], &[], Some("[tuning]\nring-dept = 64")),
        "systole.toml:2: \"tuning.ring-dept\" is no setting: did you mean tuning.ring-depth?"
    );
    for (text, key) in [
        ("ring-depth = 64", "ring-depth"),
        ("tuning = 64", "tuning"),
        ("[tuning]\nid = 1", "tuning.id"),
        ("'tuning.ring-depth' = 64", "tuning.ring-depth"),
    ] {
        let said = refusal(&[], &[], Some(text));
        assert!(said.contains(&format!("{key:?} is no setting")), "{said}");
    }
    assert_eq!(
        refusal(&[], &[], Some("[tuning]\nring-depth = 64\nring_depth = 64")),
        "systole.toml:3: \"tuning.ring_depth\" is given twice"
    );
}

//! Runs the examples, so that they go on doing what they show.

#[path = "../examples/replicated_map/ensemble.rs"]
mod ensemble;
#[path = "../examples/replicated_map/map.rs"]
mod map;
#[path = "../examples/replicated_map/tour.rs"]
mod tour;

use systole::types::ServerId;
use systole::zab::app::{Application, Origin, Preprocessed, RequestId, Snapshot};

#[test]
fn the_replicated_map_outlives_its_leader() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    tour::tour(dir.path(), |line| said.push(line)).unwrap();
    assert_eq!(said[0], "server 3 leads 3 servers");
    assert_eq!(said.last().unwrap(), "server 3 reads 4 entries");
}

#[test]
fn the_map_is_restored_from_what_it_saved() {
    let mut map = map::Map::default();
    for key in ["a", "b", "c"] {
        map.entries.insert(key.to_owned(), format!("value-{key}"));
    }
    let (mut saved, mut content) = (map.save(), Vec::new());
    while saved.write_into(&mut content, 5) {}
    let mut restored = map::Map::default();
    restored.restore(&mut &content[..]).unwrap();
    assert_eq!(restored.entries, map.entries);
    assert!(restored.restore(&mut &b"nonsense"[..]).is_err());
}

#[test]
fn the_map_answers_only_where_nothing_is_in_flight() {
    let mut map = map::Map::default();
    let origin = Origin {
        server: ServerId(1),
        run: 1,
        request: RequestId(1),
    };
    let mut ask = |request: &str| match map.preprocess(origin, request.as_bytes()) {
        Preprocessed::Answer(_) => "answered",
        Preprocessed::Transaction(_) | Preprocessed::AsAsked => "proposed",
    };
    assert_eq!(ask("delete a"), "answered");
    assert_eq!(ask("put a 1"), "proposed");
    assert_eq!(ask("delete a"), "proposed", "by then it will be there");
    assert_eq!(ask("frobnicate"), "answered");
    map.recovering(&[]);
    let answer = map.preprocess(origin, b"delete a");
    assert!(matches!(answer, Preprocessed::Answer(_)));
}

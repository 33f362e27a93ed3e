//! Every story ends well, and none does without one of the guards it names.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

#[test]
fn every_story_ends_well() {
    let mut failed = Vec::new();
    for story in ALL {
        match catch_unwind(AssertUnwindSafe(|| story.run(Faults::default()))) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => failed.push(format!("{}: {reason}", story.name)),
            Err(_) => failed.push(format!("{} panics", story.name)),
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn each_story_is_failed_by_its_plants() {
    let mut idle = Vec::new();
    for story in ALL {
        assert!(!story.guards.is_empty(), "{}", story.name);
        for &guard in story.guards {
            let told = catch_unwind(AssertUnwindSafe(|| story.run(guard)));
            if matches!(told, Ok(Ok(()))) {
                idle.push(format!("{} without {}", story.name, guard.name()));
            }
            if let Ok(Err(what)) = told {
                println!("{} without {}: {what}", story.name, guard.name());
            }
        }
    }
    assert!(idle.is_empty(), "{idle:#?}");
}

#[test]
fn the_stories_are_in_order_and_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    let mut before = 38;
    for story in ALL {
        assert!((before..=60).contains(&story.number), "{}", story.name);
        before = story.number;
        assert!(names.insert(story.name), "{} twice", story.name);
        assert_eq!(
            Story::named(story.name).map(|named| named.number),
            Some(before)
        );
    }
}

//! What must go on by itself.

use super::peers::Peers;
use crate::zab::Why;

#[test]
fn an_idle_leader_keeps_its_followers() {
    let mut world = Peers::running(3);
    world.run(60_000);
    for id in 1..=3 {
        assert_eq!(world.peer(id).why(), Why::Started, "{id}");
        assert_eq!(
            world.machine(id).standings.len(),
            if id == world.leader() { 2 } else { 1 }
        );
    }
}

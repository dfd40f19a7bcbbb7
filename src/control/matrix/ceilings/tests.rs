//! Publishers that do as they are told, some seconds later, against ceilings: what flows stays below, and nothing flaps.

use super::*;

const HOME: HomeId = HomeId(0);
/// Kbit/s of sound and of each layer of video.
const SOUND: u64 = 40;
const LAYERS: [u64; 3] = [150, 500, 1_700];
/// How long a publisher takes to do as it is told, ms.
const OBEYS: i64 = 2_000;

struct World {
    ceilings: Ceilings,
    now: i64,
    /// Calls by their publishers: server, layers it sends, and what it was told when.
    calls: BTreeMap<String, Vec<Publisher>>,
    steps: u32,
}

#[derive(Clone)]
struct Publisher {
    server: &'static str,
    sends: usize,
    told: Vec<(i64, usize)>,
}

impl World {
    fn new(calls: &[(&str, &[(&'static str, usize)])]) -> Self {
        let publisher = |server| Publisher { server, sends: LAYERS.len(), told: Vec::new() };
        let people = |all: &[(&'static str, usize)]| -> Vec<Publisher> {
            all.iter().flat_map(|(server, count)| vec![publisher(*server); *count]).collect()
        };
        let calls = calls.iter().map(|(room, all)| ((*room).to_owned(), people(all))).collect();
        Self { ceilings: Ceilings::default(), now: 1_000_000, calls, steps: 0 }
    }

    fn rate(publisher: &Publisher) -> u64 {
        1_000 * (SOUND + LAYERS.iter().take(publisher.sends).sum::<u64>())
    }

    fn sum(&self, of: impl Fn(&str, &Publisher) -> bool) -> u64 {
        let all = self.calls.iter().flat_map(|(room, all)| all.iter().map(move |one| (room, one)));
        all.filter(|(room, one)| of(room, one)).map(|(_, one)| Self::rate(one)).sum()
    }

    /// A second goes by.
    fn second(&mut self, ceiling: impl Fn(&Group) -> u64) {
        self.now += 1_000;
        for (room, all) in &mut self.calls {
            for one in all.iter_mut() {
                let now = self.now;
                if let Some((_, sends)) = one.told.iter().rev().find(|(at, _)| now - at >= OBEYS) {
                    one.sends = *sends;
                }
            }
            let published = all.iter().enumerate().map(|(number, one)| Published {
                identity: number.to_string(),
                home: HOME,
                server: one.server.to_owned(),
                bps: Self::rate(one),
            });
            self.ceilings.note(self.now, room, published);
        }
        for ((room, identity), most) in self.ceilings.review(self.now, ceiling) {
            self.steps += 1;
            let number: usize = identity.parse().unwrap_or(usize::MAX);
            let one = self.calls.get_mut(&room).and_then(|all| all.get_mut(number));
            if let Some(one) = one {
                one.told.push((self.now, most.map_or(LAYERS.len(), |most| usize::from(most) + 1)));
            }
        }
    }

    fn seconds(&mut self, count: u32, ceiling: impl Fn(&Group) -> u64 + Copy) {
        (0..count).for_each(|_| self.second(ceiling));
    }
}

fn room_ceiling(kbps: u64) -> impl Fn(&Group) -> u64 + Copy {
    move |group| if matches!(group, Group::Room(..)) { kbps * 1_000 } else { 0 }
}

#[test]
fn leaves_a_call_alone_that_is_far_from_its_ceiling() {
    let mut world = World::new(&[("call", &[("far.test", 4)])]);
    world.seconds(600, room_ceiling(20_000));
    assert_eq!((world.steps, world.ceilings.lowered()), (0, (0, 0)));
    assert!(world.ceilings.groups.is_empty(), "nothing is kept of it");
}

#[test]
fn lowers_video_near_a_ceiling_until_it_fits_and_touches_no_sound() {
    // Ten publish 24 Mbit/s; two layers of each are 6.9 Mbit/s, one is 1.9.
    for (kbps, layers) in [(30_000, 3), (20_000, 2), (8_000, 2), (5_000, 1), (1_000, 1)] {
        let mut world = World::new(&[("call", &[("far.test", 6), ("farther.test", 4)])]);
        world.seconds(30, room_ceiling(kbps));
        let sends: Vec<usize> = world.calls.values().flatten().map(|one| one.sends).collect();
        assert!(sends.iter().all(|sends| *sends == layers), "{kbps} kbit/s: {sends:?}");
    }
}

#[test]
fn a_server_shares_its_ceiling_over_all_calls_and_others_do_not_pay() {
    let mut world = World::new(&[("one", &[("far.test", 5), ("farther.test", 1)]), ("two", &[("far.test", 5)])]);
    let ceiling = |group: &Group| match group {
        Group::Server(_, server) if server == "far.test" => 10_000_000,
        _ => 0,
    };
    world.seconds(30, ceiling);
    assert!(world.sum(|_, one| one.server == "far.test") < 10_000_000);
    assert!(world.calls.values().flatten().all(|one| (one.server == "far.test") == (one.sends < 3)));
    assert_eq!(world.ceilings.lowered(), (0, 1));
}

#[test]
fn gives_layers_back_when_there_is_room_again() {
    let mut world = World::new(&[("call", &[("far.test", 10)])]);
    world.seconds(60, room_ceiling(8_000));
    assert!(world.calls.values().flatten().all(|one| one.sends == 2));
    world.calls.values_mut().for_each(|all| all.truncate(1));
    world.seconds(60, room_ceiling(20_000));
    assert!(world.calls.values().flatten().all(|one| one.sends == 3));
    assert_eq!(world.ceilings.lowered(), (0, 0));
}

#[test]
fn does_not_flap_where_the_ladder_is_steeper_than_usual() {
    let mut world = World::new(&[("call", &[("far.test", 1)])]);
    // What the only one sends is small or too much: a publisher whose second layer is twenty times its first.
    let mut flaps = 0;
    let mut low = false;
    for _ in 0..3_600 {
        world.now += 1_000;
        let bps = if low { 100_000 } else { 2_000_000 };
        let one = Published { identity: "0".to_owned(), home: HOME, server: "far.test".to_owned(), bps };
        world.ceilings.note(world.now, "call", std::iter::once(one));
        for (_, most) in world.ceilings.review(world.now, room_ceiling(1_500)) {
            low = most.is_some();
            flaps += 1;
        }
    }
    assert!(flaps < 40, "{flaps} changes in an hour");
}

#[test]
fn tells_whoever_comes_back_and_forgets_whoever_is_gone() {
    let mut world = World::new(&[("call", &[("far.test", 10)])]);
    world.seconds(30, room_ceiling(8_000));
    let told = world.steps;
    world.second(room_ceiling(8_000));
    assert_eq!(world.steps, told, "said once");
    world.ceilings.joined("call", "3");
    world.second(room_ceiling(8_000));
    assert_eq!(world.steps, told + 1);
    world.calls.clear();
    world.seconds(120, room_ceiling(8_000));
    assert!(world.ceilings.entries.is_empty() && world.ceilings.groups.is_empty() && world.ceilings.told.is_empty());
}

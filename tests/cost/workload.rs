//! What is counted: so many turns, one after the other.

use std::hint::black_box;

use crate::scenes::{Kept, Pack, Scene};

/// Turns of one kind.
#[derive(Clone, Copy, Debug)]
pub enum Workload {
    /// From the bytes of a message to an activity.
    Decode,
    /// The pure machine: decode, advance, replies and snapshot.
    Machine(Pack),
    /// A whole worker, over a transport and a store in memory.
    Worker(Pack),
}

impl Workload {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let of = |kind: fn(Pack) -> Self| Pack::ALL.into_iter().map(kind);
        let decode = std::iter::once(Self::Decode);
        decode
            .chain(of(Self::Machine))
            .chain(of(Self::Worker))
            .collect()
    }

    /// Its name in the baseline.
    pub fn name(self) -> String {
        match self {
            Self::Decode => "decode".to_owned(),
            Self::Machine(pack) => format!("machine, {}", pack.name()),
            Self::Worker(pack) => format!("worker, {}", pack.name()),
        }
    }

    /// Runs so many turns: of conversations of two turns.
    pub fn run(self, turns: usize) {
        let conversations = turns / 2;
        match self {
            Self::Decode => {
                let scene = Scene::of(Pack::Plain);
                let message = scene.message(0, 0);
                for _ in 0..turns {
                    black_box(scene.decode(black_box(&message)));
                }
            }
            Self::Machine(pack) => {
                let scene = Scene::of(pack);
                let (machine, message) = (scene.machine(), scene.message(0, 0));
                for _ in 0..conversations {
                    let mut kept = Kept::default();
                    for _ in 0..2 {
                        let activity = scene.decode(&message);
                        assert_eq!(machine.turn(&mut kept, activity.payload), 1);
                    }
                }
            }
            Self::Worker(pack) => {
                let scene = Scene::of(pack);
                let messages: Vec<_> = (0..conversations)
                    .flat_map(|n| [scene.message(n, 0), scene.message(n, 1)])
                    .collect();
                let tokio = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                tokio.expect("a tokio").block_on(async {
                    let mut talk = scene.worker();
                    for message in messages {
                        black_box(talk.turn(message).await);
                    }
                });
            }
        }
    }
}

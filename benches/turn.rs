//! Micro-benchmarks: what the parts of a turn take. `./dev bench --micro` runs them; docs/performance.md tells more.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot go on ends by panicking"
)]

mod scenes;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scenes::{Kept, Pack, Scene};

/// From the bytes of a message to an activity.
fn decode(criterion: &mut Criterion) {
    let scene = Scene::of(Pack::Plain);
    let message = scene.message(0, 0);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(message.body.len() as u64));
    group.bench_function("message", |bencher| {
        bencher.iter(|| scene.decode(black_box(&message)));
    });
    group.finish();
}

/// The machine alone, for conversations of two turns; a figure is of one conversation.
fn advance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("advance");
    for pack in Pack::ALL {
        let scene = Scene::of(pack);
        let machine = scene.machine();
        let payload = scene.decode(&scene.message(0, 0)).payload;
        group.bench_function(pack.name(), |bencher| {
            bencher.iter(|| {
                let mut kept = Kept::default();
                let first = machine.turn(&mut kept, black_box(payload.clone()));
                first + machine.turn(&mut kept, black_box(payload.clone()))
            });
        });
    }
    group.finish();
}

/// A whole worker over a transport and a store in memory, one turn after the other; a figure is of one conversation.
fn worker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("worker");
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let tokio = tokio.expect("a tokio");
    for pack in Pack::ALL {
        let _inside = tokio.enter();
        let mut talk = Scene::of(pack).worker();
        let messages = Scene::of(pack);
        let mut conversation = 0;
        group.bench_function(pack.name(), |bencher| {
            bencher.iter(|| {
                conversation += 1;
                for turn in 0..2 {
                    black_box(tokio.block_on(talk.turn(messages.message(conversation, turn))));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, advance, worker);
criterion_main!(benches);

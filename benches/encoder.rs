//! The whole encoder for each length and for batches, on each instruction set, and on two threads. Elements
//! per second are multiply-adds per second.
//!
//! Measures the models in `models/`, in int8, and the model file that `BERTLET_MODEL` names.

#[path = "../tests/common/checkpoints.rs"]
mod checkpoints;

use std::time::Duration;

use bertlet::{Input, Isa, Layers, ModelFile, Output, Pooling, Session};
use checkpoints::{Folder, Weights, ids};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// One row of the report: runs inputs of these lengths, one after the other.
fn time(
    c: &mut Criterion,
    name: &str,
    lengths: &[usize],
    session: &mut Session<'_>,
    variant: &str,
) {
    let config = *session.model().config();
    let inputs: Vec<_> = lengths.iter().map(|tokens| ids(*tokens, config.vocab_size)).collect();
    let mut out = vec![0.0; config.hidden_size];
    let mut group = c.benchmark_group(name);
    let work = lengths.iter().map(|tokens| config.multiply_adds(*tokens)).sum();
    group.throughput(Throughput::Elements(work));
    group.bench_function(variant, |b| {
        b.iter(|| {
            for ids in &inputs {
                let (layers, pooling, normalize) = (Layers::LAST, Pooling::Mean, false);
                let features = Output::Features { layers, pooling, normalize, out: &mut out };
                session.encode(&Input::new(ids), &mut [features]).expect("a valid input");
            }
        });
    });
    group.finish();
}

fn bench(c: &mut Criterion) {
    let folder = Folder::new("encoder-bench");
    let mut files =
        ["tiny-ner", "tiny-sst2"].map(|name| folder.model(name, Weights::Int8)).to_vec();
    match std::env::var_os("BERTLET_MODEL") {
        Some(file) => files.push(file.into()),
        None => eprintln!("BERTLET_MODEL is not set: only the tiny models are measured"),
    }
    for path in files {
        let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().expect("a file").to_string_lossy();
        let limit = file.model().config().max_position_embeddings;
        let lengths = [8, 16, 32, 64, 128, 256, 512].into_iter().filter(|tokens| *tokens <= limit);
        let one = lengths.map(|tokens| (tokens.to_string(), vec![tokens]));
        // Two batches of about 4,000 tokens.
        let even = vec![128.min(limit); 32];
        let ragged = (0..32).map(|i| (4 + i * 7 % 32 * 8).min(limit)).collect();
        let batches = [("32x128".to_string(), even), ("32_ragged".to_string(), ragged)];
        for (case, lengths) in one.chain(batches) {
            let name = format!("{name}/{case}");
            for isa in Isa::all().filter_map(|(isa, _)| Isa::named(isa).ok()) {
                let mut session = Session::new(file.model()).with_isa(isa);
                time(c, &name, &lengths, &mut session, isa.name());
            }
            let session = Session::new(file.model()).with_threads(2);
            let mut session = session.expect("one more thread");
            let variant = format!("{}_2_threads", session.isa().name());
            time(c, &name, &lengths, &mut session, &variant);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = bench
}
criterion_main!(benches);

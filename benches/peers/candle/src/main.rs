//! candle's BERT in f32 for the protocol of `bertlet bench --protocol`: `peer-candle CHECKPOINT`.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    if let Ok(threads) = std::env::var("THREADS") {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads) };
    }
    let folder = std::env::args().nth(1).ok_or("usage: peer-candle CHECKPOINT")?;
    let folder = Path::new(&folder);
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let vocab = config.vocab_size;
    // SAFETY: nobody changes the file while this runs.
    let weights = unsafe {
        let files = [folder.join("model.safetensors")];
        VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)?
    };
    let model = BertModel::load(weights, &config)?;
    let run = |ids: &Tensor| model.forward(ids, &ids.zeros_like()?, None);

    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        match line?.split_whitespace().collect::<Vec<_>>()[..] {
            [] => continue,
            ["Q", ids, states] => {
                let mut bytes = Vec::new();
                for line in std::fs::read_to_string(ids)?.lines() {
                    let ids = line.split_whitespace().map(str::parse);
                    let ids: Vec<u32> = ids.collect::<std::result::Result<_, _>>()?;
                    let values: Vec<f32> = run(&tensor(ids, 1)?)?.flatten_all()?.to_vec1()?;
                    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                }
                std::fs::write(states, bytes)?;
                writeln!(out, "ok")?;
            }
            [tokens, repetitions, ref batch @ ..] => {
                let batch = batch.first().map_or(Ok(1), |batch| batch.parse())?;
                let ids = (1..=tokens.parse()?).map(|i: usize| (i * 2_654_435_761 % vocab) as u32);
                let ids = tensor(ids.collect::<Vec<_>>().repeat(batch), batch)?;
                for _ in 0..repetitions.parse()? {
                    let begin = Instant::now();
                    run(&ids)?;
                    write!(out, "{:.3} ", begin.elapsed().as_secs_f64() * 1e6)?;
                }
                writeln!(out)?;
            }
            [_] => return Err("write `L REPS`, `L REPS BATCH` or `Q IDS OUT`".into()),
        }
        out.flush()?;
    }
    Ok(())
}

/// `[batch, tokens]`.
fn tensor(ids: Vec<u32>, batch: usize) -> Result<Tensor> {
    let tokens = ids.len() / batch;
    Tensor::from_vec(ids, (batch, tokens), &Device::Cpu)
}

//! Checkpoints with the vocabulary size of bert-base-chinese and pseudorandom weights.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bertlet_convert::tokenizer::read_vocab;
use serde_json::{Value, json};

pub const VOCAB: usize = 21_128;

/// The shape of a checkpoint with the vocabulary size of bert-base-chinese.
pub struct Shape {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub intermediate: usize,
    pub positions: usize,
    /// Random weights lie in `[-spread, spread)`.
    pub spread: f32,
    /// Bias of the first label, `O`. It must lie between the largest value of a planted word's normalised
    /// vector (near the square root of the hidden size, less what the layers add) and that of all other
    /// words (near 1).
    pub outside: f32,
}

impl Shape {
    /// Number of parameters without heads: three tables and their norm, layers, pooler.
    pub fn parameters(&self) -> usize {
        let Self { hidden, layers, intermediate, positions, .. } = *self;
        let linear = |outputs: usize, inputs: usize| outputs * inputs + outputs;
        let norm = 2 * hidden;
        let attention = 4 * linear(hidden, hidden) + norm;
        let forward = linear(intermediate, hidden) + linear(hidden, intermediate) + norm;
        let tables = (VOCAB + positions + 2) * hidden + norm;
        tables + layers * (attention + forward) + linear(hidden, hidden)
    }
}

/// A vocabulary in the order of the real one: special tokens, ASCII, then as many Chinese characters with
/// their continuations as fit.
fn made_up_vocabulary() -> Vec<String> {
    let mut vocab = vec!["[PAD]".to_owned()];
    vocab.extend((1..100).map(|i| format!("[unused{i}]")));
    vocab.extend(["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"].map(String::from));
    vocab.extend(('!'..='~').map(String::from));
    vocab.extend(('0'..='9').chain('a'..='z').map(|c| format!("##{c}")));
    vocab.extend("，。！？、：；《》（）“”…—".chars().map(String::from));
    vocab.extend(["in", "the", "app", "##le", "##ing", "2024", "##24", "iphone"].map(String::from));
    let han = ('\u{4e00}'..).flat_map(|c| [c.to_string(), format!("##{c}")]);
    let room = VOCAB - vocab.len();
    vocab.extend(han.take(room));
    vocab
}

/// The vocabularies to test with, and their names; the real one is last.
pub fn vocabularies() -> Vec<(&'static str, Vec<String>)> {
    let mut all = vec![("made-up", made_up_vocabulary())];
    match std::env::var_os("BERTLET_DATA").map(PathBuf::from) {
        Some(data) => {
            let path = data.join("vocabs/bert-base-chinese.vocab.txt");
            all.push(("real", read_vocab(&std::fs::read_to_string(path).unwrap())));
        }
        // Not with `eprintln!`: the harness shows what that prints for failed tests only.
        None => {
            let note = "SKIPPED: BERTLET_DATA is not set, bert-base-chinese's words not tested\n";
            std::io::stderr().write_all(note.as_bytes()).unwrap();
        }
    }
    for (name, vocab) in &all {
        assert_eq!(vocab.len(), VOCAB, "{name}");
    }
    all
}

/// The tensors of a checkpoint, filled by a pseudorandom generator.
struct Tensors {
    state: u64,
    spread: f32,
    all: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tensors {
    /// Adds a tensor of small values around 0, like those of BERT's initialisation.
    fn random(&mut self, name: &str, shape: &[usize]) -> &mut Vec<f32> {
        let mut next = || {
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963);
            self.spread * ((self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        };
        let values = (0..shape.iter().product()).map(|_| next()).collect();
        &mut self.all.entry(name.to_owned()).or_insert((shape.to_vec(), values)).1
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> &mut Vec<f32> {
        self.random(&format!("{name}.bias"), &[outputs]);
        self.random(&format!("{name}.weight"), &[outputs, inputs])
    }

    fn norm(&mut self, name: &str, width: usize) {
        let weight = self.random(&format!("{name}.weight"), &[width]);
        weight.iter_mut().for_each(|x| *x += 1.0);
        self.random(&format!("{name}.bias"), &[width]);
    }

    fn save(&self, path: &Path) -> std::io::Result<()> {
        let (mut table, mut end) = (serde_json::Map::new(), 0);
        for (name, (shape, values)) in &self.all {
            let start = end;
            end += 4 * values.len();
            let place = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]});
            table.insert(name.clone(), place);
        }
        let mut header = Value::Object(table).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for value in self.all.values().flat_map(|(_, values)| values) {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()
    }
}

/// Writes a checkpoint in which each planted character gets the label of that name, and every other token
/// the first label.
pub fn write(
    folder: &Path,
    shape: &Shape,
    vocab: &[String],
    architecture: &str,
    labels: &[&str],
    planted: &[(char, &str)],
) {
    let Shape { hidden, layers, heads, intermediate, positions, spread, outside } = *shape;
    let mut tensors = Tensors { state: 21_128, spread, all: BTreeMap::new() };
    let label = |name: &str| labels.iter().position(|label| *label == name).unwrap();
    let words = tensors.random("bert.embeddings.word_embeddings.weight", &[VOCAB, hidden]);
    for (character, name) in planted {
        let id = vocab.iter().position(|token| *token == character.to_string()).unwrap();
        words[id * hidden + label(name)] = 1.0;
    }
    tensors.random("bert.embeddings.position_embeddings.weight", &[positions, hidden]);
    tensors.random("bert.embeddings.token_type_embeddings.weight", &[2, hidden]);
    tensors.norm("bert.embeddings.LayerNorm", hidden);
    for n in 0..layers {
        let layer = format!("bert.encoder.layer.{n}");
        for part in ["query", "key", "value"] {
            let weight = tensors.linear(&format!("{layer}.attention.self.{part}"), hidden, hidden);
            if part != "value" {
                // Large enough that a token does not attend to all others equally.
                weight.iter_mut().for_each(|x| *x *= 4.0);
            }
        }
        tensors.linear(&format!("{layer}.attention.output.dense"), hidden, hidden);
        tensors.norm(&format!("{layer}.attention.output.LayerNorm"), hidden);
        tensors.linear(&format!("{layer}.intermediate.dense"), intermediate, hidden);
        tensors.linear(&format!("{layer}.output.dense"), hidden, intermediate);
        tensors.norm(&format!("{layer}.output.LayerNorm"), hidden);
    }
    tensors.linear("bert.pooler.dense", hidden, hidden);
    let head = tensors.linear("classifier", labels.len(), hidden);
    if !planted.is_empty() {
        (1..labels.len()).for_each(|label| head[label * hidden + label] = 1.0);
        tensors.random("classifier.bias", &[])[0] = outside;
    }
    tensors.save(&folder.join("model.safetensors")).unwrap();
    let numbered = |(i, label): (usize, &&str)| (i.to_string(), json!(label));
    let id2label: serde_json::Map<_, _> = labels.iter().enumerate().map(numbered).collect();
    let config = json!({
        "architectures": [architecture], "model_type": "bert", "hidden_act": "gelu",
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": intermediate, "max_position_embeddings": positions,
        "type_vocab_size": 2, "vocab_size": VOCAB, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "id2label": id2label,
    });
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    write("config.json", config.to_string());
    write("tokenizer_config.json", json!({"do_lower_case": false}).to_string());
    write("vocab.txt", vocab.join("\n") + "\n");
}

//! Small random models, and other helpers that tests share.
#![allow(dead_code)] // Each test uses a part of it.

use std::io::Write;
use std::ops::{Deref, DerefMut};

use bertlet::format::writer::{Defaults, QuantizedMatrix, Writer, xxh64};
use bertlet::format::{Activation, Attention, Encoding, ProblemType, ScoreActivation, round16};
use bertlet::kernels::{Rotation, TABLE_GROUP};
use bertlet::{
    Config, Encoder, Executor, Input, Isa, Model, Output, Pooling, RunError, SectionKind,
};
use half::f16;

/// Pseudorandom numbers, the same in every run (xorshift64*).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// In `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
    /// In [-1, 1).
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    pub fn values(&mut self, n: usize, magnitude: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * magnitude).collect()
    }
    pub fn int8(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| (self.below(255) as i32 - 127) as i8).collect()
    }
}

/// Bytes at an address that is a multiple of 64.
#[derive(Clone)]
pub struct Aligned {
    buffer: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut buffer = vec![0; bytes.len() + 64];
        let start = buffer.as_ptr().align_offset(64);
        buffer[start..][..bytes.len()].copy_from_slice(bytes);
        Self { buffer, start, length: bytes.len() }
    }
    pub fn copy(&self) -> Self {
        Self::new(self)
    }
}

impl Deref for Aligned {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..][..self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..][..self.length]
    }
}

/// The shape and the contents of a random model.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub config: Config,
    /// Encoding of the matrices.
    pub matrices: Encoding,
    /// Encoding of the embedding tables.
    pub tables: Encoding,
    /// Number of outputs of the classifiers.
    pub labels: usize,
    /// Whether the model has a pooler and all heads.
    pub heads: bool,
    /// Whether the masked LM head has a decoder of its own, instead of the word embeddings.
    pub decoder: bool,
    /// The tokenizer section; empty for none.
    pub tokenizer: &'static [u8],
    pub seed: u64,
}

/// A small shape: heads of 16 features, and an intermediate size that is not a multiple of 16.
pub const SMALL: Config = Config {
    hidden_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 3,
    intermediate_size: 100,
    vocab_size: 90,
    max_position_embeddings: 70,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    hidden_act: Activation::Gelu,
    attention: Attention::Integer,
};

impl Spec {
    pub const fn new(config: Config, encoding: Encoding) -> Self {
        let attention = match encoding {
            Encoding::Int8 => Attention::Integer,
            _ => Attention::Float,
        };
        Self {
            config: Config { attention, ..config },
            matrices: encoding,
            tables: encoding,
            labels: 5,
            heads: true,
            decoder: false,
            tokenizer: &[],
            seed: 1,
        }
    }

    /// A random shape with random encodings.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let heads = 1 + r.below(4);
        let encodings = [Encoding::Int8, Encoding::F16, Encoding::F32];
        Self {
            config: Config {
                hidden_size: heads * (1 + r.below(40)),
                num_hidden_layers: 1 + r.below(3),
                num_attention_heads: heads,
                intermediate_size: 1 + r.below(200),
                vocab_size: 2 + r.below(60),
                max_position_embeddings: 1 + r.below(50),
                type_vocab_size: 1 + r.below(3),
                layer_norm_eps: r.pick(&[1e-12, 1e-7, 1e-3]),
                hidden_act: r.pick(&ACTIVATIONS),
                attention: r.pick(&[Attention::Integer, Attention::Float]),
            },
            matrices: r.pick(&encodings),
            tables: r.pick(&encodings),
            labels: 1 + r.below(20),
            heads: r.below(4) != 0,
            decoder: r.below(2) == 0,
            tokenizer: &[],
            seed,
        }
    }

    pub fn file(&self) -> Aligned {
        Aligned::new(&self.writer().to_vec())
    }

    pub fn writer(&self) -> Writer {
        let defaults = Defaults {
            pooling: Pooling::Mean,
            normalize: true,
            problem_type: ProblemType::SingleLabel,
            labels: self.labels,
            max_tokens: 0,
            score_activation: ScoreActivation::OfProblem,
        };
        self.writer_with(defaults)
    }

    pub fn writer_with(&self, defaults: Defaults) -> Writer {
        let writer = Writer::new(self.config, defaults);
        let mut builder = Builder { spec: *self, random: Random::new(self.seed), writer };
        builder.all();
        builder.writer
    }
}

pub const ACTIVATIONS: [Activation; 5] =
    [Activation::Gelu, Activation::GeluTanh, Activation::Relu, Activation::Silu, Activation::Tanh];

struct Builder {
    spec: Spec,
    random: Random,
    writer: Writer,
}

impl Builder {
    fn all(&mut self) {
        for kind in &SectionKind::OF_EMBEDDINGS[..3] {
            self.table(*kind);
        }
        self.norm(SectionKind::EmbeddingsNorm, 0);
        for layer in 0..self.spec.config.num_hidden_layers {
            for kind in SectionKind::OF_LAYER {
                match kind {
                    SectionKind::AttentionNorm | SectionKind::OutputNorm => self.norm(kind, layer),
                    _ => self.matrix(kind, layer),
                }
            }
        }
        if self.spec.heads {
            for kind in
                [SectionKind::Pooler, SectionKind::TokenClassifier, SectionKind::SequenceClassifier]
            {
                self.matrix(kind, 0);
            }
            self.matrix(SectionKind::MaskedLmTransform, 0);
            self.norm(SectionKind::MaskedLmNorm, 0);
            if self.spec.decoder {
                self.table(SectionKind::MaskedLmDecoder);
            }
            let bias = self.random.values(self.spec.config.vocab_size, 1.0);
            self.writer.vector(SectionKind::MaskedLmBias, &bias);
            self.matrix(SectionKind::NextSentence, 0);
            self.matrix(SectionKind::QuestionAnswering, 0);
        }
        if !self.spec.tokenizer.is_empty() {
            self.writer.bytes(SectionKind::Tokenizer, self.spec.tokenizer.to_vec());
        }
        let labels: Vec<_> = (0..self.spec.labels).map(|i| format!("label-{i}")).collect();
        self.writer.labels(&labels);
        self.writer.bytes(SectionKind::Provenance, br#"{"source":"random"}"#.to_vec());
    }

    fn shape(&self, kind: SectionKind) -> (usize, usize) {
        kind.shape(&self.spec.config, self.spec.labels)
    }

    /// Whether weight `[n][k]` of a matrix belongs to the padding of a head.
    fn pads(&self, kind: SectionKind, n: usize, k: usize) -> bool {
        let size = self.spec.config.head_size();
        let at = match kind {
            SectionKind::QueryKeyValue => n,
            SectionKind::AttentionOutput => k,
            _ => 0,
        };
        at % round16(size) >= size
    }

    fn matrix(&mut self, kind: SectionKind, layer: usize) {
        let (rows, cols) = self.shape(kind);
        let bias = self.random.values(rows, 0.5);
        let bias: Vec<f32> =
            bias.iter()
                .enumerate()
                .map(|(n, b)| {
                    if kind == SectionKind::QueryKeyValue && self.pads(kind, n, 0) {
                        0.0
                    } else {
                        *b
                    }
                })
                .collect();
        let magnitude = 2.0 / (cols as f32).sqrt();
        if self.spec.matrices == Encoding::Int8 {
            let rotation = self.rotation(cols);
            let mut values = self.random.int8(rows * cols);
            for (i, value) in values.iter_mut().enumerate() {
                if self.pads(kind, i / cols, i % cols) {
                    *value = 0;
                }
            }
            let magnitude = magnitude / 127.0 / (rotation.block as f32).sqrt();
            let scale: Vec<f32> =
                (0..rows).map(|_| magnitude * (1.0 + 0.5 * self.random.unit())).collect();
            let matrix = QuantizedMatrix { values: &values, scale: &scale, bias: &bias, rotation };
            self.writer.int8_matrix(kind, layer, matrix);
        } else {
            let mut values = self.random.values(rows * cols, magnitude);
            for (i, value) in values.iter_mut().enumerate() {
                if self.pads(kind, i / cols, i % cols) {
                    *value = 0.0;
                }
            }
            self.writer.float_matrix(kind, layer, self.spec.matrices, &values, &bias);
        }
    }

    /// A random rotation of those that fit `cols` columns.
    fn rotation(&mut self, cols: usize) -> Rotation {
        let mut fitting = vec![Rotation::NONE];
        for block in [2, 4, 8, 16, 32, 64, 128] {
            for stride in [1, 16, 32, 48, 64] {
                if cols.is_multiple_of(block * stride) {
                    fitting.push(Rotation { block, stride });
                }
            }
        }
        self.random.pick(&fitting)
    }

    fn table(&mut self, kind: SectionKind) {
        let (rows, cols) = self.shape(kind);
        if self.spec.tables == Encoding::Int8 {
            let values = self.random.int8(rows * cols);
            let scales: Vec<f16> = (0..rows * cols.div_ceil(TABLE_GROUP))
                .map(|_| f16::from_f32(0.01 * (1.5 + self.random.unit())))
                .collect();
            self.writer.int8_table(kind, &values, &scales);
        } else {
            let values = self.random.values(rows * cols, 1.0);
            self.writer.float_table(kind, self.spec.tables, &values);
        }
    }

    fn norm(&mut self, kind: SectionKind, layer: usize) {
        let hidden = self.spec.config.hidden_size;
        let gamma: Vec<f32> = self.random.values(hidden, 0.5).iter().map(|g| 1.0 + g).collect();
        let beta = self.random.values(hidden, 0.2);
        self.writer.norm(kind, layer, &gamma, &beta);
    }
}

/// Where the header's fields stand, by the specification.
pub mod field {
    pub const VERSION: usize = 8;
    pub const SECTIONS: usize = 12;
    pub const FILE_LENGTH: usize = 16;
    pub const CHECKSUM: usize = 24;
    pub const HIDDEN_SIZE: usize = 32;
    pub const LAYERS: usize = 36;
    pub const HEADS: usize = 40;
    pub const INTERMEDIATE_SIZE: usize = 44;
    pub const VOCAB_SIZE: usize = 48;
    pub const POSITIONS: usize = 52;
    pub const TOKEN_TYPES: usize = 56;
    pub const EPS: usize = 60;
    pub const ACTIVATION: usize = 64;
    pub const ATTENTION: usize = 68;
    pub const POOLING: usize = 72;
    pub const NORMALIZE: usize = 76;
    pub const PROBLEM_TYPE: usize = 80;
    pub const LABELS: usize = 84;
    pub const MAX_TOKENS: usize = 88;
    pub const SCORE_ACTIVATION: usize = 92;
    pub const RESERVED: usize = 96;
}

/// Updates the checksum of header and section table, if `bytes` holds both.
pub fn fix_checksum(bytes: &mut [u8]) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let end = 128 + 64 * number(field::SECTIONS);
    if let Some(head) = bytes.get(field::CHECKSUM + 8..end) {
        let sum = xxh64(head).to_le_bytes();
        bytes[field::CHECKSUM..field::CHECKSUM + 8].copy_from_slice(&sum);
    }
}

/// Random token ids of the model's vocabulary.
pub fn ids(config: &Config, tokens: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..tokens).map(|_| random.below(config.vocab_size) as u32).collect()
}

/// An executor of this many threads, which starts one for each closure.
pub struct Threads(pub usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }
    fn join(&self, a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
        std::thread::scope(|scope| {
            scope.spawn(a);
            b();
        });
    }
}

/// Runs a model once, with an encoder for exactly this input.
pub fn run(
    model: Model<'_>,
    isa: Isa,
    threads: usize,
    input: &Input<'_>,
    outputs: &mut [Output<'_>],
) -> Result<(), RunError> {
    let tokens = input.input_ids.len();
    let executor = Threads(threads);
    // The result must not depend on what the scratch held before.
    let mut scratch = vec![0xff; model.config().scratch_len_threads(tokens, threads)];
    Encoder::with_executor(model, isa, &mut scratch, tokens, &executor)?.encode(input, outputs)
}

/// The instruction sets that this machine has. The test fails if `BERTLET_REQUIRE_ISA` names one that it
/// lacks.
pub fn instruction_sets() -> Vec<Isa> {
    let have: Vec<Isa> = Isa::all().filter_map(|(name, _)| Isa::named(name).ok()).collect();
    let names = |available: bool| {
        let names: Vec<_> = Isa::all().filter(|isa| isa.1 == available).map(|isa| isa.0).collect();
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    };
    // Not with `eprintln!`: the harness shows what that prints for failed tests only.
    let report = format!("encoder tested on: {}; not on: {}", names(true), names(false));
    let _ = writeln!(std::io::stderr(), "{report}");
    for name in std::env::var("BERTLET_REQUIRE_ISA").unwrap_or_default().split(',') {
        let name = name.trim();
        assert!(name.is_empty() || Isa::named(name).is_ok(), "this machine lacks {name}");
    }
    have
}

/// The bits of floats, for comparisons to the bit.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

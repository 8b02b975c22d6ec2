//! The forward pass (BERT, 1810.04805; Transformer encoder, 1706.03762, figure 1, left): embeddings;
//! then for each layer attention, add & norm, feed-forward, add & norm; then what is asked of the
//! hidden states.
//!
//! Tokens go through a layer in chunks that fit the cache. Between two chunks there is no
//! dependence but that attention needs the keys and values of all of them, so a layer is two
//! sweeps: `Pass::project` and `Pass::attend`. The latter runs the feed-forward as a sweep of its own.

mod collect;
mod linear;
mod scratch;

pub(crate) use collect::divide_by_length;

use std::ops::Range;

use scratch::{Blocks, CHUNK, Scratch, Sizes, Worker};

use crate::error::RunError;
use crate::features::{Layers, Pooling};
use crate::format::{Config, Layer, Model, SectionKind};
use crate::kernels::{BLOCK, F32x16, Isa, Kernels, Keys};
use crate::threads::{Executor, Serial};

/// One sequence of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'i> {
    /// `[tokens]`: ids in the model's vocabulary.
    pub input_ids: &'i [u32],
    /// `[tokens]`: token types (segments); all 0 where `None`.
    pub token_type_ids: Option<&'i [u8]>,
    /// `[tokens]`: 0 for a token that no token shall attend to; all 1 where `None`. Masked tokens
    /// are left out of pooling; their own hidden states are computed as BERT computes them.
    pub attention_mask: Option<&'i [u8]>,
}

impl<'i> Input<'i> {
    /// Tokens of type 0, none masked.
    pub const fn new(input_ids: &'i [u32]) -> Self {
        Self { input_ids, token_type_ids: None, attention_mask: None }
    }
}

/// What is asked of a forward pass. Any number may be asked of one pass.
// A boxed selection would need an allocator.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Output<'o> {
    /// Hidden states.
    Features {
        /// Which, and how combined.
        layers: Layers,
        /// How pooled.
        pooling: Pooling,
        /// Whether each vector is divided by its Euclidean length.
        normalize: bool,
        /// [`features_len`] values: a vector a token, or one.
        out: &'o mut [f32],
    },
    /// The logits of a head. Of [`SectionKind::TokenClassifier`] and [`SectionKind::QuestionAnswering`]:
    /// `[tokens][outputs]`; of [`SectionKind::SequenceClassifier`] and [`SectionKind::NextSentence`]: `[outputs]`.
    Logits {
        /// Which head.
        head: SectionKind,
        /// The logits.
        out: &'o mut [f32],
    },
    /// Logits of every word at some positions.
    MaskedLm {
        /// Positions in the input.
        positions: &'o [usize],
        /// `[positions][vocab]`.
        out: &'o mut [f32],
    },
    /// The probabilities of the attention.
    Attention {
        /// Layer, from 0.
        layer: usize,
        /// `[tokens][heads][tokens]`: query, head, key.
        out: &'o mut [f32],
    },
}

/// Values that [`Output::Features`] has: tokens (1 if pooled) times features.
///
/// # Errors
/// [`RunError::NoSuchLayer`].
pub fn features_len(
    config: &Config,
    tokens: usize,
    layers: &Layers,
    pooling: Pooling,
) -> Result<usize, RunError> {
    let selection = layers
        .resolve(config.num_hidden_layers)
        .map_err(|layer| RunError::NoSuchLayer { layer, layers: config.num_hidden_layers })?;
    let width = selection.width(config.hidden_size);
    Ok(match pooling {
        Pooling::None => tokens.saturating_mul(width),
        Pooling::MeanMax => 2 * width,
        _ => width,
    })
}

impl Config {
    /// Bytes of scratch that an encoder needs for inputs of up to `tokens` tokens on one thread.
    /// `const`, so that firmware can reserve a `static`.
    ///
    /// The formula, for H, I and P = heads x padded head in floats rounded up to 16, S and Q the same
    /// with the next odd number of heads (S of them, of Q floats together), T tokens in B blocks of 16,
    /// and a chunk C = min(48, 16 B): hidden and combined states 8 T H; queries, keys and values in int8
    /// 16 B P + 48 B Q + 256 B S (f32: about 192 B Q); the worker 4 C (widest + P + H) + C widest +
    /// 16 widest + 2,112 per pair of blocks, where widest is the largest of 3 P, I and H; each part rounded
    /// up to 64 bytes.
    pub const fn scratch_len(&self, tokens: usize) -> usize {
        Sizes::new(self, tokens).scratch_len(1)
    }

    /// [`Config::scratch_len`] for so many threads.
    pub const fn scratch_len_threads(&self, tokens: usize, threads: usize) -> usize {
        Sizes::new(self, tokens).scratch_len(threads)
    }
}

/// Runs a model. Holds the model, the instruction set and the caller's scratch; allocates nothing.
///
/// ```no_run
/// use bertlet::{Encoder, Input, Isa, Layers, Model, Output, Pooling, RunError};
///
/// # fn embed(bytes: &[u8], scratch: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let model = Model::from_bytes(bytes)?;
/// let mut encoder = Encoder::new(model, Isa::detect(), scratch, 128)?;
/// let mut vector = [0.0; 384];
/// encoder.encode(
///     &Input::new(&[101, 7592, 102]),
///     &mut [Output::Features {
///         layers: Layers::LAST,
///         pooling: Pooling::Mean,
///         normalize: true,
///         out: &mut vector,
///     }],
/// )?;
/// # Ok(())
/// # }
/// ```
pub struct Encoder<'a, 's> {
    model: Model<'a>,
    kernels: &'static Kernels,
    executor: &'s dyn Executor,
    /// Those of the executor when the scratch was measured, at least one.
    threads: usize,
    scratch: &'s mut [u8],
    tokens: usize,
}

impl<'a, 's> Encoder<'a, 's> {
    /// An encoder for inputs of up to `tokens` tokens, on the calling thread.
    ///
    /// # Errors
    /// [`RunError::Scratch`] if `scratch` is shorter than [`Config::scratch_len`];
    /// [`RunError::TooManyTokens`] if the model has fewer positions.
    pub fn new(
        model: Model<'a>,
        isa: Isa,
        scratch: &'s mut [u8],
        tokens: usize,
    ) -> Result<Self, RunError> {
        Self::with_executor(model, isa, scratch, tokens, &Serial)
    }

    /// An encoder on an executor's threads, which needs [`Config::scratch_len_threads`].
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub fn with_executor(
        model: Model<'a>,
        isa: Isa,
        scratch: &'s mut [u8],
        tokens: usize,
        executor: &'s dyn Executor,
    ) -> Result<Self, RunError> {
        let limit = model.config().max_position_embeddings;
        if tokens > limit {
            return Err(RunError::TooManyTokens { have: tokens, limit });
        }
        let threads = executor.threads().max(1);
        let need = model.config().scratch_len_threads(tokens, threads);
        let have = scratch.len();
        if have < need {
            return Err(RunError::Scratch { need, have });
        }
        Ok(Self { model, kernels: isa.kernels(), executor, threads, scratch, tokens })
    }

    /// The model.
    pub fn model(&self) -> Model<'a> {
        self.model
    }

    /// The most tokens of an input.
    pub fn max_tokens(&self) -> usize {
        self.tokens
    }

    /// Runs the model on one input as far as `outputs` need, and fills them.
    ///
    /// # Errors
    /// Any [`RunError`] but [`RunError::Scratch`]; then no output has been written.
    pub fn encode(
        &mut self,
        input: &Input<'_>,
        outputs: &mut [Output<'_>],
    ) -> Result<(), RunError> {
        check_input(self.model.config(), input, self.tokens)?;
        let tokens = input.input_ids.len();
        let last = collect::check(&self.model, tokens, outputs)?;

        let sizes = Sizes::new(self.model.config(), tokens);
        let threads = self.threads;
        let scratch = Scratch::new(&sizes, threads, self.scratch)
            .expect("a shorter input needs no more scratch");
        let Scratch { hidden, combined, limit, mut blocks, workers } = scratch;
        let pass = Pass {
            model: self.model,
            config: self.model.config(),
            kernels: self.kernels,
            executor: self.executor,
            sizes: &sizes,
            keys: live_keys(input, limit),
        };
        let mut collector = collect::Collector::new(&pass, input, combined);

        pass.embed(input, hidden);
        collector.hidden_state(0, hidden, outputs);
        for i in 0..last {
            let layer = self.model.layer(i);
            pass.project(&layer, hidden, &mut blocks, workers, threads);
            let maps = collect::attention_of_layer(i, outputs);
            pass.attend(&layer, hidden, 0, &blocks, workers, threads, maps);
            collect::share_attention(i, outputs);
            collector.hidden_state(i + 1, hidden, outputs);
        }
        collector.finish(hidden, &mut Worker::new(&sizes, workers), outputs);
        Ok(())
    }
}

fn check_input(config: &Config, input: &Input<'_>, limit: usize) -> Result<(), RunError> {
    let need = input.input_ids.len();
    if need == 0 {
        return Err(RunError::NoTokens);
    }
    if need > limit {
        return Err(RunError::TooManyTokens { have: need, limit });
    }
    for (what, given) in
        [("token_type_ids", input.token_type_ids), ("attention_mask", input.attention_mask)]
    {
        if let Some(have) = given.map(<[u8]>::len).filter(|have| *have != need) {
            return Err(RunError::Lengths { what, have, need });
        }
    }
    let vocab = config.vocab_size;
    for (position, id) in input.input_ids.iter().copied().enumerate() {
        if id as usize >= vocab {
            return Err(RunError::UnknownToken { position, id, vocab });
        }
    }
    let types = config.type_vocab_size;
    for (position, token_type) in input.token_type_ids.into_iter().flatten().copied().enumerate() {
        if usize::from(token_type) >= types {
            return Err(RunError::UnknownTokenType { position, token_type, types });
        }
    }
    if input.attention_mask.is_some_and(|mask| mask.iter().all(|m| *m == 0)) {
        return Err(RunError::AllMasked);
    }
    Ok(())
}

/// `rows` in the fewest chunks, as even as whole blocks allow: weights are read for each of them.
fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = rows.div_ceil(BLOCK);
    let count = blocks.div_ceil(CHUNK / BLOCK);
    let start = move |i: usize| rows.min(i * blocks / count * BLOCK);
    (0..count).map(move |i| start(i)..start(i + 1))
}

/// Notes in `limit` which keys take part.
fn live_keys<'k>(input: &Input<'_>, limit: &'k mut [F32x16]) -> Keys<'k> {
    let count = input.input_ids.len();
    for (b, limit) in limit.iter_mut().enumerate() {
        for (lane, limit) in limit.0.iter_mut().enumerate() {
            let t = b * BLOCK + lane;
            let live = t < count && input.attention_mask.is_none_or(|mask| mask[t] != 0);
            *limit = if live { f32::MAX } else { f32::MIN };
        }
    }
    Keys { count, limit }
}

/// What stays the same for a whole forward pass.
struct Pass<'p> {
    model: Model<'p>,
    config: &'p Config,
    kernels: &'static Kernels,
    executor: &'p dyn Executor,
    sizes: &'p Sizes,
    keys: Keys<'p>,
}

impl Pass<'_> {
    /// `hidden = norm(word + token type + position)`, in that order.
    fn embed(&self, input: &Input<'_>, hidden: &mut [F32x16]) {
        let width = self.sizes.hidden;
        let tables = self.model.embeddings();
        let (hidden_size, eps) = (self.config.hidden_size, self.config.layer_norm_eps);
        for (b, rows) in hidden.chunks_mut(BLOCK * width).enumerate() {
            let tokens = || b * BLOCK..;
            // The words' rows first: they lie far apart, and are waited for together.
            for (t, row) in tokens().zip(rows.chunks_exact_mut(width)) {
                let word = tables.word.row(input.input_ids[t] as usize, width);
                self.kernels.add_row(row, word, true);
            }
            for (t, row) in tokens().zip(rows.chunks_exact_mut(width)) {
                let token_type = input.token_type_ids.map_or(0, |types| types[t].into());
                self.kernels.add_row(row, tables.token_type.row(token_type, width), false);
                self.kernels.add_row(row, tables.position.row(t, width), false);
            }
            self.kernels.add_norm(rows, &[], tables.norm, hidden_size, eps);
        }
    }

    /// Rows of the first of two halves for so many threads; `None` where one thread does it all.
    fn halve(&self, hidden: &[F32x16], threads: usize) -> Option<usize> {
        let blocks = (hidden.len() / self.sizes.hidden).div_ceil(BLOCK);
        (threads > 1 && blocks > 1)
            .then(|| (blocks * (threads / 2)).div_ceil(threads).clamp(1, blocks - 1))
    }

    /// The first sweep: queries, keys and values of every row of `hidden`, into `blocks`.
    fn project(
        &self,
        layer: &Layer<'_>,
        hidden: &[F32x16],
        blocks: &mut Blocks<'_>,
        workers: &mut [u8],
        threads: usize,
    ) {
        let heads = self.config.head_shape();
        if let Some(half) = self.halve(hidden, threads) {
            let (hidden_a, hidden_b) = hidden.split_at(half * BLOCK * self.sizes.hidden);
            let (mut blocks_a, mut blocks_b) = blocks.split_at(heads, half);
            let left = threads / 2;
            let (workers_a, workers_b) = workers.split_at_mut(left * self.sizes.worker_len());
            self.executor.join(
                &mut || self.project(layer, hidden_a, &mut blocks_a, workers_a, left),
                &mut || self.project(layer, hidden_b, &mut blocks_b, workers_b, threads - left),
            );
            return;
        }
        let mut worker = Worker::new(self.sizes, workers);
        let width = self.sizes.hidden;
        for range in chunks(hidden.len() / width) {
            let (x, rows) = (&hidden[range.start * width..range.end * width], range.len());
            let qkv = &mut worker.wide[..rows * 3 * self.sizes.heads];
            layer.query_key_value.forward(self.kernels, x, rows, &mut worker.quantised, qkv);
            let (_, mut rest) = blocks.split_at(heads, range.start / BLOCK);
            match rest.split_at(heads, rows.div_ceil(BLOCK)).0 {
                Blocks::Int8(blocks) => {
                    self.kernels.pack_int8(qkv, heads, blocks, worker.quantised.values);
                }
                Blocks::F32(blocks) => self.kernels.pack_f32(qkv, heads, blocks),
            }
        }
    }

    /// The second sweep: attention of the rows of `hidden`, whose first stands in block `first`; then the
    /// third, from there to the next layer. `maps` gets the attention's probabilities.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        layer: &Layer<'_>,
        hidden: &mut [F32x16],
        first: usize,
        blocks: &Blocks<'_>,
        workers: &mut [u8],
        threads: usize,
        mut maps: Option<&mut [f32]>,
    ) {
        // Probabilities of a block of queries.
        let map_len = BLOCK * self.config.num_attention_heads * self.keys.count;
        if let Some(half) = self.halve(hidden, threads) {
            let (hidden_a, hidden_b) = hidden.split_at_mut(half * BLOCK * self.sizes.hidden);
            let (mut maps_a, mut maps_b) = maps.map(|m| m.split_at_mut(half * map_len)).unzip();
            let left = threads / 2;
            let (workers_a, workers_b) = workers.split_at_mut(left * self.sizes.worker_len());
            self.executor.join(
                &mut || {
                    self.attend(
                        layer,
                        hidden_a,
                        first,
                        blocks,
                        workers_a,
                        left,
                        maps_a.as_deref_mut(),
                    );
                },
                &mut || {
                    let (first, right) = (first + half, threads - left);
                    self.attend(
                        layer,
                        hidden_b,
                        first,
                        blocks,
                        workers_b,
                        right,
                        maps_b.as_deref_mut(),
                    );
                },
            );
            return;
        }
        let mut worker = Worker::new(self.sizes, workers);
        let width = self.sizes.hidden;
        for range in chunks(hidden.len() / width) {
            let rows = range.len();
            let done = range.start / BLOCK;
            let maps = maps.as_deref_mut().map(|maps| &mut maps[done * map_len..]);
            self.attend_chunk(first + done, rows, blocks, &mut worker, maps);
            let x = &mut hidden[range.start * width..range.end * width];
            self.add_attention(layer, x, rows, &mut worker);
        }
        // Once more over the chunks, so that these weights alone have to stay in the cache.
        for range in chunks(hidden.len() / width) {
            let x = &mut hidden[range.start * width..range.end * width];
            self.feed_forward(layer, x, range.len(), &mut worker);
        }
    }

    /// Attention of the `rows` tokens of a chunk, which starts with block `b`.
    fn attend_chunk(
        &self,
        b: usize,
        rows: usize,
        blocks: &Blocks<'_>,
        worker: &mut Worker<'_>,
        maps: Option<&mut [f32]>,
    ) {
        let heads = self.config.head_shape();
        let (work, context) = worker.attention();
        let (kernels, keys) = (self.kernels, self.keys);
        match blocks {
            Blocks::Int8(blocks) => {
                kernels.attend_int8(heads, blocks.as_ref(), b, rows, keys, work, context, maps);
            }
            Blocks::F32(blocks) => {
                kernels.attend_f32(heads, blocks.as_ref(), b, rows, keys, work, context, maps);
            }
        }
    }

    /// From the attention's context to its sublayer's state: `x = norm(x + W_o context)`.
    fn add_attention(
        &self,
        layer: &Layer<'_>,
        x: &mut [F32x16],
        rows: usize,
        worker: &mut Worker<'_>,
    ) {
        let (kernels, hidden, eps) =
            (self.kernels, self.config.hidden_size, self.config.layer_norm_eps);
        let Worker { context, output, quantised, .. } = worker;
        let context = &context[..rows * self.sizes.heads];
        let output = &mut output[..x.len()];
        layer.attention_output.forward(kernels, context, rows, quantised, output);
        kernels.add_norm(x, output, layer.attention_norm, hidden, eps);
    }

    /// From there to the next hidden state: `x = norm(x + W_2 activation(W_1 x))`.
    fn feed_forward(
        &self,
        layer: &Layer<'_>,
        x: &mut [F32x16],
        rows: usize,
        worker: &mut Worker<'_>,
    ) {
        let (kernels, hidden, eps) =
            (self.kernels, self.config.hidden_size, self.config.layer_norm_eps);
        let Worker { wide, output, quantised, .. } = worker;
        let inner = &mut wide[..rows * self.sizes.intermediate];
        let output = &mut output[..x.len()];
        layer.intermediate.forward(kernels, x, rows, quantised, inner);
        let activation = self.config.hidden_act;
        layer.output.forward_activated(kernels, activation, inner, rows, quantised, output);
        kernels.add_norm(x, output, layer.output_norm, hidden, eps);
    }
}
